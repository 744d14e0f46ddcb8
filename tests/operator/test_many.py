"""Five hundred resources at once."""

from __future__ import annotations

import asyncio

from alidade_operator.api import FINE_TUNE_JOB, PYTORCH_JOB
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
