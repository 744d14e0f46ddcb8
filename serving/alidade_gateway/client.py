"""The HTTP client of a gateway."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import AddrInfoType, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

# A node that dies sends nothing. Asked each 5 seconds after 15 of silence, it is given up after 30.
_KEEPALIVE = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
_UNACKNOWLEDGED_MS = 30_000


@asynccontextmanager
async def client(connect_timeout_s: float) -> AsyncIterator[ClientSession]:
    """Speaks to backends. What comes is passed on as it is: nothing is decompressed, no cookie kept, no header added.

    Each request has a connection of its own, since a Service balances connections and not requests.
    """
    connector = TCPConnector(limit=0, force_close=True, socket_factory=_watched_socket)
    async with ClientSession(
        connector=connector,
        cookie_jar=DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        # How long an answer may take is for those who ask to say: a timer here would be set anew for every chunk.
        timeout=ClientTimeout(total=None, sock_connect=connect_timeout_s),
    ) as session:
        yield session


def _watched_socket(address: AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
        made.setsockopt(socket.IPPROTO_TCP, option, value)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
    return made
