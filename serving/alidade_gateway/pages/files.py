"""The files of the pages: a fixed set, read once, each under its own path; no path leads anywhere else."""

import hashlib
from collections.abc import Mapping
from html import escape
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

_FOLDER = Path(__file__).with_name("static")
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# What is shown comes from models and from people: nothing of it may run, and nothing is fetched from elsewhere.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    # Kept, and asked for again each time: a new gateway may have new pages, and not to send them anew is cheap.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def page(name: str, values: Mapping[str, str]) -> Handler:
    """An HTML page, with each `{{key}}` in it replaced by its value, escaped."""
    text = (_FOLDER / name).read_text("utf-8")
    for key, value in values.items():
        text = text.replace("{{" + key + "}}", escape(value))
    return _sent(text.encode(), _TYPES[".html"])


def resources() -> Mapping[str, Handler]:
    """Path and handler of everything that pages refer to."""
    files = sorted(path for path in _FOLDER.iterdir() if path.suffix in _TYPES and path.suffix != ".html")
    return {f"/pages/{path.name}": _sent(path.read_bytes(), _TYPES[path.suffix]) for path in files}


def _sent(body: bytes, content_type: str) -> Handler:
    tag = hashlib.sha256(body).hexdigest()[:32]
    headers = {**_HEADERS, "ETag": f'"{tag}"'}

    async def handler(request: web.Request) -> web.StreamResponse:
        known = request.if_none_match or ()
        if any(one.value in (tag, "*") for one in known):
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, headers={**headers, "Content-Type": content_type})

    return handler
