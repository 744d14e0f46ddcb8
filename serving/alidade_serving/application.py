"""The routes of a server, and what holds for all of them: keys, errors, and one line of log a request."""

import asyncio
import hmac
import json
import logging
import secrets
from http import HTTPStatus
from time import monotonic

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from alidade_serving.openai import OpenAiApi, error_body
from alidade_serving.refusals import Refusal, unavailable
from alidade_serving.service import Service
from alidade_serving.tgi import TgiApi

_log = logging.getLogger("alidade_serving.access")
_failures = logging.getLogger("alidade_serving")
# Probes carry no keys, and say nothing but yes or no.
_OPEN = frozenset({"/health", "/readyz", "/livez"})

SILENT: web.AppKey[dict[asyncio.BaseProtocol, asyncio.TimerHandle]] = web.AppKey("silent", dict)
"""Connections that have not sent the head of a request yet, and when that will have taken too long."""


def build_application(service: Service, keys: frozenset[str]) -> web.Application:
    """Both APIs over one service; without keys every caller is served."""
    application = web.Application(middlewares=[_logged(), _answered(), _authenticated(keys)])
    application[SILENT] = {}
    application.add_routes(
        [
            web.get("/health", _ready(service)),
            web.get("/readyz", _ready(service)),
            web.get("/livez", _alive(service)),
            web.get("/metrics", _metrics(service)),
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


def _logged() -> Middleware:
    """One JSON line a request: who, what, how long, how many tokens; nothing of what was said."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if (timer := request.app[SILENT].pop(request.protocol, None)) is not None:
            timer.cancel()
        request["arrived"] = monotonic()
        request["id"] = secrets.token_hex(8)
        status = 499  # nginx' number for a client that went away
        try:
            response = await handler(request)
            status = response.status
            return response
        except ConnectionResetError:
            return web.Response(status=status)
        finally:
            if request.path not in _OPEN:
                _log.info(_line(request, status))

    return middleware


def _line(request: web.Request, status: int) -> str:
    line: dict[str, object] = {
        "request": request["id"],
        "client": request.remote,
        "method": request.method,
        "path": request.path[:100],
        "status": status,
        "seconds": round(monotonic() - request["arrived"], 4),
    }
    ending = request.get("ending")
    if ending is not None:
        line |= {
            "promptTokens": ending.prompt_tokens,
            "generatedTokens": ending.generated_tokens,
            "finishReason": ending.reason,
        }
    return json.dumps(line)


def _answered() -> Middleware:
    """Errors in the shape of the API that was asked."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            return _refused(request, refusal)
        except web.HTTPException as error:
            message = f"{request.method} {request.path[:100]}: {error.reason}."
            return _refused(request, Refusal(HTTPStatus(error.status), "not_found", message))
        except ConnectionResetError:
            raise
        except Exception:
            _failures.exception("request %s failed", request["id"])
            message = f"The server failed; its log says why, at request {request['id']}."
            return _refused(request, Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", message))

    return middleware


def _refused(request: web.Request, refusal: Refusal) -> web.Response:
    if request.path.startswith("/v1/"):
        body = error_body(refusal)
    else:
        body = {"error": refusal.message, "error_type": refusal.kind}
    response = web.json_response(body, status=refusal.status, headers={"X-Request-Id": request["id"]})
    if refusal.retry_after_s is not None:
        response.headers["Retry-After"] = str(refusal.retry_after_s)
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    if not request.content.is_eof():
        response.force_close()  # what is left of the body is not read
    return response


def _authenticated(keys: frozenset[str]) -> Middleware:
    """Every route but the probes asks for a key, also those that there are not."""
    accepted = [key.encode() for key in keys]

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if accepted and request.path not in _OPEN:
            scheme, _, key = request.headers.get("Authorization", "").partition(" ")
            given = key.strip().encode("utf-8", "surrogateescape")
            # All are compared, each in constant time: how long it takes says nothing about the keys.
            matches = [hmac.compare_digest(given, one) for one in accepted]
            if scheme.lower() != "bearer" or not any(matches):
                raise Refusal(
                    HTTPStatus.UNAUTHORIZED, "unauthorized", "A key is needed: send Authorization: Bearer KEY."
                )
        return await handler(request)

    return middleware
