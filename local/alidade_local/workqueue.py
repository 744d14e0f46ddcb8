"""A queue of keys to look at again: de-duplicated, one worker per key, with delays and back-off."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_RETRY_S = 0.05
LAST_RETRY_S = 60.0


class WorkQueue(Generic[K]):
    """Keys waiting for a worker. A key added while a worker has it comes back once when the worker is done."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}

    def add(self, key: K) -> None:
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: K, delay_s: float) -> None:
        """Add the key after a delay; of several delays for one key the shortest counts."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(delay_s, 0.0)
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(when, self._fire, key)

    def retry(self, key: K) -> float:
        """Add the key after its back-off (doubling from 50 ms to a minute); returns the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay_s = min(FIRST_RETRY_S * 2.0 ** min(failures, 20), LAST_RETRY_S)
        self.add_after(key, delay_s)
        return delay_s

    def forget(self, key: K) -> None:
        """The key's work succeeded: its back-off starts anew."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        key = await self._ready.get()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        """The worker that got the key is through with it."""
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> None:
        """Cancel what is delayed."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _fire(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)
