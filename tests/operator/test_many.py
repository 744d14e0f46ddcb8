"""Five hundred resources at once."""

from __future__ import annotations

import asyncio
import itertools
import random
from functools import partial
from pathlib import Path
from typing import Any

from alidade_operator.api import (
    ALIGNMENT_RUN,
    EVALUATION,
    FINE_TUNE_JOB,
    MODEL_SERVE,
    PYTORCH_JOB,
    REWARD_MODEL,
)
from bench.operator_load import Subject
from bench.operator_soak import ROWS, SORTS, orphans, summary, table
from bench.resource_lives import PLOTS, Lives
from bench.simulated_cluster import Pace, SimulatedCluster
from bench.soak_meter import Meter
from tests.operator.conftest import Process
from tests.operator.played import Played

COUNT = 500


async def test_five_hundred_resources_at_once_all_get_their_child_and_their_status(
    operator: Process, played: Played
) -> None:
    """How fast is bench/operator.py's question; on a busy machine only that it ends well is asserted."""
    slots = asyncio.Semaphore(8)

    async def apply(number: int) -> None:
        async with slots:
            await played.apply(f"job-{number}")

    await asyncio.gather(*(apply(number) for number in range(COUNT)))

    async def all_launched() -> bool:
        return len((await played.api.list(PYTORCH_JOB, namespace=played.namespace))[0]) == COUNT

    await played.until(all_launched, "500 children", timeout_s=200)

    async def all_told() -> bool:
        jobs, _ = await played.api.list(FINE_TUNE_JOB, namespace=played.namespace)
        return all((job.get("status") or {}).get("phase") == "Starting" for job in jobs)

    await played.until(all_told, "500 statuses", timeout_s=200)


class InTurn(random.Random):
    """Every plot of a training job once, and pods that all run as long."""

    def __init__(self) -> None:
        super().__init__(1)
        self._plots = itertools.cycle(["", *PLOTS])

    def choices(self, *_: Any, **__: Any) -> list[Any]:
        """The next one."""
        return [next(self._plots)]

    def expovariate(self, lambd: float = 1.0) -> float:
        """The mean."""
        return 1 / lambd


async def test_the_soak_leads_resources_of_all_kinds_through_their_lives_and_sees_what_is_wrong(
    operator: Process, played: Played, api_server: Path
) -> None:
    chance = InTurn()
    pace = Pace(start_s=0.05, run_s=0.6, step_s=0.1, chance=chance)
    subject = Subject("operator", [], "", operator.log.parent, operator.process)
    async with SimulatedCluster(played.api, api_server, played.namespace, pace, pods=20) as cluster:
        lives = Lives(cluster, chance)
        kinds = [FINE_TUNE_JOB] * (len(PLOTS) + 1) + [EVALUATION, MODEL_SERVE, ALIGNMENT_RUN]
        once = [iter([True]) for _ in kinds]
        slots = [lives.slot(kind, partial(next, turn, False)) for kind, turn in zip(kinds, once, strict=True)]
        async with Meter(subject, subject, lives) as meter:
            await meter.take_minute()
            await asyncio.gather(lives.idle(REWARD_MODEL, 0), *slots)
            for _ in range(3):
                await meter.take_minute()
        lives.check_all()
        assert lives.wrong + cluster.wrong + await orphans(played.api, cluster) == []
        assert lives.ended == len(kinds)
        found = summary(meter)
        # On a busy machine a job may end before its suspension or loss is noticed.
        seen = [title for sort, title in SORTS.items() if found["reaction_ms"][sort] is not None]
        assert {SORTS[sort] for sort in ("created", "changed", "ended")} <= set(seen)
        rest = {when: {"cpu_percent": 0.1, "writes": 0} for when in ("before", "after")}
        told = table({**found, "by_minute": meter.minutes, "rest": rest, "wrong": []})
        assert all(f"| {title} | " in told for title in (*seen, *ROWS.values()))

        ended = next(body for body in cluster.all(FINE_TUNE_JOB) if cluster.courses[body["metadata"]["uid"]].digest)
        cluster.courses[ended["metadata"]["uid"]].digest = "sha256:other"
        lives.check_all()
        [line] = lives.wrong
        assert line.startswith(ended["metadata"]["name"])
