"""A request on resources, taken from HTTP: its path, its body, and the form of its answer."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
import yaml
from aiohttp import web

from alidade_local.apiserver.encoding import YAML_TYPES, as_object, decode_json, decode_yaml
from alidade_local.apiserver.errors import ApiError, quoted, too_large_body, unsupported_media_type
from alidade_local.apiserver.protobuf import PROTOBUF_TYPE, decode_protobuf
from alidade_local.apiserver.settings import ApiServerSettings

Json = dict[str, Any]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
PATCH_TYPES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH)
BODY_TYPES = ("application/json", "application/yaml", PROTOBUF_TYPE)
_PIECE = 256 * 1024


async def read_body(request: web.BaseRequest, settings: ApiServerSettings) -> bytes:
    """The whole body, or 413, or 504 for one that does not come."""
    if (request.content_length or 0) > settings.max_body_bytes:
        raise too_large_body(settings.max_body_bytes)
    try:
        async with asyncio.timeout(settings.request_timeout_s):
            return await _read_all(request, settings)
    except TimeoutError:
        raise ApiError(504, "Timeout", "Timeout: request did not complete within the allotted timeout") from None
    except web.RequestPayloadError as error:
        raise ApiError(400, "BadRequest", f"the body of the request cannot be read: {error}") from error


async def _read_all(request: web.BaseRequest, settings: ApiServerSettings) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > settings.max_body_bytes:
            raise too_large_body(settings.max_body_bytes)
        parts.append(chunk)
    return b"".join(parts)


async def read_object(request: web.BaseRequest, settings: ApiServerSettings) -> Json:
    """The body as one object, in JSON or YAML."""
    body = await read_body(request, settings)
    media = request.content_type if "Content-Type" in request.headers else "application/json"
    if media in YAML_TYPES:
        return as_object(decode_yaml(body, settings.max_nesting))
    if media == PROTOBUF_TYPE:
        return decode_protobuf(body)
    if media != "application/json":
        raise unsupported_media_type(media, BODY_TYPES)
    return as_object(decode_json(body, settings.max_nesting))


async def read_options(request: web.BaseRequest, settings: ApiServerSettings) -> Json:
    """The body of a delete: DeleteOptions, or nothing."""
    body = await read_body(request, settings)
    if not body.strip():
        return {}
    if request.content_type in YAML_TYPES:
        return as_object(decode_yaml(body, settings.max_nesting))
    if request.content_type == PROTOBUF_TYPE:
        return decode_protobuf(body)
    return as_object(decode_json(body, settings.max_nesting))


def json_response(
    body: bytes | Json | list[Any],
    *,
    status: int = 200,
    yaml_form: bool = False,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """An answer in JSON, or in YAML when the client asked for it."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    if yaml_form:
        data = yaml.dump(orjson.loads(data), Dumper=yaml.CSafeDumper, sort_keys=False).encode()
        content_type = "application/yaml"
    response = web.Response(body=data if len(data) <= _PIECE else _pieces(data), status=status, headers=headers)
    response.headers["Content-Type"] = content_type
    return response


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    """The answer as fast as its reader takes it: TLS keeps a buffer of the greatest size that a connection ever had."""
    view = memoryview(data)
    for start in range(0, len(data), _PIECE):
        yield bytes(view[start : start + _PIECE])


def warning_headers(warnings: list[str]) -> list[tuple[str, str]]:
    """Warning headers (code 299), as kubectl prints them."""
    return [("Warning", f"299 - {quoted(text)}") for text in warnings]


def error_response(error: ApiError) -> web.Response:
    """The Status of a failure."""
    headers = {}
    seconds = (error.details or {}).get("retryAfterSeconds")
    if seconds:
        headers["Retry-After"] = str(seconds)
    return json_response(error.status(), status=error.code, headers=headers)
