"""Local clusters that live as long as the test session: `cluster` without an operator, `cluster_with_operator`."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from alidade_local import cluster as local_cluster

T = TypeVar("T")

# Crashing containers are restarted after 0.2, 0.4, ... seconds instead of 10, 20, ...
FIRST_BACKOFF_S = 0.2


@dataclass(frozen=True)
class RunningCluster:
    """A cluster that is up, and how to speak to it."""

    data_dir: Path
    kubeconfig: Path

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl and return what it printed; raises AssertionError with its words when it fails and `check`."""
        done = subprocess.run(
            [_kubectl(), *args],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=240,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
        )
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(args)}: {done.stderr or done.stdout}")
        return done.stdout if done.returncode == 0 else done.stdout + done.stderr


def _kubectl() -> str:
    bundled = Path(__file__).parents[1] / ".tools" / "bin" / "kubectl"
    found = str(bundled) if bundled.exists() else shutil.which("kubectl")
    assert found is not None, "these tests need kubectl: make .tools/bin/kubectl"
    return found


def wait_until(
    read: Callable[[], T | None], what: str | Callable[[], str], *, timeout_s: float = 120.0, pause_s: float = 0.05
) -> T:
    """The first result of `read` but None and False; fails after the timeout, saying what did not happen.

    what: the sentence, or what makes it from the state at the end.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        result = read()
        if result is not None and result is not False:
            return result
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(pause_s)


# What nvidia-smi says of the two GPUs that the cluster without an operator has.
GPUS = ("GPU-aaaa", "GPU-bbbb")
NVIDIA_SMI = "#!/bin/sh\n" + "".join(f'echo "{uuid}, NVIDIA A100-SXM4-80GB, 81920"\n' for uuid in GPUS)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """A cluster without an operator, on a machine that seems to have two GPUs."""
    programs = tmp_path_factory.mktemp("programs")
    (programs / "nvidia-smi").write_text(NVIDIA_SMI)
    (programs / "nvidia-smi").chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
        yield from _running(tmp_path_factory.mktemp("cluster"), operator=False)


@pytest.fixture(scope="session")
def cluster_with_operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """A cluster with its operator."""
    yield from _running(tmp_path_factory.mktemp("cluster-with-operator"), operator=True)


def _running(data_dir: Path, *, operator: bool) -> Iterator[RunningCluster]:
    result = local_cluster.up(data_dir=data_dir, operator=operator, first_backoff_s=FIRST_BACKOFF_S)
    try:
        yield RunningCluster(data_dir, result.paths.kubeconfig)
    finally:
        local_cluster.down(data_dir=data_dir)
