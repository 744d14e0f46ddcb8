"""An inference server whose delays are known: real HTTP, no model."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Json = dict[str, Any]
PROMPT_OVERHEAD = 7
TOKENS_PER_WORD = 2


@dataclass
class Script:
    """How the server answers. first_s: before the first token; each_s: before each further one.

    stalls: (from, to) in seconds since the first question, in which no token is written. places: questions at once,
    more get 429. cut_after: tokens after which the connection is dropped. error_after: tokens after which an error is
    sent. key: asked for. says_usage: whether tokens are counted. stop_after: longest answer, whatever is asked for.
    written: of each answer when it was asked for and when each token was written, in seconds.
    most_words: of a prompt, longer ones get 422. counts_letters: every letter is a token, in place of half a word.
    """

    first_s: float = 0.0
    each_s: float = 0.0
    stall: tuple[float, float] | None = None
    places: int = 10_000
    cut_after: int | None = None
    error_after: int | None = None
    key: str | None = None
    says_usage: bool = True
    stop_after: int = 10_000
    most_words: int = 10_000
    counts_letters: bool = False
    text: str = "word "
    asked: list[Json] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    written: list[list[float]] = field(default_factory=list)
    hung_up: int = 0
    _busy: int = 0

    def application(self) -> web.Application:
        application = web.Application()
        application.add_routes(
            [
                web.get("/v1/models", self._models),
                web.post("/v1/chat/completions", self._openai),
                web.post("/v1/completions", self._openai),
                web.post("/generate_stream", self._tgi),
            ]
        )
        return application

    def _refusal(self, request: web.Request, body: Json | None = None) -> web.Response | None:
        if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": {"message": "the key is wrong"}}, status=401)
        if self._busy >= self.places:
            headers = {"Retry-After": "7"}
            return web.json_response({"error": {"message": "too many at once"}}, status=429, headers=headers)
        if body is not None and len(_said(body).split()) > self.most_words:
            return web.json_response({"error": {"message": "the prompt is too long"}}, status=422)
        return None

    async def _models(self, request: web.Request) -> web.Response:
        return self._refusal(request) or web.json_response({"data": [{"id": "fake"}]})

    async def _openai(self, request: web.Request) -> web.StreamResponse:
        body = await self._note(request)
        return self._refusal(request, body) or await self._counted(self._stream_openai(request, body))

    async def _tgi(self, request: web.Request) -> web.StreamResponse:
        body = await self._note(request)
        return self._refusal(request) or await self._counted(self._stream_tgi(request, body))

    async def _note(self, request: web.Request) -> Json:
        body: Json = await request.json()
        self.asked.append(body)
        self.paths.append(request.path)
        self.times.append(asyncio.get_running_loop().time())
        return body

    async def _counted(self, answer: Any) -> web.StreamResponse:
        self._busy += 1
        try:
            found: web.StreamResponse = await answer
            return found
        except (ConnectionError, asyncio.CancelledError):
            self.hung_up += 1
            raise
        finally:
            self._busy -= 1

    async def _stream_openai(self, request: web.Request, body: Json) -> web.StreamResponse:
        is_chat, written = "messages" in body, self._begin_to_write()
        response = await self._begin(request)
        if is_chat:
            await _event(response, {"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        limit = body.get("max_tokens", self.stop_after + 1)
        tokens = min(limit, self.stop_after)
        for number in range(tokens):
            if not await self._pause(request, response, number, {"error": {"message": "it broke"}}):
                return response
            said = {"delta": {"content": self.text}} if is_chat else {"text": self.text}
            written.append(asyncio.get_running_loop().time())
            await _event(response, {"choices": [{**said, "finish_reason": None}]})
        reason = "stop" if tokens < limit else "length"
        await _event(response, {"choices": [{"delta": {}, "text": "", "finish_reason": reason}]})
        if self.says_usage and body.get("stream_options", {}).get("include_usage"):
            usage = {"prompt_tokens": self._count(_said(body)), "completion_tokens": tokens}
            await _event(response, {"choices": [], "usage": usage})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _stream_tgi(self, request: web.Request, body: Json) -> web.StreamResponse:
        response, written = await self._begin(request), self._begin_to_write()
        tokens = min(body["parameters"]["max_new_tokens"], self.stop_after)
        for number in range(tokens):
            if not await self._pause(request, response, number, {"error": "it broke", "error_type": "generation"}):
                return response
            written.append(asyncio.get_running_loop().time())
            event: Json = {"token": {"text": self.text, "special": False}, "generated_text": None, "details": None}
            if number == tokens - 1:
                counts = {"generated_tokens": tokens, "input_length": self._count(body["inputs"])}
                event |= {"generated_text": self.text * tokens, "details": counts}
            await _event(response, event)
        return response

    def _begin_to_write(self) -> list[float]:
        self.written.append([asyncio.get_running_loop().time()])
        return self.written[-1]

    def _count(self, prompt: str) -> int:
        words = prompt.split()
        return PROMPT_OVERHEAD + (len("".join(words)) if self.counts_letters else TOKENS_PER_WORD * len(words))

    async def _begin(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        return response

    async def _pause(self, request: web.Request, response: web.StreamResponse, number: int, error: Json) -> bool:
        """Waits until the next token is due; False when the answer is over before its end."""
        loop = asyncio.get_running_loop()
        due = loop.time() + (self.each_s if number else self.first_s)
        if self.stall is not None:
            begin, end = (self.times[0] + bound for bound in self.stall)
            if begin <= due < end:
                due = end
        await asyncio.sleep(due - loop.time())
        if number == self.error_after:
            await _event(response, error)
            return False
        if number == self.cut_after:
            assert request.transport is not None
            request.transport.close()
            return False
        return True


def _said(body: Json) -> str:
    return body["prompt"] if "prompt" in body else " ".join(turn["content"] for turn in body["messages"])


async def _event(response: web.StreamResponse, event: Json) -> None:
    await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")


@contextmanager
def serving(script: Script) -> Iterator[str]:
    """The address of a server that answers so, in a thread of its own."""
    address: list[Any] = []
    ready = threading.Event()

    async def run() -> None:
        stop = asyncio.Event()
        runner = web.AppRunner(script.application(), handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address.extend((runner.addresses[0][1], asyncio.get_running_loop(), stop))
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert ready.wait(60)
    port, loop, stop = address
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        assert not thread.is_alive()
