"""`kubectl port-forward`: connections to a pod's ports, through one connection that carries SPDY.

For each connection kubectl opens a stream for data and one for an error, which belong together by their requestID
(client-go, tools/portforward).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from alidade_local.kubelet import spdy

PROTOCOL = "portforward.k8s.io"
_CHUNK_BYTES = 32 * 1024
_CONNECT_TIMEOUT_S = 3.0
# What a pod has not taken yet of one connection, before the others of the same kubectl wait too.
_BUFFER_BYTES = 2**20
# kubectl says that its client says nothing more, but not that it is gone (a stream that is closed is not reset by it):
# a pod that goes on talking for so long is taken to talk to nobody.
_HALF_CLOSED_S = 10.0


@dataclass
class _Connection:
    """A connection as far as kubectl has asked for it. streams: data and error, by type."""

    port: int
    streams: dict[str, int] = field(default_factory=dict)
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    writer: asyncio.StreamWriter | None = None
    task: asyncio.Task[None] | None = None
    end: asyncio.TimerHandle | None = None


class Wire(Protocol):
    """What carries the bytes of SPDY."""

    def received(self) -> AsyncIterator[bytes]:
        """What the client sends, until it leaves."""

    async def send(self, data: bytes) -> None:
        """Send bytes; raises ConnectionError when the client has left."""


class PortForwarding:
    """All connections of one kubectl to one pod."""

    def __init__(self, name: str, address: str, wire: Wire) -> None:
        self._name = name
        self._address = address
        self._wire = wire
        self._decoder, self._encoder = spdy.Decoder(), spdy.Encoder()
        self._asked: dict[str, _Connection] = {}
        self._by_data_stream: dict[int, _Connection] = {}

    async def run(self) -> None:
        """Forward until the client leaves; raises SpdyError when it does not speak SPDY."""
        try:
            async for data in self._wire.received():
                for frame in self._decoder.feed(data):
                    await self._handle(frame)
        finally:
            tasks = [connection.task for connection in self._by_data_stream.values() if connection.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _handle(self, frame: spdy.Frame) -> None:
        match frame:
            case spdy.Opened():
                await self._open(frame)
            case spdy.Data():
                await self._take(frame)
            case spdy.Reset():
                await self._give_up(frame.stream)
            case spdy.Ping():
                await self._wire.send(spdy.ping(frame.number))

    async def _open(self, frame: spdy.Opened) -> None:
        headers = frame.headers
        kind, port, request = headers.get("streamtype"), headers.get("port", ""), headers.get("requestid", "")
        if kind not in ("data", "error") or not port.isdigit() or not 0 < int(port) < 65536:
            raise spdy.SpdyError(f"a stream of type {kind!r} to port {port!r}")
        await self._wire.send(self._encoder.reply(frame.stream))
        connection = self._asked.setdefault(request, _Connection(int(port)))
        connection.streams[kind] = frame.stream
        if len(connection.streams) == 2:
            del self._asked[request]
            self._by_data_stream[connection.streams["data"]] = connection
            connection.task = asyncio.create_task(self._forward(connection), name=f"port-forward {self._name}")

    async def _take(self, frame: spdy.Data) -> None:
        """Pass on what the client says; it may say it before the pod has been connected to."""
        connection = self._by_data_stream.get(frame.stream)
        if connection is None:
            return
        await connection.connected.wait()
        writer = connection.writer
        if writer is None or writer.is_closing():
            return
        with contextlib.suppress(OSError):
            writer.write(frame.payload)
            if frame.fin:
                writer.write_eof()
                connection.end = asyncio.get_running_loop().call_later(_HALF_CLOSED_S, writer.transport.abort)
            await writer.drain()

    async def _give_up(self, stream: int) -> None:
        """The client wants nothing more of a connection: that ends what the pod says too."""
        connection = self._by_data_stream.get(stream)
        if connection is not None:
            await connection.connected.wait()
            if connection.writer is not None:
                connection.writer.transport.abort()

    async def _forward(self, connection: _Connection) -> None:
        """Connect, and pass on what the pod says until it ends; both streams are ended with it."""
        problem = ""
        try:
            problem = await self._pass_on(connection)
        finally:
            self._by_data_stream.pop(connection.streams["data"], None)
            connection.connected.set()
            if connection.end is not None:
                connection.end.cancel()
            if connection.writer is not None:
                connection.writer.close()
        with contextlib.suppress(ConnectionError):
            await self._wire.send(spdy.data(connection.streams["error"], problem.encode(), fin=True))
            await self._wire.send(spdy.data(connection.streams["data"], b"", fin=True))

    async def _pass_on(self, connection: _Connection) -> str:
        """Empty when the pod ended the connection, else what went wrong."""
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                reader, connection.writer = await asyncio.open_connection(self._address, connection.port)
            connection.writer.transport.set_write_buffer_limits(high=_BUFFER_BYTES)
            connection.connected.set()
            while chunk := await reader.read(_CHUNK_BYTES):
                await self._wire.send(spdy.data(connection.streams["data"], chunk))
        except (OSError, TimeoutError) as error:
            what = f"{error.strerror or error}" if isinstance(error, OSError) else "it does not answer"
            return f"error forwarding port {connection.port} to pod {self._name}: {self._address}: {what}"
        return ""
