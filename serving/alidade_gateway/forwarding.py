"""A request sent on until somebody answers it: tried again, on the other side, and held while there is nobody."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic
from types import TracebackType
from typing import Any

from aiohttp import ClientConnectorError, ClientError, ClientResponse, ClientSession, ConnectionTimeoutError
from multidict import CIMultiDict
from yarl import URL

from alidade_gateway.backends import Backend
from alidade_gateway.metrics import Metrics
from alidade_gateway.settings import Settings
from alidade_gateway.waiting import WaitingRoom
from alidade_serving.front.refusals import Refusal

_PROBE_PATH = "/health"
_PROBE_TIMEOUT_S = 2.0
# Engines' own: text-generation-inference answers 424 where generating failed.
_ERRORS = frozenset({HTTPStatus.FAILED_DEPENDENCY}) | {status for status in HTTPStatus if status >= 500}


@dataclass
class Order:
    """A request as it is sent to a backend. target: path and query, encoded.

    counted: whether it counts when sides are compared; what is not a POST generates nothing.
    tries, held_s: filled in on the way.
    """

    method: str
    target: str
    headers: CIMultiDict[str]
    body: bytes
    counted: bool = True
    tries: int = 0
    held_s: float = 0.0


class Answer:
    """A backend's answer that has begun: the head, the first bytes of the body, and the rest as it comes."""

    def __init__(self, backend: Backend, response: ClientResponse, first: bytes, order: Order, sent: float) -> None:
        self.backend = backend
        self.response = response
        self.first = first
        self._counted = order.counted
        self._sent = sent
        self._first_byte_s = monotonic() - sent

    def ended(self) -> None:
        """To be called when all of it was received: counts it, with its times where it is no refusal."""
        if not self._counted:
            return
        if self.response.status in _ERRORS:
            self.backend.counts.errors += 1
        elif self.response.status < 400:
            self.backend.counts.answered(first_byte_s=self._first_byte_s, whole_s=monotonic() - self._sent)

    def broke(self) -> None:
        """To be called when the rest did not come."""
        if self._counted:
            self.backend.counts.errors += 1

    def __enter__(self) -> "Answer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the connection: a backend stops generating what nobody waits for."""
        self.response.close()


class _NoAnswer(Exception):  # noqa: N818  # it is what happened, and mostly mended
    """A try that gave nothing. reason: unreachable, unready or broken."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Absent(_NoAnswer):
    """Nobody took the request, so that it can be sent again and again."""


class _Broken(_NoAnswer):
    """Somebody may have."""


class Forwarder:
    """Sends orders to backends."""

    def __init__(
        self,
        session: ClientSession,
        settings: Settings,
        metrics: Metrics,
        *,
        on_waiting_change: Callable[[int], None],
    ) -> None:
        self._session = session
        self._settings = settings
        self._metrics = metrics
        self._room = WaitingRoom(
            self._answers,
            limit=settings.max_waiting,
            hold_s=settings.hold_s,
            on_change=on_waiting_change,
        )

    async def open(self, order: Order, sides: Sequence[Backend]) -> Answer:
        """An answer of the first side that gives one; while none does, the last one's is waited for.

        Raises Refusal: 502 broken, 503 held too long, 504 silent too long, 429 too many are held.
        """
        *others, last = sides
        for side in others:
            with suppress(_NoAnswer):
                return await self._counted(side, order, self._try_twice)
        return await self._counted(last, order, self._insist)

    async def _counted(
        self, side: Backend, order: Order, way: Callable[[Backend, Order], Coroutine[Any, Any, Answer]]
    ) -> Answer:
        if order.counted:
            side.counts.requests += 1
        try:
            return await way(side, order)
        except (_NoAnswer, Refusal):
            if order.counted:
                side.counts.errors += 1
            raise

    async def _try_twice(self, side: Backend, order: Order) -> Answer:
        """Another connection may lead to another replica; what broke a connection is not sent to the next at once."""
        with suppress(_Absent):
            return await self._try(side, order)
        return await self._try(side, order)

    async def _insist(self, side: Backend, order: Order) -> Answer:
        """Holds the request where nobody is there.

        A connection that broke before the answer may mean that its replica died, that a proxy had none to lead to, or
        that this request kills replicas: it is sent once more, to a side that is well, and no third time.
        """
        try:
            return await self._try_twice(side, order)
        except _NoAnswer as trouble:
            has_broken = isinstance(trouble, _Broken)
        if has_broken and await self._answers(side):
            with suppress(_Absent):
                return await self._last_try(side, order)
        return await self._held(side, order, has_broken=has_broken)

    async def _held(self, side: Backend, order: Order, *, has_broken: bool) -> Answer:
        begun = monotonic()
        with self._room.place() as until:
            while True:
                await self._room.until_answers(side, until)
                order.held_s = monotonic() - begun
                try:
                    answer = await (self._last_try if has_broken else self._try)(side, order)
                except _NoAnswer as trouble:
                    has_broken = has_broken or isinstance(trouble, _Broken)
                else:
                    self._metrics.held.observe(order.held_s)
                    return answer

    async def _last_try(self, side: Backend, order: Order) -> Answer:
        try:
            return await self._try(side, order)
        except _Broken:
            raise Refusal(
                HTTPStatus.BAD_GATEWAY,
                "broken",
                f"Replicas of {side.name} ended before they answered; their log may say why.",
            ) from None

    async def _try(self, side: Backend, order: Order) -> Answer:
        order.tries += 1
        try:
            return await self._sent(side, order)
        except _NoAnswer as trouble:
            self._metrics.tried_in_vain(side.name, trouble.reason)
            raise

    async def _sent(self, side: Backend, order: Order) -> Answer:
        """One try. An answer counts from the first byte of its body: before that nothing was sent to the client."""
        sent = monotonic()
        try:
            async with asyncio.timeout(self._settings.answer_timeout_s):
                response = await self._session.request(
                    order.method,
                    URL(side.url + order.target, encoded=True),
                    headers=order.headers,
                    data=order.body or None,
                    allow_redirects=False,
                )
                try:
                    if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
                        raise _Absent("unready")
                    first = await response.content.readany()
                except BaseException:
                    response.close()
                    raise
        except (ClientConnectorError, ConnectionTimeoutError):
            raise _Absent("unreachable") from None
        except TimeoutError:
            seconds = self._settings.answer_timeout_s
            message = f"A replica of {side.name} said nothing for {seconds:g} seconds."
            raise Refusal(HTTPStatus.GATEWAY_TIMEOUT, "timeout", message) from None
        except (ClientError, OSError):
            raise _Broken("broken") from None
        return Answer(side, response, first, order, sent)

    async def _answers(self, side: Backend) -> bool:
        """Whether a replica is healthy; every engine tells at the same path."""
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S), self._session.get(side.url + _PROBE_PATH) as response:
                return response.status < 500
        except (ClientError, OSError, TimeoutError):
            return False
