"""/metrics, /healthz and /readyz on one port."""

import logging
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

_log = logging.getLogger(__name__)


class HealthServer:
    """Serves metrics, liveness (the event loop answers) and readiness (every kind has been listed)."""

    def __init__(
        self, *, host: str | None, port: int, is_ready: Callable[[], bool], refresh: Callable[[], None]
    ) -> None:
        """host: None for all addresses. refresh: brings gauges up to date before they are read."""
        self._host = host
        self._port = port
        self._is_ready = is_ready
        self._refresh = refresh
        app = web.Application()
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> None:
        """Listens; logs the port."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        _log.info("serving metrics and health", extra={"action": "listen", "host": host, "port": port})

    async def stop(self) -> None:
        """Ends it."""
        await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.Response:
        del request
        self._refresh()
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, request: web.Request) -> web.Response:
        del request
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        del request
        if self._is_ready():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="the resources have not been listed yet\n")
