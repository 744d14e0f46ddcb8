"""Request bodies: bounded in size and time, JSON, text that is text."""

import asyncio
import json
from http import HTTPStatus
from typing import Any, NoReturn

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from alidade_serving.front.refusals import Refusal, malformed

NOT_HTTP = (HttpProcessingError, web.RequestPayloadError)
"""What aiohttp raises, and logs, when a client does not say what HTTP lets it say."""


def not_http(error: BaseException) -> str:
    """What was wrong, without the bytes that were: they may be someone's prompt."""
    return str(error).strip().removeprefix("400, message:").strip().partition(":")[0]


async def read_json(request: web.Request, *, max_bytes: int, timeout_s: float) -> dict[str, Any]:
    """The body as an object. Raises Refusal: 413 too long, 408 too slow, 400 not a JSON object in UTF-8."""
    return parse_json(await read_body(request, max_bytes=max_bytes, timeout_s=timeout_s))


async def read_body(request: web.Request, *, max_bytes: int, timeout_s: float) -> bytes:
    """The body whole. Raises Refusal: 413 too long, 408 too slow, 400 not framed or compressed as its head says."""
    too_long = Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "payload_too_large",
        f"The body is longer than {max_bytes} bytes; send a shorter prompt.",
    )
    if request.content_length is not None and request.content_length > max_bytes:
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > max_bytes:
                    raise too_long
    except TimeoutError:
        raise Refusal(
            HTTPStatus.REQUEST_TIMEOUT, "timeout", f"The body did not arrive within {timeout_s:g} seconds."
        ) from None
    except NOT_HTTP as error:
        raise malformed(f"The body cannot be read: {not_http(error)}.") from None
    return bytes(body)


def parse_json(body: bytes) -> dict[str, Any]:
    """The object that a body holds. Raises Refusal(400) when it is not one."""
    try:
        document = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise malformed(f"The body is not UTF-8: byte {error.start} cannot be read.") from None
    except RecursionError:
        raise malformed("The body is nested too deeply.") from None
    except ValueError as error:  # JSONDecodeError, and integers of thousands of digits
        raise malformed(f"The body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise malformed(f"The body is a JSON {type(document).__name__}; send an object.")
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
