"""A model server that answers what the message asks for: `python talker.py NAME PORT`. GET /asked tells what came."""

import asyncio
import json
import sys
from collections import defaultdict
from typing import Any

from aiohttp import web

NAME = sys.argv[1]
asked: list[dict[str, Any]] = []
opened: dict[str, asyncio.Event] = defaultdict(asyncio.Event)


async def health(request: web.Request) -> web.Response:
    return web.Response()


async def models(request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [{"id": "tiny", "object": "model"}]})


async def tell(request: web.Request) -> web.Response:
    return web.json_response(asked)


async def open_gate(request: web.Request) -> web.Response:
    opened[request.match_info["gate"]].set()
    return web.Response()


async def chat(request: web.Request) -> web.StreamResponse:
    document = await request.json()
    asked.append({**document, "authorization": request.headers.get("Authorization")})
    said = document["messages"][-1]["content"]
    word, _, rest = said.partition(" ")
    if word == "refuse" and rest in ("", NAME):
        return web.json_response({"error": {"message": "The prompt is too long."}}, status=422)
    if word == "fail" and rest in ("", NAME):
        return web.json_response({"error": {"message": f"{NAME} is out of order"}}, status=500)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for number, piece in enumerate(answer(word, rest)):
        if word in ("gate", "broken-gate") and number == 1:
            await opened[rest].wait()
        if number == 1 and (word == "broken-gate" or (word == "break" and rest in ("", NAME))):
            assert request.transport is not None
            request.transport.abort()
            return response
        if word == "forever":
            await asyncio.sleep(0.02)
        await send(response, {"delta": {"content": piece}, "finish_reason": None})
    await send(response, {"delta": {}, "finish_reason": "length" if word == "long" else "stop"})
    await response.write(b"data: [DONE]\n\n")
    return response


def answer(word: str, rest: str) -> list[str]:
    """In pieces."""
    if word == "same":
        return ["alike"]
    if word == "echo":
        return [rest]
    if word == "long":
        return ["x" * 10_000] * 3
    if word == "half":
        return ["a\ud83d"]
    if word == "forever":
        return [f"{NAME} "] * 10_000
    if word == "nothing":
        return [] if rest in ("", NAME) else ["something"]
    return [f"{NAME} ", "says 你好 ", f"to {word}"]


async def send(response: web.StreamResponse, choice: dict[str, Any]) -> None:
    event = {"object": "chat.completion.chunk", "choices": [{"index": 0, **choice}]}
    await response.write(f"data: {json.dumps(event)}\n\n".encode())


application = web.Application(client_max_size=1 << 30)
application.router.add_get("/health", health)
application.router.add_get("/v1/models", models)
application.router.add_get("/asked", tell)
application.router.add_get("/open/{gate}", open_gate)
application.router.add_post("/v1/chat/completions", chat)
web.run_app(
    application,
    host="127.0.0.1",
    port=int(sys.argv[2]),
    handler_cancellation=True,
    print=lambda line: print(line, flush=True),
)
