"""Connections: taken, bounded in what the kernel keeps for them, and hung up on when they say nothing."""

import asyncio
import socket

from aiohttp import web

# What the kernel keeps for a client that does not read; left alone it grows to 4 MiB for each of them.
_SEND_BUFFER_BYTES = 1 << 17

SILENT: web.AppKey[dict[asyncio.BaseProtocol, asyncio.TimerHandle]] = web.AppKey("silent", dict)
"""Connections that have not sent the head of a request yet, and when that will have taken too long."""


async def listen(runner: web.AppRunner, host: str, port: int, *, read_timeout_s: float) -> asyncio.Server:
    """aiohttp waits for a connection's first request without end: those that send none are closed here."""
    loop = asyncio.get_running_loop()
    server = runner.server
    assert server is not None
    silent = runner.app[SILENT]

    def hang_up(protocol: web.RequestHandler) -> None:
        del silent[protocol]
        if protocol.transport is not None:
            protocol.transport.abort()

    def connection() -> web.RequestHandler:
        protocol = server()
        silent[protocol] = loop.call_later(read_timeout_s, hang_up, protocol)
        return protocol

    listening = await loop.create_server(connection, host, port, backlog=1024)
    for listener in listening.sockets:  # connections inherit it
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    return listening


def address_of(listening: asyncio.Server) -> str:
    """Where it is reached, as a URL."""
    host, port = listening.sockets[0].getsockname()[:2]
    return f"http://{host}:{port}"
