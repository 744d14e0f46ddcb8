"""A local API server and operator processes for the tests that go over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from alidade_operator.api import Api
from tests.operator.collector import Collector, collector
from tests.operator.played import Played, connection, install_all_kinds

ROOT = Path(__file__).resolve().parents[2]
# Everything that waits in real life waits little here.
CONFIG: dict[str, Any] = {
    "nodePools": [{"name": "local"}, {"name": "gpus", "gpusPerNode": 8, "gpuMemoryGib": 80, "pricePerGpuHour": 2.0}],
    "metricsHost": "127.0.0.1",
    "metricsPort": 0,
    "retryDelayS": 0.2,
    "progressIntervalS": 0.1,
    "statusIntervalS": 0.1,
    "resyncIntervalS": 2,
}


_numbers = itertools.count(1)
P = TypeVar("P", bound=Played)


@dataclass
class Process:
    """A process of ours with its log."""

    command: list[str]
    log: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        """Starts it."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | self.environment
            )

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM, and what it said when it does not obey."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"{self.command} does not stop:\n{self.text()[-2000:]}")

    def text(self) -> str:
        """What it has written."""
        return self.log.read_text() if self.log.exists() else ""

    def wait_for(self, words: str, *, timeout_s: float = 120) -> None:
        """Waits until its log says something."""
        deadline = time.monotonic() + timeout_s
        while words not in self.text():
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{self.command} never said {words!r}:\n{self.text()[-3000:]}")
            time.sleep(0.05)


def python_path() -> str:
    """Where a process of ours finds our packages."""
    return os.pathsep.join(str(ROOT / folder) for folder in ("crds", "operator", "local"))


def api_server_process(folder: Path) -> Process:
    """An API server whose kubeconfig will be folder/kubeconfig."""
    command = [sys.executable, "-m", "alidade_local.apiserver", "--data-dir", str(folder)]
    return Process(command, folder / "apiserver.log", {"PYTHONPATH": python_path()})


def operator_process(folder: Path, kubeconfig: Path, **more: Any) -> Process:
    """An operator for a kubeconfig, with its configuration and log in a folder; more: further fields of it."""
    config = folder / "operator.yaml"
    config.write_text(yaml.safe_dump(CONFIG | more))
    environment = {"PYTHONPATH": python_path(), "KUBECONFIG": str(kubeconfig), "ALIDADE_CONFIG": str(config)}
    return Process([sys.executable, "-m", "alidade_operator.main"], folder / "operator.log", environment)


@contextlib.contextmanager
def at_work(process: Process) -> Iterator[None]:
    """An operator from when it has seen all that there is until it is stopped."""
    process.start()
    try:
        process.wait_for("listed every kind")
        yield
    finally:
        process.stop()


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of an API server that knows our kinds and PyTorchJobs, and runs no controller."""
    folder = tmp_path_factory.mktemp("apiserver")
    server = api_server_process(folder)
    server.start()
    try:
        server.wait_for("serving https://")
        asyncio.run(install_all_kinds(folder / "kubeconfig"))
        yield folder / "kubeconfig"
    finally:
        server.stop()


@pytest.fixture(scope="module")
def traces() -> Iterator[Collector]:
    """A collector of traces."""
    with collector() as started:
        yield started


@pytest.fixture(scope="module")
def operator(api_server: Path, traces: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """An operator that serves the API server, and tells the collector."""
    folder = tmp_path_factory.mktemp("operator")
    process = operator_process(folder, api_server, tracing={"endpoint": traces.endpoint})
    process.environment["OTEL_BSP_SCHEDULE_DELAY"] = "100"
    with at_work(process):
        yield process


@pytest.fixture
async def played(api_server: Path, request: pytest.FixtureRequest) -> AsyncIterator[Played]:
    """A namespace of its own in which the test is training operator and kubelet."""
    async with played_namespace(Played, api_server, request) as part:
        yield part


@contextlib.asynccontextmanager
async def played_namespace(kind: type[P], api_server: Path, request: pytest.FixtureRequest) -> AsyncIterator[P]:
    """A namespace named after the test, in which it plays controllers."""
    api = Api(lambda: connection(api_server), connections=8)
    name = request.node.name.replace("_", "-").lower()
    namespace = "".join(char for char in name if char.isalnum() or char == "-")[:50] + f"-{next(_numbers)}"
    part = kind(api, namespace)
    try:
        await part.create_namespace()
        yield part
    finally:
        await part.close()
        await api.close()
