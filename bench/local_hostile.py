"""The local API server's memory under bad requests.

    python bench/local_hostile.py [--requests 10000]      writes bench/results/local_hostile.json and prints the numbers

All bad requests of tests/local/conformance/hostile.py in turn, each on a connection of its own: bodies over the limit,
nested without end, of no type; paths, selectors and tokens that are none; what is not HTTP. Measured: resident memory
and open files before, after every tenth part and at the end, the size of the log, and that a good request is answered.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "crds"), str(ROOT / "local")]

from tests.local.conformance.hostile import NO_HTTP, PATH, STATUSES, code_of, request, said  # noqa: E402
from tests.local.conformance.servers import local_server  # noqa: E402


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    count = parser.parse_args().requests
    bad = [wire for wire, _ in STATUSES.values()] + list(NO_HTTP.values())
    with local_server() as server:
        process = psutil.Process(server.pid)
        for wire in bad:  # what is loaded once is no growth
            said(server, wire(server))
        memory = [process.memory_info().rss / 2**20]
        files = process.num_fds()
        started = time.monotonic()
        for number, wire in zip(range(1, count + 1), itertools.cycle(bad), strict=False):
            said(server, wire(server))
            if number % (count // 10) == 0:
                memory.append(process.memory_info().rss / 2**20)
        result = {
            "requests": count,
            "seconds": round(time.monotonic() - started, 1),
            "residentMib": [round(value, 1) for value in memory],
            "openFiles": [files, process.num_fds()],
            "logBytes": (server.kubeconfig.parent / "log").stat().st_size,
            "goodRequestAfterwards": code_of(said(server, request(f"GET {PATH}")(server))),
        }
    (ROOT / "bench" / "results" / "local_hostile.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
