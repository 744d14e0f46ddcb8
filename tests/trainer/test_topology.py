"""Processes as the environment of a PyTorchJob tells them."""

from pathlib import Path

import pytest

from alidade_trainer.topology import Topology, TopologyError, count_cores, count_gpus, read_topology


@pytest.mark.parametrize(
    ("environ", "gpus", "expected"),
    [
        ({}, 0, Topology("1", 1, 0)),
        ({}, 4, Topology("1", 4, 0)),
        ({"PET_NNODES": "2", "PET_NPROC_PER_NODE": "8", "PET_NODE_RANK": "1"}, 8, Topology("2", 8, 1)),
        ({"PET_NNODES": "1:4", "PET_NPROC_PER_NODE": "1"}, 0, Topology("1:4", 1, 0)),
        ({"PET_NPROC_PER_NODE": "auto"}, 2, Topology("1", 2, 0)),
        ({"PET_NPROC_PER_NODE": "auto"}, 0, Topology("1", 1, 0)),  # torch would start one for each core
        ({"PET_NPROC_PER_NODE": "cpu"}, 0, Topology("1", 1, 0)),
    ],
)
def test_processes_follow_the_pet_variables(environ: dict[str, str], gpus: int, expected: Topology) -> None:
    assert read_topology(environ, gpus=gpus) == expected


def test_only_one_process_on_one_pod_needs_no_meeting() -> None:
    assert Topology("1", 1, 0).is_single_process
    assert not Topology("2", 1, 0).is_single_process
    assert not Topology("1", 2, 0).is_single_process
    assert not Topology("1:2", 1, 0).is_single_process


@pytest.mark.parametrize("value", ["0", "many", "-1"])
def test_a_process_count_that_is_no_number_is_refused_by_name(value: str) -> None:
    with pytest.raises(TopologyError, match=f"PET_NPROC_PER_NODE is '{value}'"):
        read_topology({"PET_NPROC_PER_NODE": value}, gpus=0)


def test_gpus_are_counted_by_their_devices_unless_the_environment_chooses(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()

    assert count_gpus({}, tmp_path) == 2
    assert count_gpus({"CUDA_VISIBLE_DEVICES": "1"}, tmp_path) == 1
    assert count_gpus({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == 0


def test_cores_are_bounded_by_the_containers_limit(tmp_path: Path) -> None:
    unlimited = count_cores(tmp_path)
    (tmp_path / "cpu.max").write_text("50000 100000\n")

    assert unlimited >= 1
    assert count_cores(tmp_path) == 1  # half a core still runs one thread
