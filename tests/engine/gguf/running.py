"""llama.cpp itself with a file, asked directly."""

import json
import os
import urllib.request
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import xllamacpp


class LlamaCpp:
    """One thread, one slot."""

    def __init__(self, path: Path) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = 256
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        # Keys and values as exact as transformers keeps them, so that answers can be compared token by token.
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.warmup, params.ui, params.endpoint_slots = False, False, False
        params.cache_ram_mib, params.verbosity = 0, -1
        self._server = xllamacpp.Server(params)

    def close(self) -> None:
        del self._server

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a text, with those that the tokenizer itself adds."""
        answer = self._ask("tokenize", content=text, add_special=True, parse_special=True)
        tokens: list[int] = answer["tokens"]
        return tokens

    def greedy(self, ids: list[int], tokens: int) -> list[int]:
        """The likeliest tokens after a prompt, at most so many."""
        return self.answer(ids, tokens)[0]

    def answer(self, ids: list[int], tokens: int) -> tuple[list[int], str]:
        """The likeliest tokens after a prompt, and why they ended: limit, eos or word."""
        answer = self._ask("completion", prompt=ids, n_predict=tokens, temperature=0, return_tokens=True)
        return answer["tokens"], answer["stop_type"]

    def _ask(self, route: str, **body: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self._server.listening_address}/{route}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            document: dict[str, Any] = json.load(answer)
        return document
