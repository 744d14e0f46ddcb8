"""Ghost attention (Llama 2, section 3.3): which conversations an instruction is laid over, and how they are learned."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from transformers import PreTrainedTokenizerBase

from alidade_crds.blocks import GhostAttention
from alidade_crds.reasons import FailureReason
from alidade_engine.data.formats import Conversation, Example, Messages, Prompt
from alidade_engine.data.records import Position
from alidade_engine.templates import RenderError, render_prompts
from alidade_trainer.data.tokenising import OpenedSource
from alidade_trainer.failures import JobFailure

_BATCH = 512  # conversations rendered at once
_RANGE = 2**64


@dataclass(frozen=True)
class GhostPrompt:
    """A conversation before its last answer.

    number: of its example in the dataset, from 0. key: equal for equal conversations; its random numbers come from it.
    messages: as they are trained on, with the instruction on the first turn of the user alone; trained: their tokens.
    asked: tokens of the same with the instruction on every turn of the user, which the answer is sampled for; none
    where the user has no turn.
    """

    number: int
    key: int
    messages: Messages
    asked: list[int]
    trained: list[int]


@dataclass(frozen=True)
class _Chosen:
    number: int
    key: int
    messages: Messages
    instruction: str
    position: Position


def ghost_prompts(
    source: OpenedSource, tokenizer: PreTrainedTokenizerBase, template: str, spec: GhostAttention, *, seed: int
) -> list[GhostPrompt]:
    """The conversations that the instruction is laid over: a function of the arguments alone.

    Raises JobFailure: TemplateFailed, and ConfigInvalid when no
    record has the field that instructions are to come from.
    """
    found: list[GhostPrompt] = []
    chosen = _chosen(source, spec, seed)
    while batch := list(islice(chosen, _BATCH)):
        found += _rendered(batch, tokenizer, template)
    return found


def _chosen(source: OpenedSource, spec: GhostAttention, seed: int) -> Iterator[_Chosen]:
    some = False
    for number, (example, position, own) in enumerate(source.examples_with(spec.field or "")):
        if spec.field is not None:
            some = some or (isinstance(own, str) and bool(own.strip()))
            candidates = [own.strip()] if isinstance(own, str) and own.strip() else []
        else:
            candidates = spec.instructions
        messages = _before_last_answer(example)
        if not candidates:
            continue
        share, place, key = _draws(messages, candidates, seed)
        if share < spec.share * _RANGE:
            yield _Chosen(number, key, messages, candidates[place % len(candidates)], position)
    if spec.field is not None and not some:
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"ghostAttention.field is {spec.field}, but no record of {source.uri} has a text there. Name another "
            "field, or set ghostAttention.instructions.",
        )


def _draws(messages: Messages, candidates: Sequence[str], seed: int) -> tuple[int, int, int]:
    """Three numbers of 64 bits for a conversation, independent of one another and of its place in the dataset."""
    text = json.dumps([seed, messages, list(candidates)])
    digest = hashlib.blake2b(text.encode(), digest_size=24).digest()
    first, second, third = (int.from_bytes(digest[start : start + 8], "big") for start in (0, 8, 16))
    return first, second, third


def _before_last_answer(example: Example) -> Messages:
    """The turns that the last answer is given to; those of a prompt are all of them."""
    if isinstance(example, Prompt):
        return example.messages
    if not isinstance(example, Conversation):
        return []
    last = max(place for place, turn in enumerate(example.messages) if turn["role"] == "assistant")
    return example.messages[:last]


def _rendered(batch: list[_Chosen], tokenizer: PreTrainedTokenizerBase, template: str) -> list[GhostPrompt]:
    possible = [one for one in batch if any(turn["role"] == "user" for turn in one.messages)]
    everywhere = [instructed(one.messages, one.instruction, every_turn=True) for one in possible]
    at_first = [instructed(one.messages, one.instruction, every_turn=False) for one in possible]
    try:
        asked = render_prompts(tokenizer, everywhere, template)
        trained = render_prompts(tokenizer, at_first, template)
    except RenderError as error:
        raise JobFailure(
            FailureReason.TEMPLATE_FAILED,
            f"dataset.template cannot render {possible[error.index].position}: {error.message.rstrip('.')}.",
        ) from error
    found = {one.number: GhostPrompt(one.number, one.key, one.messages, [], []) for one in batch}
    for one, messages, asked_ids, trained_ids in zip(possible, at_first, asked, trained, strict=True):
        found[one.number] = GhostPrompt(one.number, one.key, messages, asked_ids, trained_ids)
    return list(found.values())


def instructed(messages: Messages, instruction: str, *, every_turn: bool) -> Messages:
    """The turns with the instruction before the text of every turn of the user, or of the first one only."""
    places = [place for place, turn in enumerate(messages) if turn["role"] == "user"]
    wanted = set(places if every_turn else places[:1])
    # `instruction` is what the alpaca template reads beside `input`; the others read `content`.
    return [
        {
            name: f"{instruction}\n\n{text}" if place in wanted and name in ("content", "instruction") else text
            for name, text in turn.items()
        }
        for place, turn in enumerate(messages)
    ]


def prompts_digest(prompts: Sequence[GhostPrompt]) -> str:
    """sha256 of what is asked and trained on."""
    total = hashlib.sha256()
    for prompt in prompts:
        for ids in ([prompt.number], prompt.asked, prompt.trained):
            total.update(np.asarray([len(ids), *ids], dtype=np.int64).tobytes())
    return total.hexdigest()
