"""What a gateway knows: who is being answered, what was seen so far, and whether it is about to end."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from aiohttp import web

from alidade_crds.contract import GatewayBackends, GatewayDocument
from alidade_gateway.backends import Backends
from alidade_gateway.metrics import Metrics
from alidade_gateway.settings import Settings
from alidade_serving.front.refusals import unavailable


class Gateway:
    """One gateway's state; it can be asked to end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics(settings.name)
        self.backends = Backends(settings)
        self.draining = False
        self._refusing = False
        self._started_at = datetime.now(UTC)
        self._last_request_at: datetime | None = None
        self._inside = 0
        self._waiting = 0
        self._votes = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @contextmanager
    def visit(self) -> Iterator[None]:
        """To be held while a request is being answered. Raises Refusal(503) when the gateway is about to end."""
        if self._refusing:
            raise unavailable("The gateway is about to end; another replica will answer.")
        self._last_request_at = datetime.now(UTC)
        self._inside += 1
        self._empty.clear()
        self._show()
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()
            self._show()

    def show_waiting(self, waiting: int) -> None:
        """Takes note of how many of the requests inside are held."""
        self._waiting = waiting
        self._show()

    def voted(self) -> None:
        """Counts a vote of the arena."""
        self._votes += 1
        self.metrics.votes.inc()

    def unready(self) -> None:
        """Asks load balancers to go elsewhere, while requests are still taken."""
        self.draining = True

    def refuse(self) -> None:
        """Takes no more requests; those that were taken go on."""
        self._refusing = True

    async def idle(self) -> None:
        """Returns when no request is being answered and none is held."""
        await self._empty.wait()

    def document(self) -> GatewayDocument:
        """What the operator reads."""
        canary = self.backends.canary
        return GatewayDocument(
            started_at=self._started_at,
            waiting=self._waiting,
            running=self._inside - self._waiting,
            last_request_at=self._last_request_at,
            backends=GatewayBackends(
                stable=self.backends.stable.counts.document(),
                canary=canary.counts.document() if canary is not None else None,
            ),
            votes=self._votes,
        )

    def _show(self) -> None:
        self.metrics.waiting.set(self._waiting)
        self.metrics.running.set(self._inside - self._waiting)


GATEWAY: web.AppKey[Gateway] = web.AppKey("gateway", Gateway)
