"""The fault suite itself, small: `make chaos` runs all of it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS, Fault, ending, kill_operator, several_calls
from tests.chaos.fitness import UnfitClusterError
from tests.chaos.givenrig import GivenRig
from tests.chaos.localrig import LocalRig
from tests.chaos.rig import RANK_1
from tests.chaos.running import Bench
from tests.chaos.trial import STAGE


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not below /tmp, which pods have one of their own for."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made:
        yield Path(made)


async def test_a_job_ends_as_it_would_have_though_it_is_disturbed(folder: Path, tmp_path: Path) -> None:
    """On a cluster of the suite's own, and on the same one when it is a given one: starting one costs the most."""
    rig = LocalRig(folder)
    async with rig.up():
        outcome = await Bench(rig).run(
            Fault("smoke", "some of it", kill_operator, several_calls, workload=STAGE), seed=1
        )
        assert outcome.broken == ()
        assert outcome.struck > 3, "not the kills alone"
        given = GivenRig(tmp_path, rig.kubeconfig, namespace="given")
        with pytest.raises(UnfitClusterError, match="an operator is at work on this cluster"):
            async with given.up():
                pytest.fail("two operators would be at work")
        async with rig.starting:  # so that nobody starts its operator again
            await asyncio.to_thread(rig.operator.stop)
            async with given.up():
                outcome = await Bench(given).run(
                    Fault("smoke", "a worker's pod", ending(RANK_1), restarts=True, workload=STAGE), seed=1
                )
        assert outcome.broken == ()
        assert outcome.struck == 1


def test_every_fault_has_a_name_of_its_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
