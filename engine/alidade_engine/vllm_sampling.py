"""Answers drawn by vLLM, behind the interface of `alidade_engine.sampling.Sampler`.

vLLM runs inside the process that trains, one engine in each, and gets the model's weights before every call, so that it
draws from the newest ones. Between calls it sleeps, which on a GPU gives back the memory of its weights, keys and
values.

What differs from `Sampler`: the random numbers are vLLM's own, so that a seed gives the same samples on the same engine
and others on the other; LoRA is folded into the weights, which rounds it to their format (in bfloat16 by 1/256 of a
weight at most); log-probabilities are not told.
"""

import importlib
import importlib.util
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alidade_crds.reasons import FailureReason
from alidade_engine.drawing import SamplingParams
from alidade_engine.failures import JobFailure
from alidade_engine.llama_decoding import causal_model
from alidade_engine.sampling import Completion, check_asked, completed, length_limit
from alidade_engine.templates import stop_token_ids

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Models whose weights vLLM takes by the names they have in transformers; each was compared with `Sampler`."""
ENVIRONMENT = {
    # In a process of its own the engine could not read the weights of this one.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # Its notes on how it starts, and on the CPU its warnings that it cannot sleep there, would fill a job's log.
    "VLLM_LOGGING_LEVEL": "ERROR",
}
"""What vLLM reads while it starts."""
ROWS = 256
"""Answers that are drawn at once: vLLM's own default for offline use."""
MOST_CACHE_BYTES = 8 * 2**30
"""Of keys and values, beside a model under training. Rows for which there is no room wait."""
BLOCK_TOKENS = 128
"""The largest block in which vLLM hands out places for keys and values (that of its CPU kernels)."""
MOST_TEMPERATURE = 2.0
"""What vLLM takes; the platform's own bound is higher."""
MEMORY_SHARE = 0.1
"""Of the GPU that has to be free at the start; how much is taken, weights and cache decide."""


def is_installed() -> bool:
    """Whether the package vllm is here. It is looked for and not imported, which takes seconds."""
    return importlib.util.find_spec("vllm") is not None


def refuse_missing(wish: str) -> None:
    """Raises JobFailure (ConfigInvalid) when vLLM is asked for and not here."""
    if wish == "vllm" and not is_installed():
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            "generation.engine is vllm, but this image lacks the Python package vllm. Set compute.image to an image "
            "that has it, or generation.engine to native.",
        )


def choose_engine(
    wish: Literal["auto", "native", "vllm"], model: nn.Module, *, temperature: float, on_gpu: bool
) -> Literal["native", "vllm"]:
    """What samples: vLLM when asked for, or under auto where a GPU and the package are there and it can serve.

    Raises JobFailure (ConfigInvalid) when vLLM is asked for and cannot serve.
    """
    refuse_missing(wish)
    architecture = type(causal_model(model)).__name__
    obstacle = None
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        obstacle = f"the model is a {architecture}; weights under training are handed to vLLM for {known} only"
    elif temperature > MOST_TEMPERATURE:
        obstacle = f"temperature is {temperature}; vLLM takes at most {MOST_TEMPERATURE}"
    if wish == "vllm" and obstacle is not None:
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"generation.engine is vllm, but {obstacle}. Set generation.engine to native.",
        )
    serves = on_gpu and obstacle is None and is_installed()
    return "vllm" if wish == "vllm" or (wish == "auto" and serves) else "native"


def request_seed(seed: int, prompt: int, sample: int) -> int:
    """63 bits, made from seed, prompt's key and sample's number, in which neighbours share nothing."""
    return int(np.random.SeedSequence([seed, prompt, sample]).generate_state(1, np.uint64)[0]) >> 1


def request_settings(params: SamplingParams, stops: Sequence[int], *, max_tokens: int, seed: int) -> dict[str, Any]:
    """Arguments of vLLM's SamplingParams for one answer. What ends it is told and never guessed from a tokenizer."""
    return {
        "max_tokens": max_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k,
        "repetition_penalty": params.repetition_penalty,
        "seed": seed,
        "stop_token_ids": list(stops),
        "ignore_eos": True,
        "detokenize": False,
    }


def has_stopped(finish_reason: str | None) -> bool:
    """Whether the model ended the answer (True) or a limit did. Raises RuntimeError for every other end."""
    if finish_reason not in ("stop", "length"):
        raise RuntimeError(f"vLLM ended an answer with {finish_reason}; it must be stop or length.")
    return finish_reason == "stop"


