"""The routes of a server."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from alidade_serving import openapi
from alidade_serving.front.access import PROBES, logged
from alidade_serving.front.errors import answered
from alidade_serving.front.keys import authenticated
from alidade_serving.front.listening import SILENT
from alidade_serving.front.refusals import unavailable
from alidade_serving.openai import OpenAiApi
from alidade_serving.service import Service
from alidade_serving.tgi import TgiApi


def build_application(service: Service, keys: frozenset[str]) -> web.Application:
    """Both APIs over one service; without keys every caller is served."""
    application = web.Application(
        middlewares=[logged(_tokens), answered(), authenticated(keys, lambda path: path in PROBES)]
    )
    application[SILENT] = {}
    application.add_routes(
        [
            web.get("/health", _ready(service)),
            web.get("/readyz", _ready(service)),
            web.get("/livez", _alive(service)),
            web.get("/metrics", _metrics(service)),
            web.get(openapi.PATH, _described()),
            *TgiApi(service).routes(),
            *OpenAiApi(service).routes(),
        ]
    )
    return application


def _ready(service: Service) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:  # noqa: ARG001
        if not service.ready:
            raise unavailable("Not ready: the model is being loaded, or the server is about to end.")
        return web.Response()

    return handler


def _alive(service: Service) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:  # noqa: ARG001
        if not service.alive:
            raise unavailable(f"No token for {service.settings.stall_timeout_s:g} seconds while requests generate.")
        return web.Response()

    return handler


def _metrics(service: Service) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:  # noqa: ARG001
        return web.Response(body=service.metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"})

    return handler


def _described() -> Handler:
    document = openapi.openapi()

    async def handler(request: web.Request) -> web.StreamResponse:  # noqa: ARG001
        return web.json_response(document)

    return handler


def _tokens(request: web.Request) -> Mapping[str, Any]:
    """What a line of the log says of an answer that was generated to its end."""
    ending = request.get("ending")
    if ending is None:
        return {}
    return {
        "promptTokens": ending.prompt_tokens,
        "generatedTokens": ending.generated_tokens,
        "finishReason": ending.reason,
    }
