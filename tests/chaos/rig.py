"""What a run needs around it: a cluster, and an operator as a process of its own, behind a proxy.

The cluster is one that the suite starts and has wholly in hand (localrig.py), or one that somebody has already
(givenrig.py). Pods of the node pool `played` run the programs of standin.py, those of the pool `real` the project's
own.
"""

from __future__ import annotations

import abc
import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from alidade_operator.api import Api, Connection
from tests.chaos.proxy import Disturbance, Proxy
from tests.operator.conftest import ROOT, Process, operator_process

PROGRAMS = ("alidade-trainer", "alidade-eval", "alidade-serve")
PACKAGES = ("crds", "operator", "engine", "trainer", "eval", "serving", "local")
PYTHON_PATH = os.pathsep.join(str(ROOT / package) for package in (*PACKAGES, "."))
PLAYED, REAL = "played", "real"


class Need(StrEnum):
    """What a fault needs to have in hand."""

    CONTROL_PLANE = "the API server's process"
    NODE = "the node"
    ROOT = "the node as root"


@dataclass(frozen=True)
class Part:
    """What works for a run.

    words, rank: in the command line and the environment of its processes. selector: labels of its pods.
    """

    words: str
    selector: str
    rank: str = ""


_COMPONENT = "app.kubernetes.io/component="
_REPLICA = ",training.kubeflow.org/replica-type="
TRAINER = Part("alidade-trainer", f"{_COMPONENT}trainer")
RANK_0 = Part("alidade-trainer", f"{_COMPONENT}trainer{_REPLICA}master", "0")
RANK_1 = Part("alidade-trainer", f"{_COMPONENT}trainer{_REPLICA}worker", "1")
REAL_TRAINER = Part("alidade_trainer", f"{_COMPONENT}trainer")
QUANTIZER = Part("alidade-trainer quantize", f"{_COMPONENT}quantization")
EVALUATOR = Part("alidade-eval", f"{_COMPONENT}evaluation")
SERVER = Part("alidade-serve", f"{_COMPONENT}server")


class Rig(abc.ABC):
    """A cluster with an operator of the suite's, and the ways to speak with them."""

    offers: frozenset[Need]

    def __init__(self, folder: Path, **config: Any) -> None:
        """folder: for logs and what else is written. config: of the operator."""
        self.folder = folder
        self.proxy = Proxy()
        self.operator_ended = 0
        """How many times the operator has ended by itself."""
        self.starting = asyncio.Lock()
        """Held while a process is ended and started again."""
        self.operator = operator_process(folder, folder / "kubeconfig-operator", **config)
        self.operator.command[-1] = "tests.chaos.skewed"
        self.operator.environment |= {"PYTHONPATH": PYTHON_PATH, "CHAOS_CLOCK": str(self._clock)}

    @asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        """While cluster and operator are at work."""
        self.set_clock(0)
        async with AsyncExitStack() as stack:
            upstream = await stack.enter_async_context(self.reached())
            self.api = Api(lambda: upstream, connections=16)
            stack.push_async_callback(self.api.close)
            await self.proxy.start(upstream, self.folder / "kubeconfig-operator")
            stack.push_async_callback(self.proxy.stop)
            stack.push_async_callback(asyncio.to_thread, self.operator.stop)
            self.operator.start()
            await asyncio.to_thread(self.operator.wait_for, "listed every kind")
            supervising = asyncio.create_task(self._supervise())
            stack.callback(supervising.cancel)
            stack.push_async_callback(self.leave)
            yield

    @abc.abstractmethod
    def reached(self) -> AbstractAsyncContextManager[Connection]:
        """While the cluster can be spoken to."""

    async def leave(self) -> None:
        """Takes away what a run that was cut short has left where others go on."""
        return

    def namespace(self, name: str) -> str:
        """Name of the namespace for a run of that name."""
        return name

    async def furnish(self, namespace: str) -> None:
        """Brings what pods of a new namespace need besides the user's objects."""
        del namespace

    @abc.abstractmethod
    async def running(self, namespace: str, part: Part) -> list[Any]:
        """What of a part is at work, each as `end` takes it."""

    @abc.abstractmethod
    async def end(self, namespace: str, one: Any) -> None:
        """Ends it without asking."""

    def left(self) -> list[str]:
        """What is at work for runs though no object stands for it."""
        return []

    @abc.abstractmethod
    async def at_volume(self, namespace: str, action: str, *arguments: Any) -> Any:
        """What a function of volume.py answers in the folder of a namespace's workspace claim."""

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

    async def kill(self, process: Process, *, pause_s: float) -> None:
        """SIGKILL to a process of the suite's, which is started again after a pause."""
        async with self.starting:
            process.kill()
            try:
                await asyncio.sleep(pause_s)
            finally:
                process.start()

    async def _supervise(self) -> None:
        """Starts the operator again where it ends by itself, as its Deployment does."""
        while True:
            await asyncio.sleep(0.2)
            async with self.starting:
                if self.operator.process is not None and self.operator.process.poll() is not None:
                    self.operator_ended += 1
                    self.operator.start()

    # The operator's clock

    @property
    def _clock(self) -> Path:
        return self.folder / "clock"

    def set_clock(self, ahead_s: float) -> None:
        """The operator's clock jumps to be this far ahead of the true time."""
        self._clock.write_text(str(ahead_s), encoding="utf-8")
