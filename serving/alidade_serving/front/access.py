"""One JSON line a request: who, what, how long; nothing of what was said."""

import json
import logging
import re
import secrets
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from alidade_serving.front.listening import SILENT

_log = logging.getLogger("alidade_serving.access")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

PROBES = frozenset({"/health", "/readyz", "/livez"})
"""They carry no keys, are not logged, and say nothing but yes or no."""
CLIENT_CLOSED = 499
"""nginx' number for a client that went away."""


def logged(further: Callable[[web.Request], Mapping[str, Any]]) -> Middleware:
    """Names each request (`id`, `arrived` on the monotonic clock) and writes its line at the end.

    further: what else the line says of a request. An X-Request-Id that is fit for a log is kept, so that one request
    has one name in the logs of everyone who passed it on.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if (timer := request.app[SILENT].pop(request.protocol, None)) is not None:
            timer.cancel()
        request["arrived"] = monotonic()
        given = request.headers.get("X-Request-Id", "")
        request["id"] = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        status = CLIENT_CLOSED
        try:
            response = await handler(request)
            status = response.status
            return response
        except ConnectionResetError:
            return web.Response(status=status)
        finally:
            if request.path not in PROBES:
                line = {
                    "request": request["id"],
                    "client": request.remote,
                    "method": request.method,
                    "path": request.path[:100],
                    "status": status,
                    "seconds": round(monotonic() - request["arrived"], 4),
                }
                _log.info(json.dumps(line | dict(further(request))))

    return middleware
