"""How many training processes there are and where, read from the environment of a PyTorchJob's or TrainJob's pod."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class TopologyError(ValueError):
    """An environment that names no usable set of processes; the message says which variable and why."""


@dataclass(frozen=True)
class Topology:
    """The processes of one job as this pod sees them."""

    nodes: str
    """Pods of the job: a number, or MIN:MAX of an elastic job."""
    processes: int
    """Training processes in this pod."""
    node_rank: int
    """Which pod this is; the one of rank 0 writes the model and answers for progress."""

    @property
    def is_single_process(self) -> bool:
        """Whether one process is all there is, so that nothing has to meet."""
        return self.nodes == "1" and self.processes == 1


def read_topology(environ: Mapping[str, str], *, gpus: int) -> Topology:
    """The topology told by PET_NNODES, PET_NODE_RANK and PET_NPROC_PER_NODE; without them one pod, one process.

    gpus: GPUs of this pod; `auto` and `gpu` mean one process for each, and one process where there is none.
    Raises TopologyError for a value that is no number.
    """
    return Topology(
        nodes=environ.get("PET_NNODES") or "1",
        processes=_processes(environ.get("PET_NPROC_PER_NODE") or ("auto" if gpus else "1"), gpus),
        node_rank=_number(environ, "PET_NODE_RANK", default="0"),
    )


def _processes(value: str, gpus: int) -> int:
    if value in ("auto", "gpu"):
        return max(gpus, 1)
    if value == "cpu":
        return 1
    if not value.isdigit() or int(value) < 1:
        raise TopologyError(f"PET_NPROC_PER_NODE is {value!r}; it must be a number of at least 1, auto, gpu or cpu")
    return int(value)


def _number(environ: Mapping[str, str], name: str, *, default: str) -> int:
    value = environ.get(name) or default
    if not value.isdigit():
        raise TopologyError(f"{name} is {value!r}; it must be a number")
    return int(value)


def count_gpus(environ: Mapping[str, str], device_folder: Path = Path("/dev")) -> int:
    """NVIDIA GPUs that this process may use, without loading a GPU library."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    return len([path for path in device_folder.glob("nvidia[0-9]*") if path.name[len("nvidia") :].isdigit()])


def count_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """CPU cores that this container may use: its affinity, bounded by its CPU limit."""
    cores = len(os.sched_getaffinity(0))
    limit = cgroup / "cpu.max"
    if limit.is_file():
        quota, _, period = limit.read_text().strip().partition(" ")
        if quota.isdigit() and period.isdigit():
            cores = min(cores, max(1, int(quota) // int(period)))
    return cores
