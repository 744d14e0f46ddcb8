"""What a kube-apiserver asks of a kubelet: logs of containers, connections to pods' ports.

It listens on loopback over TLS and answers only whom the cluster's authority has certified: the API server.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import NoReturn

from aiohttp import web

from alidade_local.informer import Informer
from alidade_local.kubelet import spdy
from alidade_local.kubelet.logs import LogError, LogOptions, PodLog
from alidade_local.kubelet.port_forward import PROTOCOL, PortForwarding
from alidade_local.kubelet.settings import KubeletSettings
from alidade_local.objects import Key, Object
from alidade_local.pki import Certificates

_HOST = "127.0.0.1"
_CHUNK_BYTES = 64 * 1024
_NO_PROCESSES = (
    "{} is not offered by the local cluster: its pods are processes of this machine, to be looked at with its tools"
)


class KubeletServer:
    """Listens as long as it is used as a context manager, whose value is its port."""

    def __init__(self, pods: Informer, settings: KubeletSettings, certificates: Certificates) -> None:
        self._pods = pods
        self._settings = settings
        self._certificates = certificates

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """The port, while it is listened on."""
        application = web.Application()
        application.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._log)
        for what in ("exec", "attach", "run"):
            application.router.add_route("*", f"/{what}/{{rest:.*}}", self._refuse)
        application.router.add_post("/portForward/{namespace}/{pod}", self._forward_ports)
        runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, _HOST, 0, ssl_context=self._tls()).start()
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self._certificates.ca))
        context.load_cert_chain(self._certificates.cert, self._certificates.key)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _find(self, request: web.Request) -> Object:
        key = Key(request.match_info["namespace"], request.match_info["pod"])
        pod = self._pods.get(key)
        if pod is None:
            raise web.HTTPNotFound(text=f'pod "{key.name}" is not on this node')
        return pod

    async def _refuse(self, request: web.Request) -> NoReturn:
        raise web.HTTPNotImplemented(text=_NO_PROCESSES.format(request.path.split("/")[1]))

    async def _log(self, request: web.Request) -> web.StreamResponse:
        pod = self._find(request)
        try:
            options = LogOptions.parse({**request.query, "container": request.match_info["container"]})
            key = Key(request.match_info["namespace"], request.match_info["pod"])
            log = PodLog(pod, options, folder=self._settings.pods_dir, find_pod=lambda: self._pods.get(key))
            log.check()
        except LogError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        return await log.answer(request)

    async def _forward_ports(self, request: web.Request) -> web.StreamResponse:
        address = (self._find(request).get("status") or {}).get("podIP")
        if not address or not request.headers.get("Upgrade", "").upper().startswith("SPDY/3.1"):
            raise web.HTTPBadRequest(text="ports of running pods are forwarded over SPDY/3.1")
        with _upgraded(request) as wire, contextlib.suppress(spdy.SpdyError, ConnectionError):
            await PortForwarding(request.match_info["pod"], address, wire).run()
        return web.Response()  # nobody is there to read it


class _StreamWire:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def received(self) -> AsyncIterator[bytes]:
        while data := await self._reader.read(_CHUNK_BYTES):
            yield data

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()


class _Upgraded(asyncio.StreamReaderProtocol):
    """A connection as a stream; the protocol that it was taken from hears when it is lost."""

    def __init__(self, before: asyncio.BaseProtocol, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self._before = before

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._before.connection_lost(exc)


@contextlib.contextmanager
def _upgraded(request: web.Request) -> Iterator[_StreamWire]:
    """The request's connection as it is after 101 Switching Protocols; it is closed in the end.

    aiohttp switches to WebSockets only, so its protocol is taken off the connection.
    """
    transport = request.transport
    if not isinstance(transport, asyncio.Transport):
        raise ConnectionResetError("the client has left")
    reader = asyncio.StreamReader()
    protocol = _Upgraded(transport.get_protocol(), reader)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
    headers = ("Connection: Upgrade", "Upgrade: SPDY/3.1", f"X-Stream-Protocol-Version: {PROTOCOL}")
    writer.write("\r\n".join(["HTTP/1.1 101 Switching Protocols", *headers, "", ""]).encode())
    try:
        yield _StreamWire(reader, writer)
    finally:
        transport.close()
