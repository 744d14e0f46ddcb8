"""The routes of a gateway: its own, and everything else for the backends."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from aiohttp import ClientSession, web
from aiohttp.typedefs import Handler, Middleware

from alidade_gateway.client import client
from alidade_gateway.forwarding import Forwarder
from alidade_gateway.gateway import GATEWAY, Gateway
from alidade_gateway.pages.routes import add_pages
from alidade_gateway.proxy import Proxy
from alidade_gateway.settings import Settings
from alidade_serving.front.access import CLIENT_CLOSED, PROBES, logged
from alidade_serving.front.errors import answered
from alidade_serving.front.keys import authenticated, read_keys
from alidade_serving.front.listening import SILENT
from alidade_serving.front.refusals import unavailable

_METRICS = "/metrics"
_STATUS = "/internal/status"

CLIENT: web.AppKey[ClientSession] = web.AppKey("client", ClientSession)
"""Speaks to backends; there while the application runs."""
FORWARDER: web.AppKey[Forwarder] = web.AppKey("forwarder", Forwarder)
"""Asks backends as the proxy does, with retries and holding; there while the application runs."""
OPEN_PATHS: web.AppKey[set[str]] = web.AppKey("open_paths", set)
"""Paths of the gateway's own that are answered without a key: they hold counts, and pages that ask for the key."""


def create_application(settings: Settings) -> web.Application:
    """A gateway. Raises ValueError when it is to ask for keys and there are none."""
    gateway = Gateway(settings)
    open_paths = {*PROBES, _METRICS, _STATUS}
    keys = authenticated(read_keys(settings.keys_from), open_paths.__contains__)
    application = web.Application(
        middlewares=[logged(_outcome), _counted(gateway, open_paths.__contains__), answered(), keys]
    )
    application[SILENT] = {}
    application[GATEWAY] = gateway
    application[OPEN_PATHS] = open_paths
    application.cleanup_ctx.append(_connected)
    application.add_routes(
        [
            web.get("/health", _ready(gateway)),
            web.get("/readyz", _ready(gateway)),
            web.get("/livez", _alive),
            web.get(_METRICS, _metrics(gateway)),
            web.get(_STATUS, _status(gateway)),
        ]
    )
    add_pages(application, open_paths, FORWARDER)
    # Last: it takes what nothing before it took.
    application.router.add_route("*", "/{path:.*}", _passed_on(gateway, open_paths.__contains__))
    return application


async def _connected(application: web.Application) -> AsyncIterator[None]:
    gateway = application[GATEWAY]
    async with client(gateway.settings.connect_timeout_s) as session:
        application[CLIENT] = session
        application[FORWARDER] = Forwarder(
            session, gateway.settings, gateway.metrics, on_waiting_change=gateway.show_waiting
        )
        yield


def _passed_on(gateway: Gateway, is_own: Callable[[str], bool]) -> Handler:
    proxy = Proxy(gateway)

    async def handler(request: web.Request) -> web.StreamResponse:
        if is_own(request.path):  # with a method that no route has: it carries no key and must not reach a backend
            raise web.HTTPMethodNotAllowed(request.method, ("GET",))
        return await proxy.handle(request, request.app[FORWARDER])

    return handler


def _ready(gateway: Gateway) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:  # noqa: ARG001
        # Whether replicas are ready is not asked: requests are held until they are.
        if gateway.draining:
            raise unavailable("Not ready: the gateway is about to end.")
        return web.Response()

    return handler


async def _alive(request: web.Request) -> web.StreamResponse:  # noqa: ARG001
    """Who answers, lives."""
    return web.Response()


def _metrics(gateway: Gateway) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:  # noqa: ARG001
        return web.Response(body=gateway.metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"})

    return handler


def _status(gateway: Gateway) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:  # noqa: ARG001
        return web.json_response(gateway.document().to_dict())

    return handler


def _counted(gateway: Gateway, is_own: Callable[[str], bool]) -> Middleware:
    """Counts every request that is not the gateway's own by who answered and with which code."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if is_own(request.path):
            return await handler(request)
        code = CLIENT_CLOSED
        try:
            response = await handler(request)
            code = response.status
            return response
        finally:
            gateway.metrics.answered(request.get("backend", "gateway"), request.get("code", code))

    return middleware


def _outcome(request: web.Request) -> Mapping[str, Any]:
    """What a line of the log says of a request that was passed on."""
    order = request.get("order")
    if order is None:
        return {}
    said: dict[str, Any] = {
        "backend": request.get("backend"),
        "tries": order.tries,
        "heldSeconds": round(order.held_s, 4),
    }
    for name, key in (("firstByteSeconds", "first_byte_s"), ("status", "code")):
        if key in request:
            said[name] = round(request[key], 4)
    return said
