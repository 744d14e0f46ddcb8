"""Memory limits of containers, kept by looking at them once a second.

The kernel keeps such limits for control groups, which most users may not make. What is counted is what a control group
could not give back: anonymous and shared memory, by the share that each process has in it (PSS), so that what forked
workers have in common counts once. Files that are read or mapped do not count.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alidade_local.kubelet.processes import processes_by_marker
from alidade_local.objects import Object
from alidade_local.quantities import parse_quantity

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 1.0
_RESIDENT = re.compile(r"^Rss(?:Anon|Shmem):\s+(\d+) kB", re.MULTILINE)
_SHARES = re.compile(r"^Pss_(?:Anon|Shmem):\s+(\d+) kB", re.MULTILINE)


def memory_limit(container: Object) -> int | None:
    """limits.memory in bytes."""
    amount = ((container.get("resources") or {}).get("limits") or {}).get("memory")
    return None if amount is None else int(parse_quantity(amount))


def memory_of(pids: Iterable[int], *, enough: int = 0) -> int:
    """Bytes of anonymous and shared memory that the processes have together.

    The sum of what is resident in each is an upper bound and costs little; what they share is told apart, for which
    the kernel walks through their pages, only when that sum is more than `enough`.
    """
    present = list(pids)
    resident = sum(_kib(f"/proc/{pid}/status", _RESIDENT) for pid in present)
    if resident * 1024 <= enough:
        return resident * 1024
    # Kernels before 5.9 do not tell the shares.
    return (sum(_kib(f"/proc/{pid}/smaps_rollup", _SHARES) for pid in present) or resident) * 1024


def _kib(path: str, pattern: re.Pattern[str]) -> int:
    try:
        return sum(int(amount) for amount in pattern.findall(Path(path).read_text()))
    except OSError:
        return 0  # the process is gone


class MemoryWatch:
    """Ends containers that have more memory than their limit."""

    def __init__(self) -> None:
        self._watched: dict[str, tuple[int, Callable[[], Awaitable[None]]]] = {}
        self._any = asyncio.Event()

    @contextmanager
    def watching(self, marker: str, limit: int | None, end: Callable[[], Awaitable[None]]) -> Iterator[None]:
        """Have `end` called when the processes of the marker have more than the limit, in bytes."""
        if limit is not None:
            self._watched[marker] = (limit, end)
            self._any.set()
        try:
            yield
        finally:
            self._watched.pop(marker, None)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            if not self._watched:
                self._any.clear()
            await self._any.wait()
            limits = {marker: limit for marker, (limit, _) in self._watched.items()}
            over = await asyncio.to_thread(_over, limits)
            ends = [self._watched[marker][1] for marker in over if marker in self._watched]
            await asyncio.gather(*(end() for end in ends))
            await asyncio.sleep(CHECK_INTERVAL_S)


def _over(limits: dict[str, int]) -> Collection[str]:
    """The markers whose processes have more memory than their limit."""
    found = []
    for marker, pids in processes_by_marker().items():
        limit = limits.get(marker)
        if limit is not None and (used := memory_of(pids, enough=limit)) > limit:
            log.warning("container %s has %d MiB of memory, its limit is %d MiB", marker, used >> 20, limit >> 20)
            found.append(marker)
    return found
