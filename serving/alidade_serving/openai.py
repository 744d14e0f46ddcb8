"""OpenAI's HTTP API: `/v1/models`, `/v1/completions`, `/v1/chat/completions`."""

import random
import secrets
from collections.abc import Callable
from contextlib import aclosing
from http import HTTPStatus
from importlib.metadata import version
from time import monotonic, time
from typing import Any

from aiohttp import web

from alidade_serving.documents import ChatRequest, CompletionRequest, OpenAiRequest, Read, read_document
from alidade_serving.front.bodies import read_json
from alidade_serving.front.errors import error_body
from alidade_serving.front.refusals import Refusal, invalid
from alidade_serving.front.streaming import EventStream
from alidade_serving.generation import Ending, Generation, Piece
from alidade_serving.prompts import answer_length, check_ids, check_stops, render, tokenize
from alidade_serving.service import Service

# What clients write for "the one model that is there": text-generation-inference's, and huggingface_hub's.
_ANY_MODEL = ("tgi", "dummy")
# Answers of one seed are comparable within one version of the server; text-generation's client insists on the field.
_FINGERPRINT = f"alidade-{version('alidade-serving')}"
# What OpenAI takes for completions when max_tokens is not given.
_DEFAULT_COMPLETION_TOKENS = 16


class OpenAiApi:
    """Handlers over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._created = int(time())

    def routes(self) -> list[web.RouteDef]:
        """Every route of this API."""
        return [
            web.get("/v1/models", self._models),
            web.get("/v1/models/{name}", self._one_model),
            web.post("/v1/completions", self._completions),
            web.post("/v1/chat/completions", self._chat),
        ]

    async def _models(self, request: web.Request) -> web.Response:  # noqa: ARG002 a handler's signature
        names = (self._service.settings.name, *self._service.settings.adapters)
        return web.json_response({"object": "list", "data": [self._described(name) for name in names]})

    async def _one_model(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        self._check_model(name)
        return web.json_response(self._described(name))

    def _described(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "alidade"}

    def _check_model(self, asked: str) -> None:
        names = (self._service.settings.name, *self._service.settings.adapters)
        if asked not in (*names, *_ANY_MODEL):
            raise Refusal(
                HTTPStatus.NOT_FOUND,
                "model_not_found",
                f"model is {asked[:100]!r}; this server has {', '.join(map(repr, names))}.",
                field="model",
            )

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        document = await self._document(request, CompletionRequest)
        service = self._service
        began = monotonic()
        ids = await self._completion_prompt(document)
        length = answer_length(
            len(ids), document.max_tokens, _DEFAULT_COMPLETION_TOKENS, "max_tokens", service.settings
        )
        generation = self._generation(document, ids, length, document.logprobs, began)
        return await self._answer(request, document, generation, _Completion(document.model))

    async def _completion_prompt(self, document: CompletionRequest) -> list[int]:
        service, prompt = self._service, document.prompt
        if isinstance(prompt, str):
            return await tokenize(service.model, prompt, "prompt", service.settings)
        numbers = [item for item in prompt if isinstance(item, int)]
        if len(numbers) == len(prompt):
            return check_ids(numbers, service.model, "prompt", service.settings)
        (text,) = (item for item in prompt if isinstance(item, str))
        return await tokenize(service.model, text, "prompt", service.settings)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        document = await self._document(request, ChatRequest)
        service = self._service
        began = monotonic()
        ids = await render(service.model, [message.plain() for message in document.messages], service.settings)
        if document.max_tokens is not None and document.max_completion_tokens is not None:
            raise invalid("max_tokens and max_completion_tokens are the same; set one of them.", "max_tokens")
        field = "max_tokens" if document.max_completion_tokens is None else "max_completion_tokens"
        asked = document.max_tokens if document.max_completion_tokens is None else document.max_completion_tokens
        length = answer_length(len(ids), asked, None, field, service.settings)
        top = (document.top_logprobs or 0) if document.logprobs else None
        generation = self._generation(document, ids, length, top, began)
        return await self._answer(request, document, generation, _Chat(document.model))

    async def _document(self, request: web.Request, kind: type[Read]) -> Read:
        settings = self._service.settings
        body = await read_json(request, max_bytes=settings.max_body_bytes, timeout_s=settings.read_timeout_s)
        document = read_document(kind, body)
        assert isinstance(document, OpenAiRequest)
        self._check_model(document.model)
        document.check()
        return document

    def _generation(
        self, asked: OpenAiRequest, ids: list[int], length: int, top_logprobs: int | None, began: float
    ) -> Generation:
        metrics = self._service.metrics
        metrics.input_length.observe(len(ids))
        metrics.max_new_tokens.observe(length)
        metrics.validation_duration.observe(monotonic() - began)
        return Generation(
            prompt_ids=ids,
            max_new_tokens=length,
            seed=random.getrandbits(32) if asked.seed is None else asked.seed,
            stop=check_stops(asked.stops, "stop", self._service.settings),
            temperature=1.0 if asked.temperature is None else asked.temperature,
            top_k=asked.top_k,
            top_p=asked.top_p,
            min_p=asked.min_p,
            repetition_penalty=1.0 if asked.repetition_penalty is None else asked.repetition_penalty,
            frequency_penalty=asked.frequency_penalty or 0.0,
            presence_penalty=asked.presence_penalty or 0.0,
            logit_bias=self._biases(asked),
            top_logprobs=top_logprobs,
            adapter=asked.model if asked.model in self._service.settings.adapters else None,
        )

    def _biases(self, asked: OpenAiRequest) -> dict[int, float]:
        entries = len(self._service.model.tokenizer)
        biases = {}
        for token, bias in (asked.logit_bias or {}).items():
            if not token.isdecimal() or int(token) >= entries or not -100 <= bias <= 100:
                raise invalid(
                    f"logit_bias holds {token[:20]!r}: {bias}; write token ids below {entries} with -100 to 100.",
                    "logit_bias",
                )
            biases[int(token)] = bias
        return biases

    async def _answer(
        self, request: web.Request, document: OpenAiRequest, generation: Generation, shape: "_Shape"
    ) -> web.StreamResponse:
        if document.stream:
            return await self._stream(request, document, generation, shape)
        answer = await self._service.answer(generation, request["arrived"])
        request["ending"] = answer.ending
        return web.json_response(shape.whole(answer.text, list(answer.pieces), answer.ending, generation))

    async def _stream(
        self, request: web.Request, document: OpenAiRequest, generation: Generation, shape: "_Shape"
    ) -> web.StreamResponse:
        usage = document.stream_options is not None and document.stream_options.include_usage
        async with (
            EventStream(request, self._service.settings.write_timeout_s) as stream,
            aclosing(self._service.run(generation, request["arrived"])) as events,
        ):
            try:
                async for event in events:
                    if isinstance(event, Piece):
                        await stream.send(shape.chunk(event, generation))
                        continue
                    request["ending"] = event
                    await stream.send(shape.last_chunk(event))
                    if usage:
                        await stream.send(shape.usage_chunk(event))
                    await stream.done()
                    break
            except Refusal as refusal:
                if not stream.begun:
                    raise
                await stream.send(error_body(refusal))
        return stream.response


class _Shape:
    """What completions and chat completions write alike."""

    prefix: str
    object: str
    chunk_object: str

    def __init__(self, model: str) -> None:
        self._id = f"{self.prefix}-{secrets.token_hex(12)}"
        self._model = model
        self._created = int(time())

    def whole(self, text: str, pieces: list[Piece], ending: Ending, generation: Generation) -> dict[str, Any]:
        logprobs = self.logprobs(pieces) if generation.top_logprobs is not None else None
        choice = {"index": 0, **self.message(text), "logprobs": logprobs, "finish_reason": _finish(ending)}
        return self._envelope(self.object, [choice]) | {"usage": _usage(ending)}

    def chunk(self, piece: Piece, generation: Generation) -> dict[str, Any]:
        logprobs = self.logprobs([piece]) if generation.top_logprobs is not None else None
        choice = {"index": 0, **self.delta(piece.text), "logprobs": logprobs, "finish_reason": None}
        return self._envelope(self.chunk_object, [choice])

    def last_chunk(self, ending: Ending) -> dict[str, Any]:
        choice = {"index": 0, **self.delta(""), "logprobs": None, "finish_reason": _finish(ending)}
        return self._envelope(self.chunk_object, [choice])

    def usage_chunk(self, ending: Ending) -> dict[str, Any]:
        return self._envelope(self.chunk_object, []) | {"usage": _usage(ending)}

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": _FINGERPRINT,
            "choices": choices,
        }

    message: Callable[[str], dict[str, Any]]
    delta: Callable[[str], dict[str, Any]]
    logprobs: Callable[[list[Piece]], dict[str, Any]]


class _Completion(_Shape):
    prefix, object, chunk_object = "cmpl", "text_completion", "text_completion"

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self._written = 0

    def message(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def delta(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def logprobs(self, pieces: list[Piece]) -> dict[str, Any]:
        offsets = []
        for piece in pieces:
            offsets.append(self._written)
            self._written += len(piece.text)
        return {
            "tokens": [piece.text for piece in pieces],
            "token_logprobs": [piece.logprob for piece in pieces],
            "top_logprobs": [{item.text: item.logprob for item in piece.likely} for piece in pieces],
            "text_offset": offsets,
        }


class _Chat(_Shape):
    prefix, object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self._begun = False

    def message(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}}

    def delta(self, text: str) -> dict[str, Any]:
        """The first says who speaks."""
        role = {} if self._begun else {"role": "assistant"}
        self._begun = True
        return {"delta": {**role, "content": text}}

    def logprobs(self, pieces: list[Piece]) -> dict[str, Any]:
        return {
            "content": [
                {
                    "token": piece.text,
                    "logprob": piece.logprob,
                    "bytes": list(piece.text.encode()),
                    "top_logprobs": [
                        {"token": item.text, "logprob": item.logprob, "bytes": list(item.text.encode())}
                        for item in piece.likely
                    ],
                }
                for piece in pieces
            ]
        }


def _finish(ending: Ending) -> str:
    return "length" if ending.reason == "length" else "stop"


def _usage(ending: Ending) -> dict[str, Any]:
    return {
        "prompt_tokens": ending.prompt_tokens,
        "completion_tokens": ending.generated_tokens,
        "total_tokens": ending.prompt_tokens + ending.generated_tokens,
        "prompt_tokens_details": {"cached_tokens": ending.reused_tokens},
    }
