"""Containers are processes that end completely, and are never mistaken for others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alidade_local.kubelet.addresses import AddressPool
from alidade_local.kubelet.kubelet import end_leftover_processes
from alidade_local.kubelet.processes import ContainerProcess, ProcessIdentity, marked_processes
from alidade_local.kubelet.settings import KubeletSettings
from alidade_local.loopback import ClusterNetwork

FORK_AND_LEAVE = (
    "import subprocess, sys, time;"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True);"
    "print('ready', flush=True);"
)


def start(tmp_path: Path, code: str) -> ContainerProcess:
    return ContainerProcess.start(
        [sys.executable, "-c", code],
        environment=dict(os.environ),
        folder=tmp_path,
        log=tmp_path / "c" / "0.log",
        marker=f"{tmp_path}:/c/0/",
    )


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("pass", 0), ("raise SystemExit(7)", 7), ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 139)],
)
async def test_the_exit_code_is_the_programs_or_128_and_the_signal(tmp_path: Path, code: str, exit_code: int) -> None:
    assert await start(tmp_path, code).wait() == exit_code


async def test_both_output_streams_go_to_the_log_in_order(tmp_path: Path) -> None:
    await start(tmp_path, "import sys; print('a', flush=True); print('b', file=sys.stderr, flush=True)").wait()
    assert (tmp_path / "c" / "0.log").read_text() == "a\nb\n"


async def test_what_left_the_session_ends_with_the_main_process(tmp_path: Path) -> None:
    assert await start(tmp_path, FORK_AND_LEAVE).wait() == 0
    assert marked_processes(f"{tmp_path}:/") == []


async def test_killing_reaches_what_left_the_session(tmp_path: Path) -> None:
    process = start(tmp_path, FORK_AND_LEAVE + "time.sleep(600)")
    while "ready" not in (tmp_path / "c" / "0.log").read_text():
        assert ProcessIdentity.of(process.pid) is not None
    assert len(marked_processes(f"{tmp_path}:/")) == 2
    process.kill()
    assert await process.wait() == 137
    assert marked_processes(f"{tmp_path}:/") == []


def test_leftover_processes_are_ended_and_recycled_ids_spared(tmp_path: Path) -> None:
    settings = KubeletSettings(tmp_path)
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    with (
        subprocess.Popen(sleep, start_new_session=True) as leftover,
        subprocess.Popen(sleep, start_new_session=True) as stranger,
    ):
        left, other = ProcessIdentity.of(leftover.pid), ProcessIdentity.of(stranger.pid)
        assert left is not None
        assert other is not None
        for pod, identity in (
            ("p1", left),
            ("p2", ProcessIdentity(other.pid, other.start_ticks - 1, other.boot_id)),
            ("p3", ProcessIdentity(other.pid, other.start_ticks, "another boot")),
        ):
            (tmp_path / "pods" / pod / "main").mkdir(parents=True)
            identity.save(tmp_path / "pods" / pod / "main" / "process.json")
        assert end_leftover_processes(settings) == 1
        assert leftover.wait(timeout=60) == -9
        assert stranger.poll() is None
        stranger.kill()


def test_an_identity_survives_writing_and_a_torn_file_is_none(tmp_path: Path) -> None:
    identity = ProcessIdentity.of(os.getpid())
    assert identity is not None
    identity.save(tmp_path / "i")
    assert ProcessIdentity.load(tmp_path / "i") == identity
    (tmp_path / "i").write_text('{"pid": 1')
    assert ProcessIdentity.load(tmp_path / "i") is None


def test_live_pods_never_share_an_address() -> None:
    pool = AddressPool(ClusterNetwork.of(Path("cluster")))
    addresses = {pool.take(f"pod-{index}") for index in range(1000)}
    assert len(addresses) == 1000
    assert all(address.startswith("127.") for address in addresses)


def test_a_pod_keeps_its_address_and_takes_an_old_one_back_when_free() -> None:
    pool = AddressPool(ClusterNetwork.of(Path("cluster")))
    first = pool.take("a")
    assert pool.take("a") == first
    assert pool.take("b", preferred=first) != first
    pool.release("a")
    assert pool.take("c", preferred=first) == first
