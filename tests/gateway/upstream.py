"""A replica that behaves as its path says: `python upstream.py NAME PORT`. GET /seen tells what it was asked."""

import asyncio
import gzip
import hashlib
import os
import sys
from collections import Counter

from aiohttp import web

NAME = sys.argv[1]
seen: Counter[str] = Counter()
left: Counter[str] = Counter()
opened = asyncio.Event()


async def health(request: web.Request) -> web.Response:
    return web.Response()


async def tell(request: web.Request) -> web.Response:
    return web.json_response({"name": NAME, "seen": seen, "left": left})


async def answer(request: web.Request) -> web.StreamResponse:
    path = request.path
    seen[path] += 1
    try:
        body = await request.read()
        return await BEHAVIOURS.get(path.split("/")[1], echo)(request, body)
    except asyncio.CancelledError:
        left[path] += 1
        raise


async def echo(request: web.Request, body: bytes) -> web.StreamResponse:
    return web.json_response(
        {
            "name": NAME,
            "method": request.method,
            "target": request.raw_path,
            "headers": [[key, value] for key, value in request.headers.items()],
            "bytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
        },
        headers={"X-Own": "kept", "Connection": "X-Hop", "X-Hop": "1", "Keep-Alive": "timeout=5"},
    )


async def begun(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    return response


async def stream(request: web.Request, body: bytes) -> web.StreamResponse:
    """So many chunks of so many bytes at an interval, each with its number."""
    query = request.query
    response = await begun(request)
    size = int(query.get("size", 0))
    for number in range(int(query["chunks"])):
        await response.write(f"data: {NAME} {number}".encode().ljust(size, b".") + b"\n\n")
        await asyncio.sleep(float(query.get("interval", 0)))
    return response


async def gate(request: web.Request, body: bytes) -> web.StreamResponse:
    """One chunk, and the other once the gate is opened."""
    response = await begun(request)
    await response.write(b"data: before\n\n")
    await opened.wait()
    await response.write(b"data: after\n\n")
    return response


async def open_gate(request: web.Request, body: bytes) -> web.StreamResponse:
    opened.set()
    return web.Response()


async def status(request: web.Request, body: bytes) -> web.StreamResponse:
    return web.json_response({"error": "as asked"}, status=int(request.path.rpartition("/")[2]))


async def abort(request: web.Request, body: bytes) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    await asyncio.sleep(1)
    raise AssertionError("the connection is closed")


async def die(request: web.Request, body: bytes) -> web.StreamResponse:
    os._exit(1)


async def break_once(request: web.Request, body: bytes) -> web.StreamResponse:
    return await (abort if seen[request.path] == 1 else echo)(request, body)


async def unready_once(request: web.Request, body: bytes) -> web.StreamResponse:
    if seen[request.path] == 1:
        return web.json_response({"error": "loading"}, status=503)
    return await echo(request, body)


async def head_then_break_once(request: web.Request, body: bytes) -> web.StreamResponse:
    if seen[request.path] > 1:
        return await echo(request, body)
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")  # type: ignore[attr-defined]
    await asyncio.sleep(0.2)
    return await abort(request, body)


async def half(request: web.Request, body: bytes) -> web.StreamResponse:
    response = await begun(request)
    await response.write(b"data: half\n\n")
    await asyncio.sleep(0.2)
    return await abort(request, body)


async def silent(request: web.Request, body: bytes) -> web.StreamResponse:
    await asyncio.sleep(600)
    return web.Response()


async def silent_after(request: web.Request, body: bytes) -> web.StreamResponse:
    response = await begun(request)
    await response.write(b"data: half\n\n")
    await asyncio.sleep(600)
    return response


async def compressed(request: web.Request, body: bytes) -> web.StreamResponse:
    return web.Response(body=gzip.compress(b"whole"), headers={"Content-Encoding": "gzip", "Set-Cookie": "a=b"})


BEHAVIOURS = {
    "stream": stream,
    "gate": gate,
    "open": open_gate,
    "status": status,
    "break": abort,
    "die": die,
    "break-once": break_once,
    "unready-once": unready_once,
    "head-then-break-once": head_then_break_once,
    "half": half,
    "silent": silent,
    "silent-after": silent_after,
    "compressed": compressed,
}

application = web.Application(client_max_size=1 << 30)
application.router.add_get("/health", health)
application.router.add_get("/seen", tell)
application.router.add_route("*", "/{path:.*}", answer)
web.run_app(
    application,
    host="127.0.0.1",
    port=int(sys.argv[2]),
    handler_cancellation=True,
    print=lambda line: print(line, flush=True),
)
