"""The machine's GPUs, as `nvidia-smi` tells of them, and which container has which.

A container sees its GPUs by CUDA_VISIBLE_DEVICES, and one that asks for none sees none. That keeps apart programs that
do not mean to get in each other's way; one that sets the variable itself reaches every GPU.
"""

from __future__ import annotations

import csv
import logging
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from alidade_local.objects import Object
from alidade_local.quantities import parse_quantity

log = logging.getLogger(__name__)

GPU_RESOURCE = "nvidia.com/gpu"
GPU_LABELS = tuple(f"{GPU_RESOURCE}.{name}" for name in ("present", "count", "product", "memory"))
QUERY = ("--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits")
# Where no program keeps the driver loaded, the first question takes some seconds for each GPU.
QUERY_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Gpu:
    """uuid: what CUDA_VISIBLE_DEVICES may say; product: as in NVIDIA A100-SXM4-80GB.

    memory_mib: zero for one that shares the machine's memory, of which nvidia-smi says none.
    """

    uuid: str
    product: str
    memory_mib: int


def find_gpus() -> tuple[Gpu, ...]:
    """The machine's GPUs; none where nvidia-smi is not on PATH or fails, which is then said in the log."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        answer = subprocess.run(
            [program, *QUERY],
            capture_output=True,
            text=True,
            timeout=QUERY_TIMEOUT_S,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        rows = [[cell.strip() for cell in row] for row in csv.reader(answer.stdout.splitlines()) if row]
        return tuple(Gpu(uuid, product, int(memory) if memory.isdigit() else 0) for uuid, product, memory in rows)
    except subprocess.CalledProcessError as error:
        problem = (error.stdout + error.stderr).strip()
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        problem = str(error)
    log.warning("no GPUs are offered: %s: %s", program, problem)
    return ()


def gpu_labels(gpus: Sequence[Gpu]) -> dict[str, str]:
    """The node labels by which NVIDIA's feature discovery tells of GPUs of one make."""
    if not gpus:
        return {}
    values = ("true", str(len(gpus)), gpus[0].product.replace(" ", "-"), str(gpus[0].memory_mib))
    return dict(zip(GPU_LABELS, values, strict=True))


def gpu_shares(pod: Object) -> dict[str, range]:
    """Which of the pod's GPUs each container has, by their places.

    Init containers that end are given back what they had before the others start; sidecars keep theirs.
    """
    shares: dict[str, range] = {}
    kept = 0
    for container in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]:
        share = range(kept, kept + _wanted(container))
        shares[container["name"]] = share
        ends_first = (
            container in (pod["spec"].get("initContainers") or []) and container.get("restartPolicy") != "Always"
        )
        kept = kept if ends_first else share.stop
    return shares


def _wanted(container: Object) -> int:
    limits = (container.get("resources") or {}).get("limits") or {}
    return int(parse_quantity(limits.get(GPU_RESOURCE, "0")))


class GpuPool:
    """Gives the node's GPUs to pods."""

    def __init__(self, gpus: Sequence[Gpu]) -> None:
        self._gpus = [gpu.uuid for gpu in gpus]
        self._taken: dict[str, list[str]] = {}

    def take(self, pod: Object, owner: str) -> str:
        """Give the pod its GPUs; returns why that is not possible, as the kubelet words it, or nothing."""
        wanted = max((share.stop for share in gpu_shares(pod).values()), default=0)
        taken = {uuid for uuids in self._taken.values() for uuid in uuids}
        free = [uuid for uuid in self._gpus if uuid not in taken]
        if wanted > len(free):
            return (
                f"Allocate failed due to requested number of devices unavailable for {GPU_RESOURCE}. "
                f"Requested: {wanted}, Available: {len(free)}, which is unexpected"
            )
        self._taken[owner] = free[:wanted]
        return ""

    def release(self, owner: str) -> None:
        self._taken.pop(owner, None)

    def environment(self, pod: Object, container: Object, owner: str) -> dict[str, str]:
        """The variables by which a container sees its GPUs and no others; none on a machine without any."""
        if not self._gpus:
            return {}
        given = self._taken.get(owner, [])
        uuids = ",".join(given[place] for place in gpu_shares(pod)[container["name"]])
        return {"CUDA_VISIBLE_DEVICES": uuids, "NVIDIA_VISIBLE_DEVICES": uuids or "void"}