def cache_bytes(config: Any, dtype: torch.dtype, *, rows: int, length: int) -> int:
    """Memory for keys and values of so many rows of so many tokens, at most MOST_CACHE_BYTES, at least one row's."""
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_token: int = 2 * config.num_hidden_layers * config.num_key_value_heads * head_size * dtype.itemsize
    row = -(-length // BLOCK_TOKENS) * BLOCK_TOKENS * per_token
    spare = BLOCK_TOKENS * per_token  # vLLM keeps one block for itself
    return max(min(rows * row, MOST_CACHE_BYTES), row) + spare


@torch.no_grad()
def whole_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The causal language model's weights by their names in a checkpoint, with LoRA folded in.

    One at a time, so that only one folded weight is in memory; the model stays as it is. Tied weights come under each
    of their names.
    """
    modules = dict(causal_model(model).named_modules(remove_duplicate=False))
    for full_name, weight in causal_model(model).named_parameters(remove_duplicate=False):
        owner, _, name = full_name.rpartition(".")
        place = _place_in_checkpoint(modules, owner)
        if place is None:
            continue
        layer = modules[place]
        if isinstance(layer, LoraLayer) and name == "weight":
            yield f"{place}.{name}", _folded(layer, weight)
        else:
            yield f"{place}.{name}", weight.detach()


def _place_in_checkpoint(modules: Mapping[str, nn.Module], owner: str) -> str | None:
    """The module's name without peft's wrappers; None for what a checkpoint does not hold, such as LoRA's own weights.

    LoRA makes `q_proj.base_layer` of `q_proj`; a head that is trained whole is `lm_head.modules_to_save.default`.
    """
    parts = owner.split(".")
    for depth in range(1, len(parts)):
        outer = ".".join(parts[:depth])
        layer, inner = modules[outer], ".".join(parts[depth:])
        if isinstance(layer, BaseTunerLayer):
            return outer if inner == "base_layer" else None
        if isinstance(layer, AuxiliaryTrainingWrapper):
            trained = [f"modules_to_save.{adapter}" for adapter in layer.active_adapters]
            return outer if inner in trained else None
    return owner


def _folded(layer: Any, weight: Tensor) -> Tensor:
    """Weight + LoRA, summed in float32 and rounded once."""
    if layer.merged or layer.disable_adapters:
        return weight.detach()
    total = weight.float()
    for adapter in layer.active_adapters:
        if adapter in layer.lora_A:
            total = total + layer.get_delta_weight(adapter).float()
    return total.to(weight.dtype)


@dataclass(frozen=True)
class _Settings:
    """What an engine is made for; config: of the model, as JSON."""

    config: str
    dtype: torch.dtype
    max_length: int
    rows: int
    cache_bytes: int


class VllmSampler:
    """Draws from a model of transformers by vLLM.

    max_length: most tokens of a prompt and its answer together; None for the model's context. rows: answers drawn at
    once. template: whose end token ends answers. The weights are read at every call and must be whole then, as
    `Sampler` says. Under torch.distributed every process has to make its first call, also with nothing to draw: the
    engines meet when they start.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int | None = None,
        rows: int = ROWS,
        template: str = "auto",
    ) -> None:
        if rows < 1:
            raise ValueError(f"rows is {rows}; it must be at least 1.")
        self._model = model
        self._tokenizer = tokenizer
        self._limit = length_limit(model, max_length)
        self._rows = rows
        self._template = template

    def sample(
        self,
        prompt_token_ids: Sequence[Sequence[int]],
        params: SamplingParams,
        *,
        samples_per_prompt: int = 1,
        seed: int = 0,
        prompt_keys: Sequence[int] | None = None,
        drawn: Mapping[tuple[int, int], Completion] | None = None,
        on_completion: Callable[[int, int, Completion], None] | None = None,
    ) -> list[list[Completion]]:
        """samples_per_prompt completions of each prompt, both in order; see `Sampler.sample`.

        Raises ValueError as that does, and for params with log-probabilities or a temperature above MOST_TEMPERATURE.
        """
        check_asked(prompt_token_ids, samples_per_prompt, seed, prompt_keys, self._limit)
        _check_params(params)
        prompts = [list(prompt) for prompt in prompt_token_ids]
        keys = prompt_keys or range(len(prompts))
        done: dict[tuple[int, int], Completion] = dict(drawn or {})

        def finish(place: int, sample: int, tokens: list[int], stopped: bool) -> None:
            done[place, sample] = completed(self._tokenizer, prompts[place], tokens, stopped=stopped)
            if on_completion is not None:
                on_completion(place, sample, done[place, sample])

        stops = params.stop_token_ids
        stops = tuple(stop_token_ids(self._tokenizer, self._template)) if stops is None else stops
        requests: dict[str, tuple[int, int, dict[str, Any]]] = {}
        for place, prompt in enumerate(prompts):
            room = min(params.max_new_tokens, self._limit.tokens - len(prompt))
            for sample in range(samples_per_prompt):
                if (place, sample) in done:
                    continue
                own = request_seed(seed, keys[place], sample)
                settings = request_settings(params, stops, max_tokens=room, seed=own)
                requests[f"{place}-{sample}"] = place, sample, settings
        self._run(prompts, requests, finish)
        return [[done[place, sample] for sample in range(samples_per_prompt)] for place in range(len(prompts))]

    def _run(
        self,
        prompts: list[list[int]],
        requests: dict[str, tuple[int, int, dict[str, Any]]],
        finish: Callable[[int, int, list[int], bool], None],
    ) -> None:
        with _untouched_randomness():
            llm = _running(self._settings())
        for name in [name for name, (_, _, settings) in requests.items() if settings["max_tokens"] == 0]:
            place, sample, _ = requests.pop(name)
            finish(place, sample, [], False)
        if not requests:
            return
        with _untouched_randomness(), _awake(llm, self._model):
            for name, (place, _, settings) in requests.items():
                llm.llm_engine.add_request(name, {"prompt_token_ids": prompts[place]}, _vllm_params(settings))
            try:
                while requests:
                    for output in llm.llm_engine.step():
                        place, sample, _ = requests.pop(output.request_id)
                        (answer,) = output.outputs
                        finish(place, sample, list(answer.token_ids), has_stopped(answer.finish_reason))
            finally:
                llm.llm_engine.abort_request(list(requests))

    def _settings(self) -> _Settings:
        own = causal_model(self._model)
        # Tied, vLLM's CPU kernels would go on with the output head's first weights (measured, 0.32): they have a copy.
        config = {**own.config.to_dict(), "architectures": [type(own).__name__], "tie_word_embeddings": False}
        length = self._limit.tokens
        size = cache_bytes(own.config, own.dtype, rows=self._rows, length=length)
        return _Settings(json.dumps(config, sort_keys=True, default=str), own.dtype, length, self._rows, size)


