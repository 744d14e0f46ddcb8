"""Processes of containers: started in a session of their own, watched through a pidfd, ended with all their kin.

A container has no cgroup here. What belongs to it is known by its session and by a variable in its environment that
descendants inherit; a program that leaves the session *and* clears its environment escapes both.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

MARKER = "ALIDADE_LOCAL_CONTAINER"
KILL_PATIENCE_S = 5.0


@dataclass(frozen=True)
class ProcessIdentity:
    """A process that a recycled process id cannot be mistaken for.

    start_ticks: start time in clock ticks since boot; boot_id: the kernel's random name of that boot.
    """

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The identity of a live process, None when there is none."""
        ticks = start_ticks(pid)
        return None if ticks is None else cls(pid, ticks, boot_id())

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read an identity from a file; None when it is absent or was not written whole."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    def is_alive(self) -> bool:
        return self.boot_id == boot_id() and start_ticks(self.pid) == self.start_ticks


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat, None for a process that is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command name, in parentheses, may itself hold blanks and parentheses.
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def processes_by_marker() -> dict[str, list[int]]:
    """Ids of the live processes by the value of their marker variable."""
    name = f"{MARKER}=".encode()
    found: dict[str, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            environment = Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:
            continue  # gone meanwhile, or another user's
        if name in environment:
            marker = next((item[len(name) :] for item in environment.split(b"\0") if item.startswith(name)), b"")
            found.setdefault(os.fsdecode(marker), []).append(int(entry))
    return found


def marked_processes(prefix: str) -> list[int]:
    """Ids of the live processes whose marker variable begins with `prefix`."""
    return [pid for marker, pids in processes_by_marker().items() if marker.startswith(prefix) for pid in pids]


def kill_marked(prefix: str) -> int:
    """SIGKILL every process whose marker begins with `prefix`, and what they fork meanwhile; returns how many.

    Returns when they are gone, or after some seconds: one that hangs in the kernel cannot be waited for.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + KILL_PATIENCE_S
    while (alive := marked_processes(prefix)) and time.monotonic() < deadline:
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed.update(alive)
        time.sleep(0.002)
    return len(killed)


def kill_group(pid: int) -> None:
    """SIGKILL the process group that `pid` leads or led."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


class ContainerProcess:
    """A running container: its main process and everything that came from it."""

    def __init__(self, process: subprocess.Popen[bytes], marker: str) -> None:
        self._process = process
        self._marker = marker
        self._exited: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reaping = asyncio.Lock()
        self._watch()

    @classmethod
    def start(
        cls, argv: Sequence[str], *, environment: Mapping[str, str], folder: Path, log: Path, marker: str
    ) -> Self:
        """Start `argv` with both output streams appended to `log`; raises OSError when it cannot be executed."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                list(argv),
                env={**environment, MARKER: marker},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process, marker)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        """The exit status once the main process has ended: its code, or 128 plus the signal that ended it.

        What else belonged to the container is killed, as when the first process of a PID namespace ends.
        """
        await asyncio.shield(self._exited)
        async with self._reaping:
            if self._process.returncode is None:
                # Before the main process is reaped, so that its id cannot be another's yet; freeing the memory of what
                # is killed may take its time.
                await asyncio.to_thread(self.kill)
            return_code = self._process.wait()
        return 128 - return_code if return_code < 0 else return_code

    def terminate(self) -> None:
        """SIGTERM to the main process; as in a container, the rest hears of it only through the main process."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to everything of the container, wherever it has put itself."""
        kill_group(self._process.pid)
        kill_marked(self._marker)

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        descriptor = os.pidfd_open(self._process.pid)

        def exited() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            if not self._exited.done():
                self._exited.set_result(None)

        loop.add_reader(descriptor, exited)
