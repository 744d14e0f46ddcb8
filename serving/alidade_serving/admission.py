"""Who may generate now, who waits, and who is sent away: a queue that cannot grow without end."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic

from alidade_serving.front.refusals import overloaded


class Admission:
    """Slots in the order of arrival; at most `limit` requests hold or await one."""

    def __init__(self, slots: int, limit: int) -> None:
        self._slots = slots
        self._limit = limit
        self._free = asyncio.Semaphore(slots)
        self._mean_s = 1.0
        self.running = 0
        self.waiting = 0
        self.empty = asyncio.Event()
        self.empty.set()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """A slot, waited for. Raises Refusal(429) at once when the queue is full."""
        if self.running + self.waiting >= self._limit:
            raise overloaded(
                f"{self._limit} requests are being served or waiting, which is the limit; try again later.",
                self.retry_after_s(),
            )
        self.waiting += 1
        self.empty.clear()
        try:
            await self._free.acquire()
        except BaseException:
            self.waiting -= 1
            self._tell_if_empty()
            raise
        self.waiting -= 1
        self.running += 1
        begun = monotonic()
        try:
            yield
        finally:
            self._mean_s += 0.1 * (monotonic() - begun - self._mean_s)  # of about the last ten
            self.running -= 1
            self._free.release()
            self._tell_if_empty()

    def _tell_if_empty(self) -> None:
        if not self.running + self.waiting:
            self.empty.set()

    def retry_after_s(self) -> int:
        """Seconds until a place in the queue is likely free: that of the next request to end; 1 to 60."""
        return min(60, max(1, math.ceil(self._mean_s / self._slots)))
