"""The operator under resources as nobody would write them.

    python bench/operator_hostile.py [--resources 10000] [--seed 1]   writes bench/results/operator_hostile.json

Valid, nearly valid and hostile resources of all kinds (tests/fuzz/resources.py) are applied to a local API server that
an operator watches, 250 at a time, and deleted again. Each has to be refused with a sentence that names a field, or
taken and told of by the condition Accepted. Measured: what came of them, the operator's resident memory after each
tenth part, and what it writes and works once it has nothing to do. Exit code 1 where a promise was not kept; the seed
repeats it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import aiohttp
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), *(str(ROOT / package) for package in ("crds", "operator", "local"))]

from alidade_operator.api import CLAIM, Api  # noqa: E402
from tests.fuzz.applying import NODE_POOLS, Applicant, Findings, furnish, mistakes  # noqa: E402
from tests.operator.conftest import api_server_process, operator_process  # noqa: E402
from tests.operator.played import Played, connection, install_all_kinds  # noqa: E402

BATCH = 250
QUIET_S = 5.0


async def measure(folder: Path, count: int, seed: int) -> dict[str, object]:
    """All of it."""
    server = api_server_process(folder)
    server.start()
    server.wait_for("serving https://")
    kubeconfig = folder / "kubeconfig"
    await install_all_kinds(kubeconfig)
    operator = operator_process(folder, kubeconfig, nodePools=NODE_POOLS)
    operator.start()
    operator.wait_for("listed every kind")
    assert operator.process is not None
    process = psutil.Process(operator.process.pid)
    link = connection(kubeconfig)
    api = Api(lambda: link, connections=8)
    try:
        played = Played(api, "fuzz")
        await played.create_namespace()
        await furnish(api, "fuzz")
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=link.ssl), timeout=aiohttp.ClientTimeout(total=20)
        ) as session:
            applicant = Applicant(api, link, session, "fuzz")
            total, memory, begun = Findings(), [process.memory_info().rss], time.monotonic()
            for start in range(0, count, BATCH):
                found = await applicant.apply(seed, range(start, min(count, start + BATCH)))
                total.sent += found.sent
                total.taken += found.taken
                total.reasons += found.reasons
                total.wrong += found.wrong
                if (start + BATCH) * 10 // count > start * 10 // count:
                    memory.append(process.memory_info().rss)
            seconds = time.monotonic() - begun
            await asyncio.sleep(QUIET_S)
            version, cpu = await _version(api), sum(process.cpu_times()[:2])
            await asyncio.sleep(QUIET_S)
            total.wrong += mistakes(operator.text())
            return {
                "resources": count,
                "seed": seed,
                "seconds": round(seconds, 1),
                "sent": dict(total.sent),
                "taken": dict(total.taken),
                "accepted": dict(Counter(total.reasons).most_common()),
                "residentMib": [round(value / 2**20, 1) for value in memory],
                "writesWhenQuiet": await _version(api) - version,
                "cpuSecondsWhenQuiet": round(sum(process.cpu_times()[:2]) - cpu, 2),
                "operatorRuns": operator.process.poll() is None,
                "wrong": total.wrong[:100],
            }
    finally:
        await api.close()
        operator.kill()
        server.kill()


async def _version(api: Api) -> int:
    """The API server's newest resource version: it counts every write that changed something."""
    return int((await api.list(CLAIM, namespace="fuzz"))[1])


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resources", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(measure(Path(folder), options.resources, options.seed))
    (ROOT / "bench" / "results" / "operator_hostile.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    return 1 if result["wrong"] or result["writesWhenQuiet"] or not result["operatorRuns"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
