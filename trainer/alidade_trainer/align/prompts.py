"""Prompts that answers are sampled for, with the answers the data has for them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from alidade_crds.blocks import DataFormat
from alidade_crds.contract import JobDocument
from alidade_crds.reasons import FailureReason
from alidade_crds.text_dataset import CleanDataset
from alidade_engine.data.formats import Conversation, Example, Messages, Preference, as_prompt
from alidade_engine.data.records import Position
from alidade_engine.sources import Locations
from alidade_engine.templates import RenderError, render_batch, render_prompts, resolve_template
from alidade_trainer.data.cleaning import CleanRecords, RecordCollector, without_repetitions
from alidade_trainer.data.dataset import PreparedData, refuse_nothing, refuse_unknown_languages
from alidade_trainer.data.encoding import TOO_LONG, said_in
from alidade_trainer.data.report import data_report
from alidade_trainer.data.selection import hold_out, near_leak
from alidade_trainer.data.sequences import SampleBuilder, TokenDataset
from alidade_trainer.data.tokenising import OpenedSource
from alidade_trainer.failures import JobFailure

SAFETY_TAG = "safety"
"""Field of a prompt's record that is true where answers may be unsafe (Llama 2, section 3.2.3)."""
_BATCH = 512  # records tokenised at once


@dataclass(frozen=True)
class AskedPrompt:
    """A prompt as turns and as tokens.

    reference, reference_ids: the answer in the data, None and [] without one. is_risky: whether its record is tagged
    with `safety: true`, so that the gated reward judges its answers by safety.
    """

    messages: Messages
    prompt_ids: list[int]
    reference: str | None
    reference_ids: list[int]
    is_risky: bool = False

    @property
    def key(self) -> int:
        """Equal for equal prompts."""
        raw = np.asarray(self.prompt_ids, dtype=np.int32).tobytes()
        return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big")


class PromptTokens(TokenDataset):
    """Prompts as sequences, each with room for its answer."""

    room: int = 0

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with its longest answer."""
        return super().longest + self.room


@dataclass(frozen=True)
class PromptData(PreparedData):
    """An alignment's prompts; train and validation hold them as tokens."""

    prompts: list[AskedPrompt]
    held_out: list[AskedPrompt]


def prepare_prompts(
    job: JobDocument, tokenizer: PreTrainedTokenizerBase, locations: Locations, *, context_length: int | None = None
) -> PromptData:
    """The job's prompts: a function of the job, the files and the tokenizer alone.

    The template is set as the tokenizer's chat_template. Raises JobFailure: DataNotFound, DataMalformed, DataEmpty,
    DataTooLong, TemplateFailed.
    """
    assert job.alignment is not None
    data: CleanDataset = job.dataset
    refuse_unknown_languages(data)
    room = job.alignment.generation.max_new_tokens
    longest = data.max_length if context_length is None else min(data.max_length, context_length - room)
    if longest < 1:
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"generation.maxNewTokens is {room}, the model's context {context_length} tokens; nothing is left for a "
            "prompt. Lower it.",
        )
    template = resolve_template(tokenizer, data.template)
    reader = _Reader(locations, tokenizer, template, longest, room, data)
    read = reader.read(data.address)
    refuse_nothing(read.report)
    reports, warnings = [read.report], []
    held_out: list[AskedPrompt] = []
    checked = None
    if data.validation is not None and data.validation.address is not None:
        checked = reader.read(data.validation.address, field="dataset.validation.uri", is_held_out=True)
        refuse_nothing(checked.report, field="dataset.validation.uri")
        reports.append(checked.report)
    [prompts], near = without_repetitions([read], checked, data.deduplication)
    if checked is not None:
        held_out = checked.records
        both = len({one.key for one in held_out} & {one.key for one in prompts})
        if both:
            warnings.append(f"{both} of {len(held_out)} held-out prompts are also among those that are sampled for.")
        warnings += near_leak(near, len(held_out))
    elif data.validation is not None and data.validation.fraction is not None:
        keys = np.array([one.key for one in prompts], dtype=np.uint64)
        chosen = hold_out(keys, data.validation.fraction, job.training.seed)
        held_out = [one for one, held in zip(prompts, chosen, strict=True) if held]
        prompts = [one for one, held in zip(prompts, chosen, strict=True) if not held]
    else:
        warnings.append("No prompts are held out, so reward and perplexity on new ones are not known; set validation.")
    if data.mix:
        raise JobFailure(FailureReason.CONFIG_INVALID, "dataset.mix is set; an alignment takes one set of prompts.")
    tokenizer.chat_template = template
    train, validation = _tokens(prompts, room), _tokens(held_out, room) if held_out else None
    report_of_all = data_report(
        job.stage,
        template=template,
        max_length=longest,
        packing=False,
        sources=reports,
        train=train,
        validation=validation,
        warnings=warnings,
    )
    return PromptData(
        train=train,
        validation=validation,
        report=report_of_all,
        template=template,
        packed=False,
        prompts=prompts,
        held_out=held_out,
    )


