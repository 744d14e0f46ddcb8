"""The fault suite itself, small: `make chaos` runs all of it."""

from __future__ import annotations

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


async def test_a_job_ends_as_it_would_have_though_its_operator_is_killed_and_its_calls_fail(folder: Path) -> None:
    fault = Fault("smoke", "some of it", kill_operator, several_calls, workload=STAGE)
    rig = LocalRig(folder)
    async with rig.up():
        outcome = await Bench(rig).run(fault, seed=1)
        elsewhere = GivenRig(folder, rig.kubeconfig, namespace="elsewhere")
        with pytest.raises(UnfitClusterError, match="an operator is at work on this cluster"):
            async with elsewhere.up():
                pytest.fail("two operators would be at work")
    assert outcome.broken == ()
    assert outcome.struck > 3, "not the kills alone"


async def test_a_job_ends_as_it_would_have_on_a_cluster_that_was_there_though_a_pod_of_it_is_deleted(
    folder: Path, tmp_path: Path
) -> None:
    cluster = LocalRig(folder)
    rig = GivenRig(tmp_path, cluster.kubeconfig, namespace="elsewhere")
    async with cluster.reached(), rig.up():
        outcome = await Bench(rig).run(
            Fault("smoke", "a worker's pod", ending(RANK_1), restarts=True, workload=STAGE), seed=1
        )
    assert outcome.broken == ()
    assert outcome.struck == 1


def test_every_fault_has_a_name_of_its_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
