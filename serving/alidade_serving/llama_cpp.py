"""llama.cpp's server inside this process, reached over a socket file that only this user can open.

Its own HTTP front has no bounded queue, accepts parameters out of range and cuts streams at SIGTERM:
what clients see is ours, what generates is its.
"""

import json
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import orjson

from alidade_serving.front.refusals import failed, incomplete
from alidade_serving.generation import Ending, Generation, Likely, Piece
from alidade_serving.settings import Settings

_REASONS = {"limit": "length", "eos": "eos_token", "word": "stop_sequence"}


class LlamaCpp:
    """A model in memory with a number of slots that generate together, a batch per step (continuous batching)."""

    def __init__(self, server: Any, folder: TemporaryDirectory[str], address: Path, adapters: Sequence[str]) -> None:
        self._server = server
        self._folder = folder
        self._adapters = list(adapters)
        # A connection per request: llama.cpp closes those that it has streamed on.
        connector = aiohttp.UnixConnector(str(address), limit=0, force_close=True)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=None), cookie_jar=aiohttp.DummyCookieJar()
        )

    @staticmethod
    def load(
        model: Path, draft: Path | None, adapters: Sequence[Path], settings: Settings
    ) -> tuple[Any, TemporaryDirectory[str], Path]:
        """Reads the model, which takes a while: call it on a thread. Raises RuntimeError when it cannot be read."""
        # Threads of OpenMP that spin while they wait would take the cores from everyone else; read once, at loading.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        os.environ.setdefault("GOMP_SPINCOUNT", "0")
        import xllamacpp

        folder = TemporaryDirectory(prefix="alidade-serve-")  # mode 0700
        address = Path(folder.name) / "engine"
        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.hostnames = [str(address) + ".sock"]
        params.n_parallel = settings.slots
        params.n_ctx = settings.slots * settings.max_total_tokens  # llama.cpp divides it by the slots
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings.threads
        params.n_gpu_layers = 0
        params.cont_batching = params.cache_prompt = True
        # Prompts of ended requests kept aside in memory, 8 GiB by default, would look like a leak.
        params.cache_ram_mib = 0
        params.ui = params.endpoint_slots = params.endpoint_props = False
        params.verbosity = -1
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 0.0) for adapter in adapters]
        params.lora_init_without_apply = True
        _speculate(params, xllamacpp, draft, settings)
        return xllamacpp.Server(params), folder, Path(params.hostnames[0])

    async def generate(self, generation: Generation) -> AsyncGenerator[Piece | Ending, None]:
        """Pieces as they come, then the ending. Leaving the iteration early frees the slot.

        Raises Refusal: 424 when the engine refuses, 500 when it ends without an ending.
        """
        try:
            async with self._session.post("http://engine/completion", json=self._document(generation)) as answer:
                if answer.status != HTTPStatus.OK:
                    raise failed(_message(await answer.text()))
                async for line in _lines(answer.content):
                    if not line.startswith(b"data: {"):
                        if line.startswith(b"error: "):
                            raise failed(_message(line[7:].decode()))
                        continue
                    event = _read(orjson.loads(line[6:]))
                    yield event
                    if isinstance(event, Ending):
                        return
        except aiohttp.ClientError as error:
            raise incomplete(f"The engine ended before the answer did ({type(error).__name__}).") from error
        raise incomplete("The engine ended before the answer did.")

    def _document(self, generation: Generation) -> dict[str, Any]:
        """With every adapter on or off, and no prompt kept when there are any.

        llama.cpp takes keys and values that a slot computed under one adapter for a prompt under another.
        """
        document = generation.document()
        if self._adapters:
            document["lora"] = [
                {"id": number, "scale": float(name == generation.adapter)} for number, name in enumerate(self._adapters)
            ]
            document["cache_prompt"] = False
        return document

    async def close(self) -> None:
        """Ends the engine and frees its memory."""
        await self._session.close()
        self._server = None
        with suppress(OSError):
            self._folder.cleanup()


def _speculate(params: Any, xllamacpp: Any, draft: Path | None, settings: Settings) -> None:
    """Speculative decoding (Leviathan et al. 2023): proposals are verified, so the distribution stays the model's."""
    kinds = xllamacpp.common_speculative_type
    if draft is not None:
        params.speculative.types = [kinds.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
        params.speculative.draft.mparams.path = str(draft)
        params.speculative.draft.n_max = settings.draft_tokens
        params.speculative.draft.cpuparams.n_threads = settings.threads
        params.speculative.draft.cpuparams_batch.n_threads = settings.threads
    elif settings.prompt_lookup_tokens:
        params.speculative.types = [kinds.COMMON_SPECULATIVE_TYPE_NGRAM_SIMPLE]
        # Three tokens in a row that stood in the text before: fewer are found too often to be right.
        params.speculative.ngram_simple.size_n = 3
        params.speculative.ngram_simple.size_m = settings.prompt_lookup_tokens


async def _lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes, None]:
    """The lines that are not empty, as they come: an event is one, and arrives whole as a rule."""
    begun = b""
    async for data in content.iter_any():
        *whole, begun = (begun + data).split(b"\n")
        for line in whole:
            if line:
                yield line


def _message(body: str) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200] or "The engine refused without a word."


def _read(event: dict[str, Any]) -> Piece | Ending:
    if event.get("error"):
        raise failed(str(event["error"].get("message", event["error"])))
    if not event["stop"]:
        chosen = (event.get("completion_probabilities") or [None])[-1]
        likely = chosen["top_logprobs"] if chosen else []
        return Piece(
            text=event["content"],
            token_id=event["tokens"][-1],
            logprob=chosen["logprob"] if chosen else None,
            likely=tuple(Likely(item["id"], item["token"], item["logprob"]) for item in likely),
            generated=event["tokens_predicted"],
        )
    timings = event["timings"]
    return Ending(
        reason=_REASONS.get(event["stop_type"], "length"),
        stop_sequence=event["stopping_word"],
        prompt_tokens=event["tokens_evaluated"],
        reused_tokens=timings["cache_n"],
        generated_tokens=event["tokens_predicted"],
        drafted_tokens=timings.get("draft_n", 0),
        accepted_tokens=timings.get("draft_n_accepted", 0),
    )
