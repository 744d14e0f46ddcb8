"""The operator for an hour: many idle resources, many that live and die, and a kubelet and controllers that are played.

    python bench/operator_soak.py [--minutes 60 --idle 2000 --active 500 --run-s 120 --step-s 20]

One operator and one API server (alidade_local.apiserver) on loopback, as in the other benchmarks of the operator. The
idle resources, of all kinds, have ended, are suspended, or serve, and nobody touches them again. The active ones lead
lives (bench/resource_lives.py): they are created, their pods start, tell their progress, and end well or badly; some
are suspended and resumed, some lose their job, some are given up; whatever has ended is deleted, and another takes its
place. For the last minutes nothing is made any more, and all comes to its end.

Written for each minute: how long the operator took to react to a change, as a watch of the benchmark's own process saw
it; API calls, writes and processor time for each change; resident memory, descriptors and connections; how soon
/healthz, which its event loop answers, does; and the API server's memory and processor time. Then the slope of
memory, and what was wrong: statuses that are not true, two attempts at a time, what belongs to nobody, idle resources
that were written, errors in the log. Exit code 1 where anything was wrong or memory was not flat.

Everything ends by itself. Results: bench/results/operator_soak.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), *(str(ROOT / package) for package in ("crds", "operator", "local"))]

from alidade_local.objects import Object, uid_of  # noqa: E402  # the path is set above
from alidade_operator.api import CHILD_KINDS, CONFIG_MAP, PARENT_KINDS, Api, ApiError, Kind  # noqa: E402
from alidade_operator.resources.labels import SELECTOR  # noqa: E402
from bench.operator_load import NAMESPACE, Subject, api_server, settled  # noqa: E402
from bench.resource_lives import SHARES, Lives  # noqa: E402
from bench.servers import processor  # noqa: E402
from bench.simulated_cluster import Pace, SimulatedCluster  # noqa: E402
from bench.soak_meter import WARM_UP, Meter, in_ms, slope  # noqa: E402
from tests.fuzz.applying import mistakes  # noqa: E402

RESULTS = ROOT / "bench/results/operator_soak.json"
MOST_GROWTH = 0.05
"""Of the operator's memory, in an hour."""
LEAST_S = 1200.0
"""A shorter run does not tell."""
MADE_AT_ONCE = 16
SETTING_UP_S, DRAIN_S = 1800.0, 240.0
"""Longest that the idle resources take to be made, and the active ones to end: then something hangs."""
SORTS = {
    "created": "created, until it has its job",
    "changed": "served otherwise, until the Deployment is",
    "suspended": "suspended, until its job is gone",
    "resumed": "resumed, until it has a job",
    "lost": "its job deleted, until it has another",
    "ended": "its last pod ended, until its status says so",
}
"""What is reacted to."""


