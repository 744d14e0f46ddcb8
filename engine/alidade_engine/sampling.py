"""Answers drawn from a model: greedy, or by temperature and nucleus."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from alidade_engine.templates import Message, render_prompts, resolve_template, stop_token_ids

Ask = str | Sequence[Message] | Sequence[int]
"""A question (rendered as a user's turn), a conversation that waits for an answer, or token ids taken as they are."""


@dataclass(frozen=True)
class Completion:
    """An answer.

    prompt_ids: the tokens that were asked. token_ids: the tokens drawn, with the one that ended them. text: without it.
    finish_reason: stop when the model ended the answer, length when the limit or the model's context did.
    """

    prompt_ids: list[int]
    token_ids: list[int]
    text: str
    finish_reason: Literal["stop", "length"]


@dataclass
class _Row:
    """An answer in the making, and its place among the prompts."""

    place: int
    drawn: list[int]
    budget: int


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Ask],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 32,
    template: str = "auto",
    on_token: Callable[[int, int], None] | None = None,
) -> list[Completion]:
    """One answer to each prompt, in order.

    temperature 0 takes the likeliest token each time; otherwise logits are divided by it and, with top_p below 1,
    tokens are drawn from the smallest set whose probability reaches top_p (Holtzman et al. 2020). The same seed,
    prompts and batch_size give the same answers. on_token(prompt, id) is called as tokens come. Raises ValueError for a
    prompt that leaves no room in the model's context.
    """
    asked = _token_ids(tokenizer, prompts, template)
    context = int(getattr(model.config, "max_position_embeddings", None) or 2**31)
    for number, ids in enumerate(asked):
        if not ids:
            raise ValueError(f"prompt {number + 1} has no tokens")
        if len(ids) >= context:
            raise ValueError(f"prompt {number + 1} has {len(ids)} tokens; the model's context is {context}")
    sampler = _Sampler(temperature, top_p, torch.Generator(device=model.device).manual_seed(seed))
    stops = torch.tensor(stop_token_ids(tokenizer, template), device=model.device)
    answers: list[list[int]] = [[] for _ in asked]
    # Prompts of like length share a batch, so that little of it is padding.
    order = sorted(range(len(asked)), key=lambda place: len(asked[place]))
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(order), batch_size):
            rows = [
                _Row(place, [], min(max_new_tokens, context - len(asked[place])))
                for place in order[start : start + batch_size]
            ]
            _answer(model, [asked[row.place] for row in rows], rows, sampler, stops, _pad_id(tokenizer), on_token)
            for row in rows:
                answers[row.place] = row.drawn
    finally:
        model.train(was_training)
    ending = set(stops.tolist())
    return [_completion(tokenizer, ids, drawn, ending) for ids, drawn in zip(asked, answers, strict=True)]


def _token_ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Ask], template: str) -> list[list[int]]:
    asked: list[list[int]] = []
    conversations: list[Sequence[Message]] = []
    places: list[int] = []
    for place, prompt in enumerate(prompts):
        asked.append([])
        if isinstance(prompt, str):
            conversations.append([{"role": "user", "content": prompt}])
            places.append(place)
        elif all(isinstance(item, int) for item in prompt):
            asked[place] = cast(list[int], list(prompt))
        else:
            conversations.append(cast(Sequence[Message], prompt))
            places.append(place)
    if conversations:
        rendered = render_prompts(tokenizer, conversations, resolve_template(tokenizer, template))
        for place, ids in zip(places, rendered, strict=True):
            asked[place] = ids
    return asked


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)


@dataclass(frozen=True)
class _Sampler:
    temperature: float
    top_p: float
    generator: torch.Generator

    def __call__(self, logits: Tensor) -> Tensor:
        """(rows,) ids drawn from (rows, vocabulary) logits."""
        if self.temperature <= 0:
            return logits.argmax(-1)
        probabilities = (logits.float() / self.temperature).softmax(-1)
        if self.top_p < 1:
            probabilities = _nucleus(probabilities, self.top_p)
        return torch.multinomial(probabilities, 1, generator=self.generator).squeeze(-1)


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """(rows, vocabulary) probabilities with all but the likeliest tokens that together reach top_p set to 0."""
    ordered, places = probabilities.sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    kept = ordered.masked_fill(before >= top_p, 0.0)
    return torch.zeros_like(probabilities).scatter(-1, places, kept)


@torch.inference_mode()
def _answer(
    model: PreTrainedModel,
    prompts: list[list[int]],
    rows: list[_Row],
    sampler: _Sampler,
    stops: Tensor,
    pad_id: int,
    on_token: Callable[[int, int], None] | None,
) -> None:
    """Fills `drawn` of each row; a row that has ended leaves the batch once half of it has."""
    width = max(map(len, prompts))
    ids = torch.full((len(rows), width), pad_id)
    attention = torch.zeros_like(ids)
    for place, prompt in enumerate(prompts):
        ids[place, width - len(prompt) :] = torch.tensor(prompt)
        attention[place, width - len(prompt) :] = 1
    ids, attention = ids.to(model.device), attention.to(model.device)
    positions = (attention.cumsum(-1) - 1).clamp(min=0)  # (rows, time): padding on the left does not shift a prompt
    cache = DynamicCache(config=model.config)
    active = list(rows)
    done = torch.tensor([row.budget <= 0 for row in active], device=model.device)
    while not bool(done.all()):
        output: Any = model(
            input_ids=ids,
            attention_mask=attention,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        drawn = sampler(output.logits[:, -1])  # (rows,)
        for row, token, ended in zip(active, drawn.tolist(), done.tolist(), strict=True):
            if not ended:
                row.drawn.append(token)
                if on_token is not None:
                    on_token(row.place, token)
        spent = torch.tensor([len(row.drawn) >= row.budget for row in active], device=model.device)
        done = done | torch.isin(drawn, stops) | spent
        positions = positions[:, -1:] + 1
        attention = torch.cat([attention, attention.new_ones(len(active), 1)], -1)
        ids = drawn.unsqueeze(-1)
        if 2 * int(done.sum()) >= len(active) and not bool(done.all()):
            left = (~done).nonzero().squeeze(-1)
            cache.batch_select_indices(left)
            active = [active[place] for place in left.tolist()]
            ids, attention, positions, done = ids[left], attention[left], positions[left], done[left]


def _completion(tokenizer: PreTrainedTokenizerBase, asked: list[int], drawn: list[int], stops: set[int]) -> Completion:
    stopped = bool(drawn) and drawn[-1] in stops
    text = tokenizer.decode(drawn[:-1] if stopped else drawn, skip_special_tokens=True)
    return Completion(asked, drawn, text, "stop" if stopped else "length")
