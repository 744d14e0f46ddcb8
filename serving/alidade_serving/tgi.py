"""text-generation-inference's HTTP API: `/`, `/generate`, `/generate_stream`, `/tokenize`, `/info`."""

import random
from collections.abc import Sequence
from contextlib import aclosing
from importlib.metadata import version
from time import monotonic
from typing import Any

from aiohttp import web

from alidade_serving.documents import TgiParameters, TgiRequest, TokenizeRequest, read_document
from alidade_serving.front.bodies import read_json
from alidade_serving.front.refusals import Refusal, invalid
from alidade_serving.front.streaming import EventStream
from alidade_serving.generation import Answer, Ending, Generation, Piece
from alidade_serving.prompts import answer_length, check_stops, tokenize
from alidade_serving.service import Service

# What text-generation-inference takes when max_new_tokens is not given.
_DEFAULT_NEW_TOKENS = 100


class TgiApi:
    """Handlers over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[web.RouteDef]:
        """Every route of this API that needs the model."""
        return [
            web.post("/", self._compatible),
            web.post("/generate", self._generate),
            web.post("/generate_stream", self._generate_stream),
            web.post("/tokenize", self._tokenize),
            web.get("/info", self._info),
        ]

    async def _compatible(self, request: web.Request) -> web.StreamResponse:
        """The inference API's route: a list, or a stream when asked for."""
        document = await self._document(request)
        if document.stream:
            return await self._stream(request, document)
        return web.json_response([await self._whole(request, document)])

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(await self._whole(request, await self._document(request)))

    async def _generate_stream(self, request: web.Request) -> web.StreamResponse:
        return await self._stream(request, await self._document(request))

    async def _document(self, request: web.Request) -> TgiRequest:
        settings = self._service.settings
        body = await read_json(request, max_bytes=settings.max_body_bytes, timeout_s=settings.read_timeout_s)
        document = read_document(TgiRequest, body)
        document.parameters.check()
        adapter = document.parameters.adapter_id
        if adapter is not None and adapter not in settings.adapters:
            known = ", ".join(settings.adapters) or "none"
            raise invalid(f"parameters.adapter_id is {adapter[:100]!r}; adapters served beside the model: {known}.")
        return document

    async def _generation(self, document: TgiRequest) -> Generation:
        began = monotonic()
        service, asked = self._service, document.parameters
        stop = check_stops(asked.stop or [], "parameters.stop", service.settings)
        ids = await tokenize(service.model, document.inputs, "inputs", service.settings, truncate=asked.truncate)
        length = answer_length(
            len(ids), asked.max_new_tokens, _DEFAULT_NEW_TOKENS, "parameters.max_new_tokens", service.settings
        )
        service.metrics.input_length.observe(len(ids))
        service.metrics.max_new_tokens.observe(length)
        service.metrics.validation_duration.observe(monotonic() - began)
        return Generation(
            prompt_ids=ids,
            max_new_tokens=length,
            seed=random.getrandbits(32) if asked.seed is None else asked.seed,
            stop=stop,
            temperature=(1.0 if asked.temperature is None else asked.temperature) if asked.samples else 0.0,
            top_k=asked.top_k,
            top_p=asked.top_p,
            typical_p=asked.typical_p,
            repetition_penalty=1.0 if asked.repetition_penalty is None else asked.repetition_penalty,
            frequency_penalty=asked.frequency_penalty or 0.0,
            top_logprobs=asked.top_n_tokens or 0,
            adapter=asked.adapter_id,
        )

    async def _whole(self, request: web.Request, document: TgiRequest) -> dict[str, Any]:
        generation = await self._generation(document)
        answer = await self._service.answer(generation, request["arrived"])
        request["ending"] = answer.ending
        written: dict[str, Any] = {"generated_text": _full_text(document, answer)}
        if document.parameters.details:
            written["details"] = self._details(answer, generation, document.parameters)
        return written

    async def _stream(self, request: web.Request, document: TgiRequest) -> web.StreamResponse:
        generation = await self._generation(document)
        settings = self._service.settings
        pieces: list[Piece] = []
        async with (
            EventStream(request, settings.write_timeout_s) as stream,
            aclosing(self._service.run(generation, request["arrived"])) as events,
        ):
            try:
                async for event in events:
                    if isinstance(event, Ending):
                        request["ending"] = event
                        await stream.send(self._last(document, generation, Answer(tuple(pieces), event)))
                        break
                    pieces.append(event)
                    if event.generated < generation.max_new_tokens:
                        await stream.send(self._event(len(pieces), event, document.parameters))
            except Refusal as refusal:
                if not stream.begun:
                    raise
                await stream.send({"error": refusal.message, "error_type": refusal.kind})
        return stream.response

    def _event(self, index: int, piece: Piece, parameters: TgiParameters) -> dict[str, Any]:
        event = {"index": index, "token": self._token(piece), "generated_text": None, "details": None}
        if parameters.top_n_tokens:
            event["top_tokens"] = self._top(piece)
        return event

    def _last(self, document: TgiRequest, generation: Generation, answer: Answer) -> dict[str, Any]:
        """The event that ends a stream: it has the last token that was allowed, or the one that ended the answer.

        The engine does not show the latter: a stop sequence is shown under its own last token, everything else (EOS,
        and a last token that begins a character which was never finished) under EOS, both without a log-probability.
        """
        ending = answer.ending
        if answer.pieces and answer.pieces[-1].generated >= generation.max_new_tokens:
            event = self._event(len(answer.pieces), answer.pieces[-1], document.parameters)
        else:
            tokenizer = self._service.model.tokenizer
            ids = [tokenizer.eos_token_id]
            if ending.stop_sequence:
                ids = tokenizer(ending.stop_sequence, add_special_tokens=False)["input_ids"]
            token = {
                "id": ids[-1],
                "text": ending.stop_sequence,
                "logprob": None,
                "special": not ending.stop_sequence,
            }
            event = {"index": len(answer.pieces) + 1, "token": token}
        return event | {
            "generated_text": _full_text(document, answer),
            "details": {
                "finish_reason": ending.reason,
                "generated_tokens": ending.generated_tokens,
                "input_length": ending.prompt_tokens,
                "seed": _shown_seed(document.parameters, generation),
            },
        }

    def _details(self, answer: Answer, generation: Generation, parameters: TgiParameters) -> dict[str, Any]:
        details: dict[str, Any] = {
            "finish_reason": answer.ending.reason,
            "generated_tokens": answer.ending.generated_tokens,
            "seed": _shown_seed(parameters, generation),
            "prefill": [],
            "tokens": [self._token(piece) for piece in answer.pieces],
        }
        if parameters.top_n_tokens:
            details["top_tokens"] = [self._top(piece) for piece in answer.pieces]
        return details

    def _token(self, piece: Piece) -> dict[str, Any]:
        special = piece.token_id in self._service.model.special_ids
        return {"id": piece.token_id, "text": piece.text, "logprob": piece.logprob, "special": special}

    def _top(self, piece: Piece) -> list[dict[str, Any]]:
        special = self._service.model.special_ids
        return [
            {"id": item.id, "text": item.text, "logprob": item.logprob, "special": item.id in special}
            for item in piece.likely
        ]

    async def _tokenize(self, request: web.Request) -> web.Response:
        """Tokens of a text with the characters that each covers; null for those that the tokenizer adds."""
        service = self._service
        settings = service.settings
        body = await read_json(request, max_bytes=settings.max_body_bytes, timeout_s=settings.read_timeout_s)
        document = read_document(TokenizeRequest, body)
        await tokenize(service.model, document.inputs, "inputs", settings)
        encoded = service.model.tokenizer(
            document.inputs, add_special_tokens=document.add_special_tokens, return_offsets_mapping=True
        )
        texts = service.model.tokenizer.convert_ids_to_tokens(encoded["input_ids"])
        return web.json_response(_spans(document.inputs, encoded["input_ids"], encoded["offset_mapping"], texts))

    async def _info(self, request: web.Request) -> web.Response:  # noqa: ARG002 a handler's signature
        service, settings = self._service, self._service.settings
        return web.json_response(
            {
                "model_id": settings.name,
                "model_sha": service.model.digest or None,
                "model_dtype": settings.quantization if not settings.model.is_file() else "gguf",
                "model_device_type": "cpu",
                "model_pipeline_tag": "text-generation",
                "max_concurrent_requests": settings.max_concurrent_requests,
                "max_best_of": 1,
                "max_stop_sequences": settings.max_stop_sequences,
                "max_input_tokens": settings.max_input_tokens,
                "max_total_tokens": settings.max_total_tokens,
                "max_client_batch_size": 1,
                "validation_workers": 1,
                "router": "alidade-serve",
                "version": version("alidade-serving"),
            }
        )


def _full_text(document: TgiRequest, answer: Answer) -> str:
    """With the stop sequence that ended it, as text-generation-inference has it, and the prompt when asked for."""
    prompt = document.inputs if document.parameters.return_full_text else ""
    return prompt + answer.text + answer.ending.stop_sequence


def _shown_seed(parameters: TgiParameters, generation: Generation) -> int | None:
    return generation.seed if parameters.samples or parameters.seed is not None else None


def _spans(
    text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Tokens without characters of their own, such as BOS, are shown by name and stand nowhere."""
    return [
        {
            "id": number,
            "text": text[start:stop] if stop > start else name,
            "start": start if stop > start else None,
            "stop": stop if stop > start else None,
        }
        for number, (start, stop), name in zip(ids, offsets, names, strict=True)
    ]
