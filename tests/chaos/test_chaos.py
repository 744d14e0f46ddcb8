"""The fault suite itself, small: `make chaos` runs all of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS, Fault, kill_operator, several_calls
from tests.chaos.localrig import LocalRig
from tests.chaos.running import Bench
from tests.chaos.trial import STAGE


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not below /tmp, which pods have one of their own for."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made:
        yield Path(made)


async def test_a_job_ends_as_it_would_have_though_its_operator_is_killed_and_its_calls_fail(folder: Path) -> None:
    fault = Fault("smoke", "some of it", kill_operator, several_calls, workload=STAGE)
    rig = LocalRig(folder)
    async with rig.up():
        outcome = await Bench(rig).run(fault, seed=1)
    assert outcome.broken == ()
    assert outcome.struck > 3, "not the kills alone"


def test_every_fault_has_a_name_of_its_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