def main(argv: Sequence[str]) -> int:
    """Measures, prints and writes; 1 where anything was wrong or grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60, help="with the active resources (default: 60)")
    parser.add_argument("--idle", type=int, default=2000, help="resources that nobody touches (default: 2000)")
    parser.add_argument("--active", type=int, default=500, help="resources that lead lives (default: 500)")
    parser.add_argument("--run-s", type=float, default=120, help="mean run of a pod, in seconds (default: 120)")
    parser.add_argument("--step-s", type=float, default=20, help="of a training, which it tells (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="of what becomes of whom (default: 1)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="alidade-soak-") as folder:
        found = asyncio.run(soak(Path(folder), options))
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    for line in found["wrong"]:
        print(line, file=sys.stderr)
    return int(bool(found["wrong"]) or found["flat"] is False)


# Course


async def soak(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All of it."""
    chance, load_before = random.Random(options.seed), os.getloadavg()[0]
    operator = Subject("operator", [sys.executable, "-m", "alidade_operator.main"], "listed every kind", folder)
    pace = Pace(start_s=0, run_s=0, step_s=options.step_s, chance=chance)
    async with api_server(folder) as (api, environment, server):
        await operator.start(environment)
        try:
            async with SimulatedCluster(api, folder / "kubeconfig", NAMESPACE, pace, pods=options.active) as cluster:
                lives = Lives(cluster, chance)
                async with asyncio.timeout(SETTING_UP_S):
                    await make_idle(lives, options.idle)
                    await settled(api, operator)
                untouched = {uid_of(body): body for kind in PARENT_KINDS for body in cluster.all(kind)}
                async with Meter(operator, server, lives) as meter:
                    before = await meter.rest()
                    pace.start_s, pace.run_s = min(5.0, options.run_s / 4), options.run_s
                    await lead(lives, meter, options)
                    async with asyncio.timeout(DRAIN_S):
                        await settled(api, operator)
                    after = await meter.rest()
                lives.check_all()
                wrong = [*lives.wrong, *cluster.wrong, *touched(cluster, untouched), *await orphans(api, cluster)]
        finally:
            operator.kill()
    wrong += [f"logged: {line}" for line in mistakes(operator.log())]
    if before["writes"] or after["writes"]:
        wrong.append(f"the operator wrote {before['writes']} and {after['writes']} times with nothing to do")
    machine = {"processor": processor(), "cpus": os.cpu_count(), "load_before": load_before}
    setting = {key: getattr(options, key) for key in ("minutes", "idle", "active", "run_s", "step_s", "seed")}
    return {
        "machine": machine,
        "setting": setting,
        "untouched": len(untouched),
        **summary(meter),
        "rest": {"before": before, "after": after},
        "wrong": wrong,
        "by_minute": meter.minutes,
    }


def summary(meter: Meter) -> dict[str, Any]:
    """What the minutes come to, the warm-up left out of reactions and slopes."""
    minutes = meter.minutes
    warm = meter.reactions_s[round(WARM_UP * len(minutes)) :]
    seconds = sum(minute["seconds"] for minute in minutes)
    per_hour = 3600 * len(minutes) / seconds
    memory = {
        name: slope([minute[field] for minute in minutes], per_hour)
        for name, field in (("operator", "resident_mb"), ("server", "server_mb"))
    }
    own = memory["operator"]
    return {
        "lives": sum(minute["lives"] for minute in minutes),
        "changes": sum(sum(minute["changes"].values()) for minute in minutes),
        "reaction_ms": {sort: in_ms([one for part in warm for one in part.get(sort, ())]) for sort in SORTS},
        "memory": memory,
        "flat": own["growth"] <= max(2 * own["error"], MOST_GROWTH * own["mean"]) if seconds > LEAST_S else None,
    }


