"""Runs that are disturbed, one after the other; what must not be is printed with the seed that repeats it.

    python -m tests.chaos [--runs 200] [--seed 0] [--faults NAME,NAME] [--minutes 90] [--results FILE]
                          [--kubeconfig FILE [--namespace NAME] [--image IMAGE]]

On a cluster of the suite's own, or on one that is there. Run N has seed SEED + N. The faults take turns; with one run
for each of --faults, --seed repeats a single one.
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
from tests.chaos.fitness import UnfitClusterError
from tests.chaos.givenrig import GivenRig
from tests.chaos.localrig import LocalRig
from tests.chaos.rig import Need, Rig
from tests.chaos.running import Bench, Outcome


def chosen(names: str | None, offers: frozenset[Need]) -> list[Fault]:
    """The faults of these names; all that are possible by default. offers: what is in hand."""
    known = {fault.name: fault for fault in FAULTS}
    asked = names.split(",") if names else list(known)
    unknown = sorted(set(asked) - set(known))
    if unknown:
        raise SystemExit(f"--faults names {', '.join(unknown)}; there are {', '.join(known)}")
    impossible = [f"{name} (needs {known[name].needs})" for name in asked if known[name].needs not in (None, *offers)]
    if names and impossible:
        raise SystemExit(f"--faults names what is not possible here: {', '.join(impossible)}")
    if impossible:
        print(f"left out: {', '.join(impossible)}")
    return [known[name] for name in asked if known[name].needs in (None, *offers)]


def table(outcomes: Iterable[Outcome], *, at_hand: bool) -> str:
    """Faults by runs and what came of them, as a table of a document. at_hand: whether the node is."""
    rows = ["| fault | what is done | runs | struck | held | median seconds |", "| --- | --- | --- | --- | --- | --- |"]
    ordered = sorted(outcomes, key=lambda one: FAULTS.index(one.fault))
    for fault, group in itertools.groupby(ordered, key=lambda one: one.fault):
        runs = list(group)
        seconds = sorted(one.seconds for one in runs)[len(runs) // 2]
        held = sum(not one.broken for one in runs)
        struck = sum(one.struck > 0 for one in runs)
        what = fault.what if at_hand else fault.through_api or fault.what
        rows.append(f"| {fault.name} | {what} | {len(runs)} | {struck} | {held} | {seconds:.0f} |")
    return "\n".join(rows)


def rig_of(arguments: argparse.Namespace, folder: Path) -> Rig:
    """The cluster that is named, or one of the suite's own."""
    if arguments.kubeconfig is None:
        return LocalRig(folder)
    kubeconfig = Path(arguments.kubeconfig).expanduser().resolve()
    return GivenRig(folder, kubeconfig, namespace=arguments.namespace, image=arguments.image)


async def run(arguments: argparse.Namespace, faults: list[Fault]) -> list[Outcome]:
    """The outcomes, each told as it comes."""
    ends_at = time.monotonic() + 60 * arguments.minutes
    runs = arguments.runs or len(faults)
    outcomes: list[Outcome] = []
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # so that mounts and processes go
    # Not in /tmp: programs of pods would be looked for in the /tmp that each pod has of its own.
    with tempfile.TemporaryDirectory(prefix="alidade-chaos-", dir="/var/tmp") as folder:
        rig = rig_of(arguments, Path(folder))
        async with rig.up():
            bench = Bench(rig)
            for number, fault in zip(range(runs), itertools.cycle(faults), strict=False):
                if time.monotonic() > ends_at:
                    print(f"{arguments.minutes:g} minutes are over: {runs - number} runs are left out")
                    break
                outcome = await bench.run(fault, arguments.seed + number)
                outcomes.append(outcome)
                word = "broken" if outcome.broken else "held"
                print(f"{outcome.seed:4d} {fault.name}: {word}, struck {outcome.struck} times, {outcome.seconds:.1f} s",
                      *(f"     {sentence}" for sentence in outcome.broken), sep="\n", flush=True)  # fmt: skip
                if outcome.broken:
                    print(f"     again: {again(arguments, outcome)}")
                    if arguments.keep:
                        print(f"     logs: {bench.keep(Path(arguments.keep), outcome)}", flush=True)
    return outcomes


def again(arguments: argparse.Namespace, outcome: Outcome) -> str:
    """The command that repeats a run."""
    words = ["python -m tests.chaos --runs 1", f"--seed {outcome.seed}", f"--faults {outcome.fault.name}"]
    if arguments.kubeconfig is not None:
        words += [f"--kubeconfig {arguments.kubeconfig}", f"--namespace {arguments.namespace}"]
        words += [f"--image {arguments.image}"] if arguments.image else []
    return " ".join(words)


def main() -> int:
    """1 where something did not hold, 2 where the cluster is not fit for it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Disturbs runs on a cluster.")
    parser.add_argument("--runs", type=int, help="how many; default: one for each fault")
    parser.add_argument("--seed", type=int, default=0, help="of the first run; 0")
    parser.add_argument("--faults", help="names, with commas between them; all")
    parser.add_argument("--minutes", type=float, default=90, help="begin no run after that long; 90")
    parser.add_argument("--results", help="a file for the outcomes, one a line of JSON")
    parser.add_argument("--keep", help="a folder for the logs of what did not hold")
    parser.add_argument("--kubeconfig", help="a cluster that is there, in place of one of the suite's own")
    parser.add_argument("--namespace", default="alidade-chaos", help="there: is made and deleted; alidade-chaos")
    parser.add_argument("--image", help="of the pods there; default: this release's trainer")
    arguments = parser.parse_args()
    at_hand = arguments.kubeconfig is None
    faults = chosen(arguments.faults, LocalRig.offers if at_hand else GivenRig.offers)
    try:
        outcomes = asyncio.run(run(arguments, faults))
    except UnfitClusterError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(outcomes, at_hand=at_hand))
    if arguments.results:
        Path(arguments.results).write_text(
            "".join(json.dumps(one.document()) + "\n" for one in outcomes), encoding="utf-8"
        )  # fmt: skip
    broken = sum(bool(one.broken) for one in outcomes)
    print(f"{len(outcomes)} runs, {broken} of them broken; load {os.getloadavg()[1]:.1f}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
