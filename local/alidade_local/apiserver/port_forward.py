"""`kubectl port-forward` over WebSockets."""

from collections.abc import AsyncIterator

from aiohttp import WSMsgType, web

from alidade_local.apiserver.errors import ApiError, bad_request
from alidade_local.kubelet import spdy
from alidade_local.kubelet.port_forward import PROTOCOL, PortForwarding

_WEB_SOCKET_PROTOCOL = f"SPDY/3.1+{PROTOCOL}"


class _WebSocketWire:
    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def received(self) -> AsyncIterator[bytes]:
        async for message in self._socket:
            if message.type == WSMsgType.BINARY:
                yield message.data

    async def send(self, data: bytes) -> None:
        await self._socket.send_bytes(data)


class PortForwards:
    """The sessions that are open."""

    def __init__(self) -> None:
        self._sockets: set[web.WebSocketResponse] = set()

    async def close(self) -> None:
        """End all sessions."""
        for socket in list(self._sockets):
            await socket.close(code=1001)

    async def answer(self, request: web.BaseRequest, name: str, address: str) -> web.StreamResponse:
        """Forward to the pod of that name and address for as long as the client stays."""
        if _WEB_SOCKET_PROTOCOL not in _offered(request):
            raise _not_spoken(request)
        socket = web.WebSocketResponse(protocols=(_WEB_SOCKET_PROTOCOL,))
        self._sockets.add(socket)
        try:
            await socket.prepare(request)
            await PortForwarding(name, address, _WebSocketWire(socket)).run()
        except spdy.SpdyError as error:
            await socket.close(code=1002, message=str(error).encode()[:120])
        finally:
            self._sockets.discard(socket)
        return socket


def _offered(request: web.BaseRequest) -> list[str]:
    if request.headers.get("Upgrade", "").lower() != "websocket":
        return []
    return [protocol.strip() for protocol in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]


def _not_spoken(request: web.BaseRequest) -> ApiError:
    if request.headers.get("Upgrade", "").upper().startswith("SPDY"):
        return bad_request("the local cluster forwards ports over WebSockets; use kubectl 1.31 or newer")
    return bad_request(f"unable to upgrade: ask for a WebSocket with the protocol {_WEB_SOCKET_PROTOCOL}")
