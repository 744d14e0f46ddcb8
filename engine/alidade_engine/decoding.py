"""What runs a model one token at a time: rows of a batch that begin with a prompt, grow, and leave when they end."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, DynamicLayer, PreTrainedModel


@dataclass(frozen=True)
class Prefilled:
    """Prompts that the model has read.

    logits: (prompts, vocabulary) after the last token of each. lengths: tokens of each. state: what the decoder that
    made it needs to begin rows with them.
    """

    logits: Tensor
    lengths: list[int]
    state: Any


class Decoder(Protocol):
    """A batch of rows, numbered from 0, each a prompt and the tokens after it, with their keys and values."""

    grows: bool
    """Whether rows can be appended while others are running."""

    def width(self, length: int) -> int:
        """What a prompt of this length is padded to; only prompts of the same width are read together."""

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Prefilled:
        """Reads prompts, without beginning rows with them."""

    def append(self, prefilled: Prefilled, prompts: Sequence[int]) -> None:
        """Begins a row at the end for each number of a prefilled prompt; a prompt may begin many rows."""

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Gives each row its next token, an id each, and returns the (rows, vocabulary) logits after it."""

    def release(self, ended: Sequence[int]) -> None:
        """Removes rows; the last rows take their places as `compaction` says."""


def compaction(rows: int, ended: Sequence[int]) -> list[tuple[int, int]]:
    """Moves (from, to) that fill the places of ended rows with the last of those that go on, without gaps."""
    gone = set(ended)
    left = rows - len(gone)
    holes = sorted(place for place in gone if place < left)
    movers = [place for place in range(left, rows) if place not in gone]
    return list(zip(movers, holes, strict=True))


class ForwardDecoder:
    """Any causal language model of transformers, through its own forward and its growing cache.

    Rows are padded on the left, so that all end at the same place. Rows are appended while others run where every layer
    keeps plain keys and values; with other caches (sliding windows, recurrent states) only when all rows have ended.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        known = inspect.signature(_own_forward(model)).parameters
        self._takes_positions = "position_ids" in known
        self._extra = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        self._cache: Cache | None = None
        self._lengths: list[int] = []
        self.grows = all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)

    def width(self, length: int) -> int:  # noqa: ARG002 the others' signature
        """0 for all: any prompts are read together, each padded to the longest."""
        return 0

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> Prefilled:
        """Reads prompts in one batch."""
        lengths = [len(prompt) for prompt in prompts]
        width = max(lengths)
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
        cache = DynamicCache(config=self._model.config)
        logits = self._forward(ids.to(self._model.device), lengths, cache)
        return Prefilled(logits, lengths, cache)

    def append(self, prefilled: Prefilled, prompts: Sequence[int]) -> None:
        """Begins a row for each number of a prompt; the shorter of old and new rows are padded on the left."""
        new = _selected(prefilled.state, torch.tensor(prompts, device=self._model.device))
        if self._lengths and self._cache is not None:
            _concatenate(self._cache, new)
        else:
            self._cache = new
        self._lengths += [prefilled.lengths[prompt] for prompt in prompts]
        self._trim()

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """The model's forward for one token a row."""
        assert self._cache is not None
        self._lengths = [length + 1 for length in self._lengths]
        return self._forward(torch.tensor(tokens, device=self._model.device).unsqueeze(-1), self._lengths, self._cache)

    def release(self, ended: Sequence[int]) -> None:
        """Selects the rows that go on."""
        order = list(range(len(self._lengths)))
        for source, target in compaction(len(order), ended):
            order[target] = source
        order = order[: len(order) - len(ended)]
        self._lengths = [self._lengths[row] for row in order]
        if not order:
            self._cache = None
        elif self._cache is not None:
            self._cache.batch_select_indices(torch.tensor(order, device=self._model.device))
            self._trim()

    def _forward(self, ids: Tensor, lengths: list[int], cache: Cache) -> Tensor:
        held = torch.tensor(lengths, device=ids.device).unsqueeze(-1)
        width = cache.get_seq_length() + ids.shape[1]
        attention = (torch.arange(width, device=ids.device) >= width - held).long()
        options = dict(self._extra)
        if self._takes_positions:
            positions = (attention.cumsum(-1) - 1).clamp(min=0)  # padding on the left does not shift a row
            options["position_ids"] = positions[:, -ids.shape[1] :]
        output: Any = self._model(
            input_ids=ids, attention_mask=attention, past_key_values=cache, use_cache=True, **options
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def _trim(self) -> None:
        """Drops columns on the left that are padding in every row."""
        if not self.grows or self._cache is None:
            return
        longest = max(self._lengths)
        for layer in self._cache.layers:
            if layer.keys is not None and layer.keys.shape[-2] > longest:
                layer.keys, layer.values = layer.keys[..., -longest:, :], layer.values[..., -longest:, :]


def _own_forward(model: PreTrainedModel) -> Any:
    """The forward of the model itself, which an adapter around it hides behind `**kwargs`."""
    unwrap = getattr(model, "get_base_model", None)
    return (unwrap() if unwrap is not None else model).forward


def _selected(cache: Cache, rows: Tensor) -> Cache:
    """A cache of its own with the given rows of another."""
    copied = DynamicCache()
    copied.__dict__.update({name: value for name, value in cache.__dict__.items() if name != "layers"})
    copied.layers = [_copied_layer(layer) for layer in cache.layers]
    copied.batch_select_indices(rows)
    return copied


def _copied_layer(layer: Any) -> Any:
    """A layer that shares its tensors with the other until either replaces them: neither writes into them."""
    twin = object.__new__(type(layer))
    twin.__dict__.update(layer.__dict__)
    return twin


def _concatenate(cache: Cache, new: Cache) -> None:
    for old_layer, new_layer in zip(cache.layers, new.layers, strict=True):
        if not old_layer.is_initialized:  # a layer that reads another's keys and values keeps none
            continue
        width = max(old_layer.keys.shape[-2], new_layer.keys.shape[-2])
        for name in ("keys", "values"):
            pair = [_padded(getattr(layer, name), width) for layer in (old_layer, new_layer)]
            setattr(old_layer, name, torch.cat(pair))


def _padded(states: Tensor, width: int) -> Tensor:
    """(rows, heads, width, size): zeros on the left of (rows, heads, time, size)."""
    return torch.nn.functional.pad(states, (0, 0, width - states.shape[-2], 0))
