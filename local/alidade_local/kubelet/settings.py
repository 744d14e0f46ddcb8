"""How the kubelet runs pods, and where."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from alidade_local.kubelet.gpus import Gpu


@dataclass(frozen=True)
class KubeletSettings:
    """How the kubelet runs pods.

    data_dir: the cluster's folder; pods live in `pods/<uid>`, claims in `volumes/<namespace>/<claim>`.
    first_backoff_s, last_backoff_s: pauses before a crashing container is run again, doubling between the two.
    backoff_reset_s: a container that ran this long crashes as if for the first time.
    max_shutdown_s: most seconds that a pod's grace period may last when the cluster stops.
    gpus: what the node offers as nvidia.com/gpu.
    """

    data_dir: Path
    first_backoff_s: float = 10.0
    last_backoff_s: float = 300.0
    backoff_reset_s: float = 600.0
    max_shutdown_s: float = 30.0
    gpus: tuple[Gpu, ...] = ()
    executables: Path = field(default_factory=lambda: Path(sys.executable).parent)

    @property
    def pods_dir(self) -> Path:
        return self.data_dir / "pods"

    @property
    def volumes_dir(self) -> Path:
        return self.data_dir / "volumes"

    def marker(self, *parts: str) -> str:
        """What marks the processes of this cluster (no parts), of one pod, of one run of a container."""
        return "/".join([f"{self.data_dir.resolve()}:", *parts, ""])