def _check_params(params: SamplingParams) -> None:
    if params.logprobs:
        raise ValueError("logprobs is True; vLLM's sampler does not tell them. Score the answers instead.")
    if params.temperature > MOST_TEMPERATURE:
        raise ValueError(f"temperature is {params.temperature}; vLLM takes at most {MOST_TEMPERATURE}.")


def _vllm_params(settings: Mapping[str, Any]) -> Any:
    vllm: Any = importlib.import_module("vllm.sampling_params")
    return vllm.SamplingParams(**settings, output_kind=vllm.RequestOutputKind.FINAL_ONLY)


@cache
def _running(settings: _Settings) -> Any:
    """A sleeping `vllm.LLM` of that kind, with weights that mean nothing.

    It lives as long as the process, and samplers of the same kind share it: when one ends, it takes along
    torch.distributed's groups, which are the training's.
    """
    with _environment(), tempfile.TemporaryDirectory() as folder:
        vllm: Any = importlib.import_module("vllm")
        (Path(folder) / "config.json").write_text(settings.config)
        llm = vllm.LLM(
            model=folder,
            load_format="dummy",
            skip_tokenizer_init=True,
            generation_config="vllm",
            dtype=str(settings.dtype).removeprefix("torch."),
            max_model_len=settings.max_length,
            max_num_seqs=settings.rows,
            kv_cache_memory_bytes=settings.cache_bytes,
            gpu_memory_utilization=MEMORY_SHARE,
            enable_prefix_caching=True,  # a prompt is read once for all its samples, but for its last block
            enforce_eager=True,
            enable_sleep_mode=torch.cuda.is_available(),
            distributed_executor_backend="external_launcher" if _has_peers() else "uni",
        )
    # At the process's end it would look for groups that are gone by then, and print a trace.
    llm.llm_engine.engine_core._finalizer.atexit = False
    llm.sleep(level=2)
    return llm


def _has_peers() -> bool:
    """Whether this process trains with others; then vLLM has to join their torch.distributed, on this one's GPU."""
    return torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1


@contextmanager
def _awake(llm: Any, model: nn.Module) -> Iterator[None]:
    """Within it the engine has the model's newest weights; sleeping again, it forgets them and all it has computed."""
    llm.wake_up(tags=["weights"])
    llm.collective_rpc("reload_weights", kwargs={"weights_iterator": whole_weights(model)})
    llm.wake_up(tags=["kv_cache"])
    try:
        yield
    finally:
        llm.sleep(level=2)


@contextmanager
def _environment() -> Iterator[None]:
    """ENVIRONMENT within it, and afterwards what was there before."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _untouched_randomness() -> Iterator[None]:
    """Leaves the process's random states as they were: vLLM seeds all of them anew when it starts."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
