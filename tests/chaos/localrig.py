"""A local cluster of the suite's own: API server, controllers and kubelet, in processes that can be killed alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from alidade_local.kubelet.processes import processes_by_marker
from alidade_operator.api import Connection
from tests.chaos import volume
from tests.chaos.rig import PLAYED, PROGRAMS, PYTHON_PATH, REAL, Need, Part, Rig
from tests.operator.conftest import ROOT, Process, api_server_process
from tests.operator.played import connection
from tests.ports import free_port


class LocalRig(Rig):
    """Everything is in hand: processes of pods are killed, volumes are folders."""

    offers = frozenset({Need.CONTROL_PLANE, Need.NODE} | ({Need.ROOT} if os.geteuid() == 0 else set()))

    def __init__(self, folder: Path) -> None:
        """folder: not below /tmp, which pods have one of their own for: they would not find the programs."""
        programs = f"{_programs(folder / 'programs')}{os.pathsep}{os.environ['PATH']}"
        pools = [{"name": PLAYED, "env": [{"name": "PATH", "value": programs}]}, {"name": REAL}]
        super().__init__(folder, nodePools=pools)
        self.kubeconfig = folder / "kubeconfig"
        self.api_server = api_server_process(folder)
        self.api_server.command += ["--port", str(free_port())]
        command = [sys.executable, "-m", "tests.chaos.controlplane", str(self.kubeconfig), str(folder)]
        told = {"PYTHONPATH": PYTHON_PATH, "OMP_NUM_THREADS": "1"}
        self.control_plane = Process(command, folder / "controlplane.log", told)

    @asynccontextmanager
    async def reached(self) -> AsyncIterator[Connection]:
        """As the base says."""
        parts = ((self.api_server, "serving https://"), (self.control_plane, "the control plane is up"))
        async with AsyncExitStack() as stack:
            for process, words in parts:
                stack.push_async_callback(asyncio.to_thread, process.stop)
                process.start()
                await asyncio.to_thread(process.wait_for, words)
            yield connection(self.kubeconfig)

    async def lose_node(self, *, pause_s: float) -> None:
        """The machine of kubelet and pods goes, and comes back."""
        self.control_plane.kill()
        for pid in self._processes():
            _kill(pid)
        try:
            await asyncio.sleep(pause_s)
        finally:
            self.control_plane.start()

    async def running(self, namespace: str, part: Part) -> list[Any]:
        """Ids of processes; there is one run at a time."""
        del namespace
        return self._processes(part)

    async def end(self, namespace: str, one: Any) -> None:
        """SIGKILL."""
        del namespace
        _kill(one)

    def left(self) -> list[str]:
        """As the base says: processes."""
        return [f"process {pid}" for pid in self._processes()]

    def _processes(self, part: Part | None = None) -> list[int]:
        """Ids of processes of pods: all, or those of a part."""
        own = f"{self.folder.resolve()}:/"
        ids = [pid for marker, pids in processes_by_marker().items() if marker.startswith(own) for pid in pids]
        return sorted(pid for pid in ids if part is None or _belongs(pid, part))

    def volume(self, namespace: str) -> Path:
        """The folder of a namespace's workspace claim."""
        return self.folder / "volumes" / namespace / volume.WORKSPACE

    async def at_volume(self, namespace: str, action: str, *arguments: Any) -> Any:
        """As the base says."""
        return await asyncio.to_thread(volume.ACTIONS[action], self.volume(namespace), *arguments)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _belongs(pid: int, part: Part) -> bool:
    try:
        process = psutil.Process(pid)
        command, told = " ".join(process.cmdline()), process.environ()
    except psutil.Error:
        return False
    return part.words in command and part.rank in ("", told.get("RANK"))


def _programs(folder: Path) -> Path:
    """A folder in which the stand-in has the names of the programs that it stands for."""
    folder.mkdir()
    for name in PROGRAMS:
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT / "tests/chaos/standin.py"} {name} "$@"\n')
        program.chmod(0o755)
    return folder
