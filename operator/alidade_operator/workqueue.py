"""A work queue of keys: each key once, never at two workers at a time, again later when asked or after a failure."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 60.0


class WorkQueue(Generic[K]):
    """Keys that wait for a worker.

    A key added while it waits is there once; added while a worker has it, it comes back when that worker is done.
    Delays keep the earliest time asked for. A failing key comes back after 0.1 s, doubling to 60 s, each with up to a
    quarter of random extra, so that many that failed together do not return together.
    """

    def __init__(
        self, *, jitter: Callable[[], float] = random.random, on_wait: Callable[[float], None] | None = None
    ) -> None:
        """jitter: a number in [0, 1); on_wait: told how many seconds a key has waited when a worker takes it."""
        self._jitter = jitter
        self._on_wait = on_wait
        self._ready: deque[K] = deque()
        self._since: dict[K, float] = {}
        self._active: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, tuple[float, asyncio.TimerHandle]] = {}
        self._failures: dict[K, int] = {}
        self._wakeup = asyncio.Event()

    def __len__(self) -> int:
        """Keys that wait for a worker now; delayed ones are not counted."""
        return len(self._ready)

    def add(self, key: K) -> None:
        """Puts a key in line."""
        if key in self._active:
            self._again.add(key)
        elif key not in self._since:
            self._since[key] = time.monotonic()
            self._ready.append(key)
            self._wakeup.set()

    def add_after(self, key: K, delay_s: float) -> None:
        """Puts a key in line after a time; an earlier time already asked for stays."""
        if delay_s <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_s
        known = self._timers.get(key)
        if known is not None:
            if known[0] <= due:
                return
            known[1].cancel()
        self._timers[key] = (due, loop.call_at(due, self._fire, key))

    def _fire(self, key: K) -> None:
        del self._timers[key]
        self.add(key)

    async def take(self) -> K:
        """The next key; the caller has it alone until `done` or `failed`."""
        while not self._ready:
            self._wakeup.clear()
            await self._wakeup.wait()
        key = self._ready.popleft()
        waited_since = self._since.pop(key)
        if self._on_wait is not None:
            self._on_wait(time.monotonic() - waited_since)
        self._active.add(key)
        return key

    def done(self, key: K) -> None:
        """Ends the work on a key that went well; its failures are forgotten."""
        self._failures.pop(key, None)
        self._release(key)

    def failed(self, key: K) -> float:
        """Ends the work on a key that went wrong and puts it in line again later; returns the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(failures, 16)) * (1 + self._jitter() / 4)
        self.add_after(key, delay_s)
        # A change that arrived meanwhile waits for the delay too, or a hot key would defeat its back-off.
        self._again.discard(key)
        self._release(key)
        return delay_s

    def _release(self, key: K) -> None:
        self._active.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> None:
        """Cancels all delays."""
        for _, handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
