"""What a run needs around it, as real processes: API server, controllers with kubelet, and an operator behind a proxy.

Each can be killed alone and started again. Pods are processes of the real kubelet; those of the node pool `played` run
the programs of standin.py, those of the pool `real` the project's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from alidade_local.kubelet.processes import processes_by_marker
from alidade_operator.api import Api
from tests.chaos.proxy import Disturbance, Proxy
from tests.operator.conftest import ROOT, Process, api_server_process, operator_process
from tests.operator.played import connection
from tests.ports import free_port

PROGRAMS = ("alidade-trainer", "alidade-eval", "alidade-serve")
PACKAGES = ("crds", "operator", "engine", "trainer", "eval", "serving", "local")
PLAYED, REAL = "played", "real"


class Rig:
    """The processes, and the ways to speak with them."""

    def __init__(self, folder: Path) -> None:
        """folder: not below /tmp, which pods have one of their own for: they would not find the programs."""
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"
        self.proxy = Proxy()
        self.operator_ended = 0
        """How many times the operator has ended by itself."""
        self._starting = asyncio.Lock()
        path = os.pathsep.join(str(ROOT / package) for package in (*PACKAGES, "."))
        self.api_server = api_server_process(folder)
        self.api_server.command += ["--port", str(free_port())]
        command = [sys.executable, "-m", "tests.chaos.controlplane", str(self.kubeconfig), str(folder)]
        told = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        self.control_plane = Process(command, folder / "controlplane.log", told)
        programs = f"{_programs(folder / 'programs')}{os.pathsep}{os.environ['PATH']}"
        pools = [{"name": PLAYED, "env": [{"name": "PATH", "value": programs}]}, {"name": REAL}]
        self.operator = operator_process(folder, folder / "kubeconfig-operator", nodePools=pools)
        self.operator.command[-1] = "tests.chaos.skewed"
        self.operator.environment |= {"PYTHONPATH": path, "CHAOS_CLOCK": str(self._clock)}

    async def start(self) -> None:
        """Starts everything."""
        self.set_clock(0)
        self.api_server.start()
        await asyncio.to_thread(self.api_server.wait_for, "serving https://")
        self.control_plane.start()
        await asyncio.to_thread(self.control_plane.wait_for, "the control plane is up")
        upstream = connection(self.kubeconfig)
        self.api = Api(lambda: upstream, connections=16)
        await self.proxy.start(upstream, self.folder / "kubeconfig-operator")
        self.operator.start()
        await asyncio.to_thread(self.operator.wait_for, "listed every kind")
        self._supervising = asyncio.create_task(self._supervise())

    async def stop(self) -> None:
        """Ends everything."""
        self._supervising.cancel()
        await asyncio.gather(self._supervising, return_exceptions=True)
        await asyncio.to_thread(self.operator.stop)
        await self.proxy.stop()
        await self.api.close()
        for process in (self.control_plane, self.api_server):
            await asyncio.to_thread(process.stop)

    @asynccontextmanager
    async def disturbed(self, fault: Disturbance) -> AsyncIterator[None]:
        """While calls of the operator go wrong; its watches begin and end with it."""
        self.proxy.fault = fault
        self.proxy.end_watches()
        try:
            yield
        finally:
            self.proxy.fault = Disturbance(fault.chance)
            self.proxy.end_watches()

    # Processes

    async def kill(self, process: Process, *, pause_s: float) -> None:
        """SIGKILL to one of the three, which is started again after a pause."""
        async with self._starting:
            process.kill()
            try:
                await asyncio.sleep(pause_s)
            finally:
                process.start()

    async def _supervise(self) -> None:
        """Starts the operator again where it ends by itself, as its Deployment does."""
        while True:
            await asyncio.sleep(0.2)
            async with self._starting:
                if self.operator.process is not None and self.operator.process.poll() is not None:
                    self.operator_ended += 1
                    self.operator.start()

    async def lose_node(self, *, pause_s: float) -> None:
        """The machine of kubelet and pods goes, and comes back."""
        self.control_plane.kill()
        for pid in self.pods():
            self.kill_pod(pid)
        try:
            await asyncio.sleep(pause_s)
        finally:
            self.control_plane.start()

    def pods(self, *words: str, **environment: str) -> list[int]:
        """Ids of processes of pods; words: in their command line; environment: what they have in theirs."""
        own = f"{self.folder.resolve()}:/"
        ids = [pid for marker, pids in processes_by_marker().items() if marker.startswith(own) for pid in pids]
        found: list[int] = []
        for pid in ids:
            try:
                process = psutil.Process(pid)
                command, told = " ".join(process.cmdline()), process.environ()
            except psutil.Error:
                continue
            if all(word in command for word in words) and environment.items() <= told.items():
                found.append(pid)
        return sorted(found)

    def kill_pod(self, pid: int) -> None:
        """SIGKILL to a process of a pod."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def volume(self, namespace: str) -> Path:
        """The folder of a namespace's workspace claim."""
        return self.folder / "volumes" / namespace / "alidade-workspace"

    # The operator's clock

    @property
    def _clock(self) -> Path:
        return self.folder / "clock"

    def set_clock(self, ahead_s: float) -> None:
        """The operator's clock jumps to be this far ahead of the true time."""
        self._clock.write_text(str(ahead_s), encoding="utf-8")


def _programs(folder: Path) -> Path:
    """A folder in which the stand-in has the names of the programs that it stands for."""
    folder.mkdir()
    for name in PROGRAMS:
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT / "tests/chaos/standin.py"} {name} "$@"\n')
        program.chmod(0o755)
    return folder
