"""How much memory a container has, and what happens when it is too much."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from alidade_local.kubelet import memory
from alidade_local.kubelet.memory import MemoryWatch, memory_limit, memory_of
from alidade_local.kubelet.processes import MARKER

MIB = 1 << 20
# Each of three processes has the same 60 MiB, which only the first has written.
SHARED = """
import os, time
held = b"x" * (60 << 20)
forks = []
for _ in range(2):
    forks.append(os.fork())
    if not forks[-1]:
        time.sleep(600)
print(os.getpid(), *forks, flush=True)
time.sleep(600)
"""
PRIVATE = "import time; held = b'x' * (60 << 20); print(flush=True); time.sleep(600)"


@contextmanager
def running(code: str, **environment: str) -> Iterator[tuple[int, str]]:
    """Process id and first line of a program."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    assert process.stdout is not None
    try:
        yield process.pid, process.stdout.readline()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(("amount", "limit"), [("64Mi", 64 * MIB), ("1G", 10**9), (None, None)])
def test_the_limit_is_that_of_the_resources(amount: str | None, limit: int | None) -> None:
    container: dict[str, Any] = {"name": "c", "resources": {"limits": {"memory": amount} if amount else {}}}
    assert memory_limit(container) == limit


def test_what_processes_share_counts_once() -> None:
    with running(SHARED) as (_, line):
        pids = [int(pid) for pid in line.split()]
        assert memory_of(pids, enough=1000 * MIB) > 180 * MIB, "the sum of what is resident in each"
        assert 60 * MIB < memory_of(pids) < 100 * MIB


def test_mapped_files_do_not_count(tmp_path: Any) -> None:
    file = tmp_path / "model"
    file.write_bytes(b"x" * 60 * MIB)
    code = (
        f"import mmap, time; m = mmap.mmap(open({str(file)!r}, 'rb').fileno(), 0, prot=mmap.PROT_READ);"
        "sum(m[::4096]); print(flush=True); time.sleep(600)"
    )
    with running(code) as (pid, _):
        assert memory_of([pid]) < 30 * MIB


def test_processes_that_are_gone_have_none() -> None:
    assert memory_of([2**22 + 1]) == 0


async def test_only_what_exceeds_its_limit_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CHECK_INTERVAL_S", 0.01)
    watch, ended = MemoryWatch(), asyncio.Event()

    async def must_not_end() -> None:
        raise AssertionError("it is within its limit")

    async def end() -> None:
        ended.set()

    task = asyncio.create_task(watch.run())
    with running(PRIVATE, **{MARKER: "within"}), running(PRIVATE, **{MARKER: "above"}):
        limits = {"within": 200 * MIB, "none": None}
        with ExitStack() as stack:
            for marker, limit in limits.items():
                stack.enter_context(watch.watching(marker, limit, must_not_end))
            stack.enter_context(watch.watching("above", 30 * MIB, end))
            async with asyncio.timeout(60):
                await ended.wait()
        assert not task.done()
    task.cancel()
