"""Connections of clients, and how long one may hold one without saying a whole request."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

IDLE_FOR_S = 90.0  # the number of kube-apiserver
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
LONGEST_LINE = 64 * 1024  # selectors can be long; the original allows a megabyte


class _Connection(RequestHandler):
    """One client's connection; closed when its first request does not come."""

    patience_s = 0.0
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._patience = asyncio.get_running_loop().call_later(self.patience_s, self._give_up)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.heard()
        super().connection_lost(exc)

    def heard(self) -> None:
        """A request came, or nothing will."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class Connections(web.Server):
    """Makes the connections of one server. headers_within_s: how long the first request's headers may take."""

    def __init__(self, handler: Handler, *, headers_within_s: float) -> None:
        super().__init__(handler, handler_cancellation=True)
        self._headers_within_s = headers_within_s

    def __call__(self) -> RequestHandler:
        connection = _Connection(
            self,
            loop=asyncio.get_running_loop(),
            logger=_logger(),
            access_log=_logger(),
            keepalive_timeout=IDLE_FOR_S,
            # Of a refused body no more is read than what comes within the lingering time.
            lingering_time=0.2,
            # A body that unpacks to any size is no body: the original reads bodies as they are, too.
            auto_decompress=False,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
        )
        connection.patience_s = self._headers_within_s
        return connection


def heard(request: web.BaseRequest) -> None:
    """The connection's client has made a request."""
    if isinstance(request.protocol, _Connection):
        request.protocol.heard()


def _logger() -> logging.Logger:
    """Without accesses and what clients do wrong: that is answered 400, and its stack traces could fill the disk."""
    logger = logging.getLogger("alidade_local.apiserver.connections")
    if not logger.filters:
        logger.addFilter(_is_our_mistake)
        logger.setLevel(logging.WARNING)
    return logger


def _is_our_mistake(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