async def make_idle(lives: Lives, count: int) -> None:
    """Makes the resources that nobody will touch, and waits until they are as they will stay."""
    slots = asyncio.Semaphore(MADE_AT_ONCE)

    async def one(kind: Kind, number: int) -> None:
        async with slots:
            await lives.idle(kind, number)

    begun = time.monotonic()
    await asyncio.gather(*(one(kind, number) for number, kind in enumerate(kinds(count))))
    print(f"{count} idle resources were made in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    lives.reactions_s.clear()


def kinds(count: int) -> list[Kind]:
    """The kinds of so many resources, by their shares; at least one of each."""
    found = [kind for kind, share in SHARES.items() for _ in range(max(1, round(share * count)))]
    return (found + [next(iter(SHARES))] * count)[:count] if len(found) < count else found


async def lead(lives: Lives, meter: Meter, options: argparse.Namespace) -> None:
    """The active resources' lives for the minutes; then all come to their end."""
    ends_at = time.monotonic() + 60 * options.minutes
    tasks = [asyncio.create_task(_later(lives, kind, ends_at, options.run_s)) for kind in kinds(options.active)]
    period_s = min(60.0, 60 * options.minutes / 4)
    while time.monotonic() < ends_at - period_s / 2:
        await asyncio.sleep(period_s)
        await meter.take_minute()
        print(json.dumps(meter.minutes[-1]), file=sys.stderr, flush=True)
    lives.cluster.pace.hurry()
    done, late = await asyncio.wait(tasks, timeout=DRAIN_S)
    for task in late:
        task.cancel()
    if late:
        lives.wrong.append(f"{len(late)} resources did not end within {DRAIN_S:g} s of their last pod's end")
    for task in done:
        task.result()


async def _later(lives: Lives, kind: Kind, ends_at: float, within_s: float) -> None:
    """A slot that begins sometime, so that not all are in step."""
    await lives.cluster.pace.starts()
    await lives.cluster.pace.rest(lives.cluster.pace.chance.uniform(0, within_s / 4))
    await lives.slot(kind, lambda: time.monotonic() < ends_at)


# What has to hold


def touched(cluster: SimulatedCluster, before: dict[str, Object]) -> list[str]:
    """Idle resources that are gone, or that somebody has written."""
    now = {uid_of(body): body for kind in PARENT_KINDS for body in cluster.all(kind)}
    found = []
    for uid, body in before.items():
        name = body["metadata"]["name"]
        if uid not in now:
            found.append(f"{name} was idle, and is gone")
        elif now[uid]["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            found.append(f"{name} was idle, and was written")
    return found


async def orphans(api: Api, cluster: SimulatedCluster) -> list[str]:
    """What the operator has made, and belongs to nobody who is there."""
    there = {uid_of(body) for kind in PARENT_KINDS for body in cluster.all(kind)}
    made: list[Object] = []
    for kind in (*CHILD_KINDS, CONFIG_MAP):
        with suppress(ApiError):  # kinds that are not installed
            made += (await api.list(kind, namespace=cluster.played.namespace, selector=SELECTOR))[0]
    there |= {uid_of(body) for body in made}
    return [
        f"{body['kind']} {body['metadata']['name']} belongs to nobody who is there"
        for body in made
        if not there & {owner["uid"] for owner in body["metadata"].get("ownerReferences") or []}
    ]


# What is told

ROWS = {
    "changes_per_s": "changes in a second",
    "calls_per_change": "API calls for a change",
    "writes_per_change": "of them, writes",
    "cpu_ms_per_change": "processor time for a change, ms",
    "cpu_percent": "processor, percent of a core",
    "server_cpu_percent": "the API server's, percent of a core",
    "own_cpu_percent": "the benchmark's own, percent of a core",
    "resident_mb": "resident memory, MB",
    "server_mb": "the API server's, MB",
    "descriptors": "descriptors",
    "connections.api": "connections to the API server",
    "connections.others": "connections to pods, and others",
    "healthz_ms": "/healthz answered, p50 / p99, ms",
    "own_delay_ms": "delays of the benchmark's own loop, p50 / p99, ms",
}


def table(found: dict[str, Any]) -> str:
    """Reactions over all, and the least, median and greatest minute of everything else."""
    lines = ["| reaction | p50 | p99 |", "|---|---:|---:|"]
    for sort, title in SORTS.items():
        if found["reaction_ms"][sort] is not None:
            lines.append(f"| {title} | " + " | ".join(f"{value:.1f} ms" for value in found["reaction_ms"][sort]) + " |")
    lines += ["", "| in a minute | least | median | greatest |", "|---|---:|---:|---:|"]
    for path, title in ROWS.items():
        values = sorted(value for minute in found["by_minute"] if (value := _at(minute, path)) is not None)
        if values:
            shown = (values[0], values[len(values) // 2], values[-1])
            lines.append(f"| {title} | " + " | ".join(_shown(value) for value in shown) + " |")
    lines.append("")
    for name, grown in found["memory"].items() if found["flat"] is not None else ():
        lines.append(f"Memory of the {name}: {grown['growth']:+.1f} ± {grown['error']:.1f} MB in an hour.")
    rest = found["rest"]
    for when in ("before", "after"):
        lines.append(f"At rest {when}: {rest[when]['cpu_percent']} % of a core, {rest[when]['writes']} writes.")
    lines.append(f"{found['lives']} lives, {found['changes']} changes, {len(found['wrong'])} things wrong.")
    return "\n".join(lines)


def _at(minute: dict[str, Any], path: str) -> Any:
    """The value at names joined by dots; None where there is none."""
    value: Any = minute
    for name in path.split("."):
        value = value.get(name) if value is not None else None
    return value


def _shown(value: float | Sequence[float]) -> str:
    return f"{value:.1f}" if isinstance(value, int | float) else " / ".join(f"{one:.1f}" for one in value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
