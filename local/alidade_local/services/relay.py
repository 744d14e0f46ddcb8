"""A TCP port that passes each connection on to one of several places, in turn."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Sequence

from alidade_local.services.endpoints import Place

log = logging.getLogger(__name__)

# On loopback an answer comes at once; a program that accepts nothing any more is given up after this.
CONNECT_TIMEOUT_S = 3.0
_BACKLOG = 1024
_LINGER_NOT = struct.pack("ii", 1, 0)


class Turn:
    """The places of a port in rotation: each connection begins with the one after that of the connection before."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = tuple(places)
        self._next = 0

    def set(self, places: Sequence[Place]) -> None:
        self._places = tuple(places)

    def order(self) -> tuple[Place, ...]:
        """All places, in the order in which this connection should try them."""
        if not self._places:
            return ()
        first = self._next % len(self._places)
        self._next = first + 1
        return self._places[first:] + self._places[:first]


class _End(asyncio.Protocol):
    """One end of a relayed connection: what it reads is written to its peer, no faster than the peer takes it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.peer: _End | None = None
        self.has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    @property
    def _to(self) -> asyncio.Transport | None:
        """The peer's transport while it can be written to."""
        transport = self.peer.transport if self.peer is not None else None
        return None if transport is None or transport.is_closing() else transport

    def data_received(self, data: bytes) -> None:
        if (to := self._to) is not None:
            to.write(data)

    def eof_received(self) -> bool:
        """The other side of this end has said all it has to say; what it is told goes on until that ends too."""
        self.has_ended = True
        if (to := self._to) is not None:
            to.write_eof()
        if self.transport is not None and self.peer is not None and self.peer.has_ended:
            self.transport.close()
            if to is not None:
                to.close()
        return True

    def pause_writing(self) -> None:
        if (to := self._to) is not None:
            to.pause_reading()

    def resume_writing(self) -> None:
        if (to := self._to) is not None:
            to.resume_reading()

    def connection_lost(self, _: Exception | None) -> None:
        if (to := self._to) is not None:
            reset(to)


def reset(transport: asyncio.Transport) -> None:
    """Close a connection so that the other side sees it broken, not ended."""
    with contextlib.suppress(OSError):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    transport.abort()


class _Client(_End):
    """The end that came to the port; nothing is read from it before there is somebody to pass it on to."""

    def __init__(self, relay: Relay) -> None:
        super().__init__()
        self._relay = relay

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        self._relay.connect(self)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._relay.forget(self)


class _Server(_End):
    """The end at a place; joined to its client in the moment in which it is there."""

    def __init__(self, client: _Client) -> None:
        super().__init__()
        self.peer = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        client = self.peer
        if client is None or client.transport is None or client.transport.is_closing():
            reset(self.transport)
            return
        client.peer = self
        client.transport.resume_reading()


class Relay:
    """Listens at one place and connects to others.

    A place that refuses is passed over; when all do, the client's connection is reset. Connections that are made stay
    when their place is taken from `turn`, and when the relay is closed.
    """

    def __init__(self, place: Place, places: Sequence[Place]) -> None:
        self.place = place
        self.turn = Turn(places)
        self._server: asyncio.Server | None = None
        self._clients: set[_Client] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begin to listen; raises OSError when that is not possible."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Client(self), self.place.address, self.place.port, backlog=_BACKLOG, reuse_address=True
        )

    def close(self) -> None:
        """Stop listening; connections that are made go on."""
        if self._server is not None:
            self._server.close()

    def abort(self) -> None:
        """Stop listening and break all connections."""
        self.close()
        for task in self._connecting:
            task.cancel()
        for client in list(self._clients):
            if client.transport is not None:
                reset(client.transport)

    @property
    def connections(self) -> int:
        """How many clients there are."""
        return len(self._clients)

    def connect(self, client: _Client) -> None:
        """Find a place for a client that has come."""
        self._clients.add(client)
        task = asyncio.create_task(self._connect(client), name=f"relay {self.place}")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def forget(self, client: _Client) -> None:
        """A client is gone."""
        self._clients.discard(client)

    async def _connect(self, client: _Client) -> None:
        loop = asyncio.get_running_loop()
        for place in self.turn.order():
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await loop.create_connection(lambda: _Server(client), place.address, place.port)
            except (OSError, TimeoutError) as error:
                log.debug("%s: %s does not take a connection: %s", self.place, place, error)
            else:
                return
        if client.transport is not None:
            reset(client.transport)
