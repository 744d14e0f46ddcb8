"""A decode path for the llama family that does only what one new token needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    LlamaForCausalLM,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen3ForCausalLM,
)

from alidade_engine.decoding import Prefilled, compaction

_FAMILY = (LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
# Rotary embeddings whose angles depend on the position alone; "dynamic" and "longrope" change with the longest row.
_STEADY_ROTARY = frozenset({"default", "linear", "llama3", "yarn"})
# Attention looks at whole blocks of the cache, so that its kernels see few shapes, aligned as CUDA's want them.
_BLOCK = 32
# CPU kernels sum in one order for 4 rows of a matrix and more, and for 16 positions of causal attention and multiples
# of that, in others between (measured, one thread, float32 and bfloat16): padded to these, a row's logits are the same
# to the last bit whatever runs beside it.
FEWEST_ROWS = 4
_PROMPT_BLOCK = 16


def causal_model(model: PreTrainedModel) -> Any:
    """The causal language model itself, without the adapters around it."""
    unwrap = getattr(model, "get_base_model", None)
    return unwrap() if unwrap is not None else model


def supports(model: PreTrainedModel, length: int) -> bool:
    """Whether LlamaDecoder computes what the model's forward computes, for rows of up to so many tokens."""
    own = causal_model(model)
    if type(own) not in _FAMILY:
        return False
    config = own.config
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"])
    slides = kinds != {"full_attention"} and (window is None or window < length)
    return not slides and own.model.rotary_emb.rope_type in _STEADY_ROTARY and not _offloaded(own)


def _offloaded(model: Any) -> bool:
    """Whether parts of the model are elsewhere until their forward is called, in the way of accelerate."""
    return any(hasattr(module, "_hf_hook") for module in model.modules())


@dataclass(frozen=True)
class _PromptStates:
    """keys, values: for each layer (prompts, key-value heads, time, size), padded on the right."""

    keys: list[Tensor]
    values: list[Tensor]


