"""Requests that are held while no replica answers: from none to the first, and between one and the next."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

from alidade_gateway.backends import Backend
from alidade_serving.front.refusals import Refusal, overloaded

# Often enough that nobody feels it, seldom enough that a hundred who wait are no load: one asks for them all.
_PROBE_INTERVAL_S = 0.2
# A replica that starts takes seconds at least.
RETRY_AFTER_S = 5


class WaitingRoom:
    """At most so many requests, each for so long; one probe a backend for all that wait for it.

    probe: whether a backend answers. on_change: called when the number of those who wait has changed.
    """

    def __init__(
        self,
        probe: Callable[[Backend], Awaitable[bool]],
        *,
        limit: int,
        hold_s: float,
        on_change: Callable[[int], None],
    ) -> None:
        self._probe = probe
        self._limit = limit
        self._hold_s = hold_s
        self._on_change = on_change
        self._probing: dict[str, asyncio.Task[None]] = {}
        self.waiting = 0

    @contextmanager
    def place(self) -> Iterator[float]:
        """A place, and until when it is held on the loop's clock. Raises Refusal(429) when there is none."""
        if self.waiting >= self._limit:
            raise overloaded(
                f"No replica answers, and {self._limit} requests wait for one, which is the limit; try again later.",
                RETRY_AFTER_S,
            )
        self._set(self.waiting + 1)
        try:
            yield asyncio.get_running_loop().time() + self._hold_s
        finally:
            self._set(self.waiting - 1)

    async def until_answers(self, backend: Backend, until: float) -> None:
        """Returns when the backend may be tried again, at the next probe that it answers. Raises Refusal(503)."""
        probing = self._probing.get(backend.name)
        if probing is None:
            probing = asyncio.create_task(self._probe_until_it_answers(backend))
            self._probing[backend.name] = probing
            probing.add_done_callback(lambda _: self._probing.pop(backend.name))
        try:
            async with asyncio.timeout_at(until):
                await asyncio.shield(probing)
        except TimeoutError:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "healthcheck",
                f"No replica answered within {self._hold_s:g} seconds; try again.",
                retry_after_s=RETRY_AFTER_S,
            ) from None

    async def _probe_until_it_answers(self, backend: Backend) -> None:
        while self.waiting:
            # First, so that a replica which is healthy and refuses all the same is not asked without pause.
            await asyncio.sleep(_PROBE_INTERVAL_S)
            if await self._probe(backend):
                return

    def _set(self, waiting: int) -> None:
        self.waiting = waiting
        self._on_change(waiting)
