"""Errors in the shape of the API that was asked."""

import logging
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from alidade_serving.front.refusals import Refusal

_failures = logging.getLogger("alidade_serving")


def error_body(refusal: Refusal) -> dict[str, Any]:
    """The body of an error as OpenAI's clients read it."""
    return {
        "error": {"message": refusal.message, "type": refusal.kind, "param": refusal.field, "code": int(refusal.status)}
    }


def refused(request: web.Request, refusal: Refusal) -> web.Response:
    """The answer to a request that is refused."""
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


def answered() -> Middleware:
    """Turns whatever a handler raises into an answer; a client that went away gets none."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            return refused(request, refusal)
        except web.HTTPException as error:
            message = f"{request.method} {request.path[:100]}: {error.reason}."
            return refused(request, Refusal(HTTPStatus(error.status), "not_found", message))
        except ConnectionResetError:
            raise
        except Exception:
            _failures.exception("request %s failed", request["id"])
            message = f"The server failed; its log says why, at request {request['id']}."
            return refused(request, Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", message))

    return middleware
