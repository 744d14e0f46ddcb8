"""Bearer keys: where they are read from, and who is let in."""

import hmac
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from alidade_serving.front.refusals import Refusal


def read_keys(source: Path | None) -> frozenset[str]:
    """Accepted keys, from a file or from the files of a mounted Secret. Raises ValueError when there are none."""
    if source is None:
        return frozenset()
    if not source.exists():
        raise ValueError(f"--keys-from: {source} does not exist; without keys nobody could be let in.")
    files = [source] if source.is_file() else sorted(path for path in source.iterdir() if path.is_file())
    lines = (line.strip() for file in files for line in file.read_text("utf-8").splitlines())
    keys = frozenset(line for line in lines if line)
    if not keys:
        raise ValueError(f"--keys-from: {source} holds no key; write one a line.")
    return keys


def authenticated(keys: frozenset[str], is_open: Callable[[str], bool]) -> Middleware:
    """Every path but the open ones asks for a key, also those that do not exist; without keys all are open."""
    accepted = [key.encode() for key in keys]

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if accepted and not is_open(request.path):
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