class LlamaDecoder:
    """Llama, Mistral, Qwen2 and Qwen3, with or without adapters, over a cache that is allocated once.

    The model's own modules are called for everything but attention, so weights are read where they are at each step,
    and adapters, biases and quantised layers count as they do in its forward. Each row's keys and values stand at the
    row's own positions, from 0: rows of any age run together without padding on the left, and what is not a row's is
    masked. Memory: 2 × layers × slots × length × key-value heads × head size numbers of the model's type.
    """

    grows = True

    def __init__(self, model: PreTrainedModel, *, slots: int, length: int) -> None:
        own = causal_model(model)
        self._head = own.lm_head
        self._body = own.model
        self._layers = list(own.model.layers)
        first = self._layers[0].self_attn
        config = own.config
        self._heads = config.num_attention_heads
        self._kv_heads = config.num_key_value_heads
        self._size = first.head_dim
        weight = own.get_input_embeddings().weight
        self._device, dtype = weight.device, weight.dtype
        length = _rounded_up(length, _BLOCK)
        self._fewest = min(slots, FEWEST_ROWS)
        shape = (len(self._layers), slots, self._kv_heads, length, self._size)
        # Zeros, not whatever was in memory: a masked NaN would still be NaN after multiplication by 0.
        self._keys = torch.zeros(shape, dtype=dtype, device=self._device)
        self._values = torch.zeros(shape, dtype=dtype, device=self._device)
        self._columns = torch.arange(length, device=self._device)
        self._cos, self._sin = self._rotary(dtype)
        self._lengths: list[int] = []

    def _rotary(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(length, size) cosines and sines; the sines' first half is negated, see `_turned`."""
        cos, sin = self._body.rotary_emb(torch.empty(0, dtype=dtype, device=self._device), self._columns.unsqueeze(0))
        half = self._size // 2
        return cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)

    def width(self, length: int) -> int:
        """The length rounded up, so that a prompt is read in the same way whatever prompts are read with it."""
        return _rounded_up(length, _PROMPT_BLOCK)

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> Prefilled:
        """Reads prompts in one batch, padded on the right: what follows a token cannot change it."""
        lengths = [len(prompt) for prompt in prompts]
        width = self.width(max(lengths))
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        hidden = self._body.embed_tokens(ids.to(self._device))  # (prompts, time, hidden)
        cos, sin = self._cos[:width, None], self._sin[:width, None]  # (time, 1, size)
        states = _PromptStates([], [])
        for layer in self._layers:
            attention = layer.self_attn
            query, key, value = self._project(attention, layer.input_layernorm(hidden))
            query = _turned(query, cos, sin).transpose(1, 2)  # (prompts, heads, time, size)
            key = _turned(key, cos, sin).transpose(1, 2)  # (prompts, key-value heads, time, size)
            value = value.transpose(1, 2)
            states.keys.append(key)
            states.values.append(value)
            mixed = F.scaled_dot_product_attention(
                query, key, value, is_causal=True, scale=attention.scaling, enable_gqa=self._heads != self._kv_heads
            )
            hidden = _finish_layer(layer, hidden, mixed.transpose(1, 2).flatten(2))
        last = torch.tensor(lengths, device=self._device) - 1
        ends = hidden[torch.arange(len(prompts), device=self._device), last]  # (prompts, hidden)
        logits = self._head(self._body.norm(_padded(ends, self._fewest)))
        return Prefilled(logits[: len(prompts)], lengths, states)

    @torch.inference_mode()
    def append(self, prefilled: Prefilled, prompts: Sequence[int]) -> None:
        """Copies the prompts' keys and values into the places behind the last row."""
        states: _PromptStates = prefilled.state
        chosen = torch.tensor(prompts, device=self._device)
        start = len(self._lengths)
        places = slice(start, start + len(prompts))
        width = states.keys[0].shape[2]
        for number in range(len(self._layers)):
            self._keys[number, places, :, :width] = states.keys[number][chosen]
            self._values[number, places, :, :width] = states.values[number][chosen]
        self._lengths += [prefilled.lengths[prompt] for prompt in prompts]

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """One token a row; attention reads the cache up to the longest row."""
        idle = [0] * (self._fewest - len(tokens))  # rows that stand for nothing, in free slots
        inputs = torch.tensor([[*tokens, *idle], self._lengths + idle], device=self._device)
        self._lengths = [length + 1 for length in self._lengths]
        logits = self._decode(inputs[0], inputs[1], _rounded_up(max(self._lengths), _BLOCK))
        return logits[: len(self._lengths)]

    def _decode(self, tokens: Tensor, positions: Tensor, until: int) -> Tensor:
        """(rows, vocabulary) logits after (rows,) tokens, which stand at (rows,) positions, all below until."""
        rows = len(tokens)
        hidden = self._body.embed_tokens(tokens)  # (rows, hidden)
        ahead = self._columns[:until] > positions.unsqueeze(-1)
        mask = torch.zeros(rows, 1, 1, until, dtype=hidden.dtype, device=self._device)
        mask.masked_fill_(ahead[:, None, None], float("-inf"))
        cos, sin = self._cos[positions].unsqueeze(1), self._sin[positions].unsqueeze(1)  # (rows, 1, size)
        row_numbers = torch.arange(rows, device=self._device)
        for number, layer in enumerate(self._layers):
            attention = layer.self_attn
            query, key, value = self._project(attention, layer.input_layernorm(hidden))
            keys, values = self._keys[number, :rows], self._values[number, :rows]
            keys[row_numbers, :, positions] = _turned(key, cos, sin)
            values[row_numbers, :, positions] = value
            # The query heads of one key-value head stand where the queries of several positions would: no key is
            # repeated for them. All look at the same positions, so one mask serves them.
            grouped = _turned(query, cos, sin).view(rows, self._kv_heads, -1, self._size)
            mixed = F.scaled_dot_product_attention(
                grouped, keys[:, :, :until], values[:, :, :until], attn_mask=mask, scale=attention.scaling
            )  # (rows, key-value heads, group, size)
            hidden = _finish_layer(layer, hidden, mixed.reshape(rows, -1))
        logits: Tensor = self._head(self._body.norm(hidden))
        return logits

    @torch.inference_mode()
    def release(self, ended: Sequence[int]) -> None:
        """Moves the last rows into the places of those that ended."""
        rows = len(self._lengths)
        for source, target in compaction(rows, ended):
            held = self._lengths[source]
            for states in (self._keys, self._values):
                states[:, target, :, :held] = states[:, source, :, :held]
            self._lengths[target] = held
        del self._lengths[rows - len(ended) :]

    def _project(self, attention: Any, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query (..., heads, size), key and value (..., key-value heads, size), not yet turned."""
        shape = (*normed.shape[:-1], -1, self._size)
        query, key = attention.q_proj(normed).view(shape), attention.k_proj(normed).view(shape)
        if hasattr(attention, "q_norm"):  # Qwen3
            query, key = attention.q_norm(query), attention.k_norm(key)
        return query, key, attention.v_proj(normed).view(shape)


def _turned(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding (Su et al. 2021) with halves paired; sin's first half comes negated.

    Rolling by half swaps the halves, which with the sign in sin is the usual rotation by a quarter turn.
    """
    return states * cos + states.roll(states.shape[-1] // 2, -1) * sin


def _rounded_up(length: int, block: int) -> int:
    return -(-length // block) * block


def _padded(states: Tensor, rows: int) -> Tensor:
    """(rows or more, ...): zeros behind (any number, ...)."""
    return F.pad(states, (0, 0, 0, max(0, rows - len(states))))


def _finish_layer(layer: Any, hidden: Tensor, mixed: Tensor) -> Tensor:
    """The layer after attention's heads have been mixed: output projection and feed-forward, each added."""
    hidden = hidden + layer.self_attn.o_proj(mixed)
    finished: Tensor = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return finished