def _tokens(prompts: Sequence[AskedPrompt], room: int) -> TokenDataset:
    builder = SampleBuilder()
    for prompt in prompts:
        builder.add(prompt.prompt_ids, [False] * len(prompt.prompt_ids))
    count = len(prompts)
    tokens = PromptTokens(builder.build(), np.arange(count), np.arange(count + 1), packed=False)
    tokens.room = room
    return tokens


class _Reader:
    """Reads addresses of prompts with one tokenizer and template."""

    def __init__(
        self,
        locations: Locations,
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        longest: int,
        room: int,
        data: CleanDataset,
    ) -> None:
        self._locations = locations
        self._tokenizer = tokenizer
        self._template = template
        self._longest = longest
        self._room = room
        self._data = data

    def read(self, uri: str, *, field: str = "dataset.uri", is_held_out: bool = False) -> CleanRecords[AskedPrompt]:
        """The prompts of an address, and what became of its records."""
        # Read as what they are and not as bare prompts, so that an answer in the data stays known as the reference.
        wanted = DataFormat.AUTO if self._data.format is DataFormat.PROMPTS else self._data.format
        source = OpenedSource(self._locations, uri, wanted, field=field)
        report = source.report()
        report.shape = "prompts"
        found: RecordCollector[AskedPrompt] = RecordCollector(self._data, report, is_held_out=is_held_out)
        examples = source.examples_with(SAFETY_TAG)
        while batch := list(islice(examples, _BATCH)):
            report.records += len(batch)
            for prompt, position in zip(self._rendered(batch), (place for _, place, _ in batch), strict=True):
                if len(prompt.prompt_ids) > self._longest:
                    report.drop(
                        f"{TOO_LONG}, {self._longest} tokens, or than what the model's context leaves beside "
                        f"generation.maxNewTokens {self._room}",
                        position,
                    )
                else:
                    length = len(prompt.prompt_ids)
                    found.add(prompt, position, key=prompt.key, words=said_in(prompt.messages), lengths=[length])
        read = found.done()
        report.duplicates = report.kept - len(np.unique(read.keys))
        return read

    def _rendered(self, batch: list[tuple[Example, Position, Any]]) -> list[AskedPrompt]:
        asked = [as_prompt(example, position).messages for example, position, _ in batch]
        references = [_reference(example) for example, _, _ in batch]
        answered = [place for place, reference in enumerate(references) if reference]
        whole = [[*asked[place], {"role": "assistant", "content": references[place] or ""}] for place in answered]
        try:
            prompts = render_prompts(self._tokenizer, asked, self._template)
            rendered = render_batch(self._tokenizer, whole, self._template)
        except RenderError as error:
            raise JobFailure(
                FailureReason.TEMPLATE_FAILED,
                f"dataset.template cannot render {batch[error.index][1]}: {error.message.rstrip('.')}.",
            ) from error
        answers: dict[int, list[int]] = {}
        for place, one in zip(answered, rendered, strict=True):
            start = len(prompts[place])
            if one.input_ids[:start] == prompts[place]:
                answers[place] = one.input_ids[start:]
        return [
            AskedPrompt(
                asked[place], prompts[place], references[place], answers.get(place, []), batch[place][2] is True
            )
            for place in range(len(batch))
        ]


def _reference(example: Example) -> str | None:
    """The answer in the data; of ranked ones the best."""
    if isinstance(example, Conversation):
        return next(turn["content"] for turn in reversed(example.messages) if turn["role"] == "assistant")
    if isinstance(example, Preference):
        return example.answers[max(range(len(example.answers)), key=lambda place: example.scores[place])]
    return None


def drawn_prompts(count: int, wanted: int, iteration: int, seed: int) -> list[int]:
    """Places of the prompts of one iteration: the next ones of an endless row, shuffled anew in every pass.

    A function of its arguments alone, so that nothing has to be remembered for a resumed run.
    """
    first, end = iteration * wanted, (iteration + 1) * wanted
    passes = range(first // count, (end - 1) // count + 1)
    row = np.concatenate([np.random.default_rng([seed, 7, number]).permutation(count) for number in passes])
    start = first - passes.start * count
    return [int(place) for place in row[start : start + wanted]]
