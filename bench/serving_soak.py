"""The embedded server at its limit and beyond it: is every request answered or refused at once, and is memory flat?

    python bench/serving_soak.py [--minutes 5 --limit 16 --model FILE]

One server that takes so many requests at once (--limit). For a minute as many streams as it takes ask without a pause:
none may fail. Then, for --minutes, requests arrive at three times the rate that was answered, whatever becomes of them:
what is beyond the limit has to be refused with 429, and nothing may fail otherwise. The server's memory is read every
second all the while. Everything goes to loopback and ends by itself. The numbers are printed and written to
bench/results/serving_soak.json; the exit code is 1 when a request failed or memory grew by more than 5 % after the
first quarter.

Without --model, the model of bench/serving.py is made.
"""

import argparse
import json
import os
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.servers import embedded, free_port, load, processor, running  # noqa: E402  # the path is set above
from bench.serving import WORK, model_file  # noqa: E402

RESULTS = ROOT / "bench/results/serving_soak.json"
ANSWER_TOKENS = 32
MOST_GROWTH = 0.05


class Memory(threading.Thread):
    """Resident memory of a process, in MiB, read every second until it is stopped."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.readings: list[float] = []
        self._process = process
        self._stopped = threading.Event()

    def run(self) -> None:
        """Reads."""
        while not self._stopped.wait(1):
            self.readings.append(self._process.memory_info().rss / 2**20)

    def stop(self) -> None:
        """Ends the reading."""
        self._stopped.set()
        self.join()


def main() -> int:
    """Measures, prints and writes; 1 when something failed or grew."""
    options = _parser().parse_args()
    model, port = options.model or model_file("q8_0"), free_port()
    limits = ("--max-total-tokens=256", "--max-input-tokens=192", f"--max-concurrent-requests={options.limit}")
    with running(embedded(model, port, "--slots=8", *limits), port, WORK / "soak.log") as (url, pid):
        results = _loads(url, pid, options)
    print(json.dumps(results, indent=1))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    return int(bool(_complaints(results)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5, help="length of the load beyond the limit (default: 5)")
    parser.add_argument("--limit", type=int, default=16, help="requests that the server takes at once (default: 16)")
    parser.add_argument("--model", type=Path, help="a .gguf file; default: that of bench/serving.py")
    return parser


def _loads(url: str, pid: int, options: argparse.Namespace) -> dict[str, Any]:
    limit = _load(url, pid, f"--streams={options.limit}", "--duration=60")
    rate = 3 * limit["answeredPerSecond"]
    beyond = _load(url, pid, f"--rate={rate:.2f}", f"--duration={60 * options.minutes:.0f}")
    machine = {"processor": processor(), "cpus": os.cpu_count()}
    return {"machine": machine, "limit": options.limit, "rate": round(rate, 2), "at_limit": limit, "beyond": beyond}


def _load(url: str, pid: int, *options: str) -> dict[str, Any]:
    """What is counted under one load, and the server's memory meanwhile."""
    memory = Memory(psutil.Process(pid))
    memory.start()
    begun = time.monotonic()
    found = load(url, "--timeout=120", "--prompt-tokens=64", f"--answer-tokens={ANSWER_TOKENS}", *options)
    memory.stop()
    kept = ("offered", "answered", "shed", "failed", "answeredPerSecond", "answerTokensPerSecond", "errors")
    return {
        **{key: found[key] for key in kept},
        "seconds": round(time.monotonic() - begun, 1),
        "firstTokenSecondsP95": found["ttftSeconds"]["p95"],
        "memoryMiB": _memory(memory.readings),
    }


def _memory(readings: list[float]) -> dict[str, float]:
    """growth: of the last quarter's median over that of the second."""
    quarter = max(1, len(readings) // 4)
    second, last = statistics.median(readings[quarter : 2 * quarter]), statistics.median(readings[-quarter:])
    return {
        "first": round(readings[0], 1),
        "last": round(readings[-1], 1),
        "peak": round(max(readings), 1),
        "growth": round(last / second - 1, 4),
    }


def _complaints(results: dict[str, Any]) -> list[str]:
    """What should not have been, printed."""
    limit, beyond = results["at_limit"], results["beyond"]
    found = [f"{one['failed']} requests failed: {one['errors']}" for one in (limit, beyond) if one["failed"]]
    if limit["shed"]:
        found.append(f"{limit['shed']} requests were shed at the limit")
    if not beyond["shed"]:
        found.append("nothing was shed beyond the limit")
    if beyond["memoryMiB"]["growth"] > MOST_GROWTH:
        found.append(f"memory grew: {beyond['memoryMiB']}")
    for complaint in found:
        print(complaint, file=sys.stderr)
    return found


if __name__ == "__main__":
    sys.exit(main())
