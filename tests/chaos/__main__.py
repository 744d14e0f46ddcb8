"""Runs that are disturbed, one after the other; what must not be is printed with the seed that repeats it.

    python -m tests.chaos [--runs 200] [--seed 0] [--faults NAME,NAME] [--minutes 90] [--results FILE]

Run N has seed SEED + N. The faults take turns; with one run for each of --faults, --seed repeats a single one.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.chaos.faults import FAULTS, Fault
from tests.chaos.running import Bench, Outcome


def chosen(names: str | None) -> list[Fault]:
    """The faults of these names; all by default, without those that need rights that we lack."""
    known = {fault.name: fault for fault in FAULTS}
    unknown = set((names or "").split(",")) - set(known) - {""}
    if unknown:
        raise SystemExit(f"--faults names {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    faults = [known[name] for name in names.split(",")] if names else FAULTS
    return [fault for fault in faults if os.geteuid() == 0 or not fault.needs_root]


def table(outcomes: Iterable[Outcome]) -> str:
    """Faults by runs and what came of them, as a table of a document."""
    rows = ["| fault | what is done | runs | struck | held | median seconds |", "| --- | --- | --- | --- | --- | --- |"]
    ordered = sorted(outcomes, key=lambda one: FAULTS.index(one.fault))
    for fault, group in itertools.groupby(ordered, key=lambda one: one.fault):
        runs = list(group)
        seconds = sorted(one.seconds for one in runs)[len(runs) // 2]
        held = sum(not one.broken for one in runs)
        struck = sum(one.struck > 0 for one in runs)
        rows.append(f"| {fault.name} | {fault.what} | {len(runs)} | {struck} | {held} | {seconds:.0f} |")
    return "\n".join(rows)


async def run(arguments: argparse.Namespace) -> list[Outcome]:
    """The outcomes, each told as it comes."""
    faults, ends_at = chosen(arguments.faults), time.monotonic() + 60 * arguments.minutes
    outcomes: list[Outcome] = []
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # so that mounts and processes go
    # Not in /tmp: programs of pods would be looked for in the /tmp that each pod has of its own.
    with tempfile.TemporaryDirectory(prefix="alidade-chaos-", dir="/var/tmp") as folder:
        async with Bench(Path(folder)) as bench:
            for number, fault in zip(range(arguments.runs), itertools.cycle(faults), strict=False):
                if time.monotonic() > ends_at:
                    print(f"{arguments.minutes:g} minutes are over: {arguments.runs - number} runs are left out")
                    break
                outcome = await bench.run(fault, arguments.seed + number)
                outcomes.append(outcome)
                word = "broken" if outcome.broken else "held"
                print(f"{outcome.seed:4d} {fault.name}: {word}, struck {outcome.struck} times, {outcome.seconds:.1f} s",
                      *(f"     {sentence}" for sentence in outcome.broken), sep="\n", flush=True)  # fmt: skip
                if outcome.broken:
                    print(f"     again: python -m tests.chaos --runs 1 --seed {outcome.seed} --faults {fault.name}")
                    if arguments.keep:
                        print(f"     logs: {bench.keep(Path(arguments.keep), outcome)}", flush=True)
    return outcomes


def main() -> int:
    """1 where something did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Disturbs runs on a local cluster.")
    parser.add_argument("--runs", type=int, default=len(FAULTS), help="how many; default: one for each fault")
    parser.add_argument("--seed", type=int, default=0, help="of the first run; 0")
    parser.add_argument("--faults", help="names, with commas between them; all")
    parser.add_argument("--minutes", type=float, default=90, help="begin no run after that long; 90")
    parser.add_argument("--results", help="a file for the outcomes, one a line of JSON")
    parser.add_argument("--keep", help="a folder for the logs of what did not hold")
    arguments = parser.parse_args()
    outcomes = asyncio.run(run(arguments))
    print(table(outcomes))
    if arguments.results:
        Path(arguments.results).write_text(
            "".join(json.dumps(one.document()) + "\n" for one in outcomes), encoding="utf-8"
        )  # fmt: skip
    broken = sum(bool(one.broken) for one in outcomes)
    print(f"{len(outcomes)} runs, {broken} of them broken; load {os.getloadavg()[1]:.1f}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
