"""The operator beside the local cluster: started, watched, started again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from alidade_local.backoff import CrashBackoff
from alidade_local.kubelet.gpus import Gpu
from alidade_local.kubelet.processes import ContainerProcess, ProcessIdentity
from alidade_local.paths import ClusterPaths

log = logging.getLogger(__name__)

MODULE = "alidade_operator.main"
STOP_GRACE_S = 10.0
# An operator that fails is started again at once, then after 1 s, doubling to half a minute.
FIRST_BACKOFF_S, LAST_BACKOFF_S, BACKOFF_RESET_S = 1.0, 30.0, 60.0
# One that was ended by a signal did nothing wrong: it is started again after no more than this.
KILLED_PAUSE_S = 0.2
FIRST_SIGNAL_CODE = 128

CPU_POOL, GPU_POOL = "local", "local-gpu"
# What the operator is told about this machine besides its pools: its files and its own addresses may be named.
OPERATOR_CONFIG = {
    "allowFileUris": True,
    "allowPrivateHosts": True,
    "metricsHost": "127.0.0.1",
    "metricsPort": 0,
    "retryDelayS": 2,
    "progressIntervalS": 1,
    "statusIntervalS": 2,
}


def operator_config(gpus: Sequence[Gpu]) -> dict[str, Any]:
    """The operator's configuration: a pool that is the same on every machine, and one of the GPUs that there are."""
    pools: list[dict[str, Any]] = [{"name": CPU_POOL, "gpusPerNode": 0}]
    if gpus:
        memory_gib = round(min(gpu.memory_mib for gpu in gpus) / 1024, 1)
        known = {"gpuMemoryGib": memory_gib} if memory_gib else {}
        pools.append({"name": GPU_POOL, "gpusPerNode": len(gpus), **known})
    return {"nodePools": pools, **OPERATOR_CONFIG}


def is_operator_installed() -> bool:
    """Whether the operator can be started from this Python environment."""
    try:
        return importlib.util.find_spec(MODULE) is not None
    except ModuleNotFoundError:
        return False


class OperatorSupervisor:
    """Keeps one operator process running until stopped."""

    def __init__(self, paths: ClusterPaths, marker: str, gpus: Sequence[Gpu] = ()) -> None:
        self._paths = paths
        self._gpus = gpus
        self._marker = marker
        self._process: ContainerProcess | None = None

    async def run(self) -> None:
        """Run the operator, again and again, until cancelled; then end it."""
        self._paths.operator_config.write_text(yaml.safe_dump(operator_config(self._gpus), sort_keys=False))
        backoff = CrashBackoff(FIRST_BACKOFF_S, LAST_BACKOFF_S, BACKOFF_RESET_S)
        try:
            while True:
                begun = time.monotonic()
                exit_code = await self._run_once()
                killed = exit_code > FIRST_SIGNAL_CODE
                delay_s = KILLED_PAUSE_S if killed else backoff.next(time.monotonic() - begun)
                log.warning(
                    "the operator ended with code %d (its log: %s); again in %g s",
                    exit_code, self._paths.operator_log, delay_s,
                )  # fmt: skip
                await asyncio.sleep(delay_s)
        finally:
            await self._end()

    async def _run_once(self) -> int:
        process = ContainerProcess.start(
            [sys.executable, "-m", MODULE],
            environment=self._environment(os.environ),
            folder=self._paths.data_dir,
            log=self._paths.operator_log,
            marker=self._marker,
        )
        self._process = process
        identity = ProcessIdentity.of(process.pid)
        if identity is not None:
            identity.save(self._paths.operator_process)
        return await process.wait()

    def _environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        own = {"KUBECONFIG": str(self._paths.kubeconfig), "ALIDADE_CONFIG": str(self._paths.operator_config)}
        return dict(environ) | own | {"PYTHONUNBUFFERED": "1"}

    async def _end(self) -> None:
        self._paths.operator_process.unlink(missing_ok=True)
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(STOP_GRACE_S):
                await self._process.wait()
        except TimeoutError:
            await asyncio.to_thread(self._process.kill)
            await self._process.wait()
