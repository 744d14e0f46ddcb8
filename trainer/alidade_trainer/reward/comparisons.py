"""Preferences as tokens: for each prompt its answers, and which of them is better than which."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from alidade_crds.blocks import DataFormat
from alidade_crds.contract import JobDocument
from alidade_crds.reasons import FailureReason
from alidade_crds.text_dataset import CleanDataset
from alidade_engine.data.formats import Preference
from alidade_engine.data.records import Position
from alidade_engine.padding import padded
from alidade_engine.sources import Locations
from alidade_engine.templates import RenderError, render_batch, resolve_template
from alidade_trainer.data.cleaning import CleanRecords, RecordCollector, without_repetitions
from alidade_trainer.data.dataset import PreparedData, refuse_nothing, refuse_unknown_languages
from alidade_trainer.data.encoding import TOO_LONG, said_in
from alidade_trainer.data.report import SourceReport, data_report
from alidade_trainer.data.selection import all_repeat, draw_samples, hold_out, near_leak
from alidade_trainer.data.sequences import SampleBuilder, TokenDataset
from alidade_trainer.data.tokenising import OpenedSource
from alidade_trainer.failures import JobFailure
from alidade_trainer.reward.ranking import pair_strength, ranked_pairs

_BATCH = 256  # records tokenised at once

FEW_ANSWERS = "fewer than two answers"
EMPTY_ANSWER = "an empty answer"
SAME_ANSWER = "the same answer twice"
NO_RANKING = "answers that are all ranked alike"


@dataclass(frozen=True)
class Comparison:
    """The answers to one prompt, each with its prompt as tokens, and the pairs of them that are ranked.

    pairs: (better, worse) places among the answers; strengths: of each pair, None where the data does not say.
    key: equal for equal prompts.
    """

    answers: list[list[int]]
    pairs: list[tuple[int, int]]
    strengths: list[float | None]
    key: int


class Comparisons:
    """Comparisons as a training stream reads them: an item's input_ids are all its answers' one after the other."""

    def __init__(self, comparisons: Sequence[Comparison]) -> None:
        self._comparisons = comparisons

    def __len__(self) -> int:
        return len(self._comparisons)

    def __getitem__(self, index: int) -> dict[str, Any]:
        comparison = self._comparisons[index]
        return {"input_ids": [token for answer in comparison.answers for token in answer], "comparison": comparison}

    def __iter__(self) -> Iterator[Comparison]:
        return iter(self._comparisons)

    def tokens(self) -> TokenDataset:
        """The same as one sequence per prompt, for counting; nothing in it carries loss."""
        builder = SampleBuilder()
        for comparison in self._comparisons:
            for answer in comparison.answers:
                builder.add(answer, [False] * len(answer))
        samples = builder.build()
        bounds = np.cumsum([0, *(len(comparison.answers) for comparison in self._comparisons)]).astype(np.int64)
        return TokenDataset(samples, np.arange(len(samples), dtype=np.int64), bounds, packed=True)


class ComparisonCollator:
    """Makes a batch of comparisons.

    input_ids, attention_mask: (answers, time), padded on the right. pairs: (pairs, 2) places (better, worse) among the
    answers. prompts: (pairs,) which prompt of the batch a pair belongs to. margins: (pairs,).
    """

    def __init__(self, pad_token_id: int, *, use_margin: bool) -> None:
        self._pad_token_id = pad_token_id
        self._use_margin = use_margin

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """items: of `Comparisons`."""
        comparisons: list[Comparison] = [item["comparison"] for item in items]
        rows = padded([answer for one in comparisons for answer in one.answers], self._pad_token_id)
        pairs, prompts, margins = [], [], []
        first = 0
        for number, one in enumerate(comparisons):
            pairs += [(first + better, first + worse) for better, worse in one.pairs]
            prompts += [number] * len(one.pairs)
            margins += [(strength or 0.0) if self._use_margin else 0.0 for strength in one.strengths]
            first += len(one.answers)
        return rows | {
            "pairs": torch.tensor(pairs),
            "prompts": torch.tensor(prompts),
            "margins": torch.tensor(margins, dtype=torch.float32),
        }


@dataclass(frozen=True)
class ComparisonData(PreparedData):
    """A reward model's data; train and validation have a sequence for each prompt, its answers in a row."""

    comparisons: Comparisons
    held_out: Comparisons | None
    sources: Sequence[SourceReport]


def prepare_comparisons(
    job: JobDocument, tokenizer: PreTrainedTokenizerBase, locations: Locations, *, context_length: int | None = None
) -> ComparisonData:
    """The job's preferences as tokens: a function of the job, the files and the tokenizer alone.

    The template is set as the tokenizer's chat_template. Raises JobFailure as `alidade_trainer.data.dataset.prepare`.
    """
    data: CleanDataset = job.dataset
    refuse_unknown_languages(data)
    warnings: list[str] = []
    max_length = min(data.max_length, context_length or data.max_length)
    if max_length < data.max_length:
        warnings.append(
            f"dataset.maxLength is {data.max_length}, the model's context {max_length} tokens; {max_length} is used."
        )
    template = resolve_template(tokenizer, data.template)
    reader = _Reader(locations, tokenizer, template, max_length, data)
    read = [reader.read(data.address, data.format)]
    for number, mix in enumerate(data.mix):
        read.append(reader.read(mix.address, mix.format, field=f"dataset.mix[{number}].uri", is_needed=mix.weight > 0))
    checked = None
    if data.validation is not None and data.validation.address is not None:
        field = "dataset.validation.uri"
        checked = reader.read(data.validation.address, data.format, field=field, is_held_out=True)
    [main, *mixed], near = without_repetitions(read, checked, data.deduplication)
    train, held_out = _split(job, main)
    if checked is not None:
        held_out = checked.records
        seen = {comparison.key for comparison in main}
        both = sum(comparison.key in seen for comparison in held_out)
        if both:
            warnings.append(f"{both} of {len(held_out)} held-out prompts are also in the training data.")
        warnings += near_leak(near, len(held_out))
    for number, (mix, comparisons) in enumerate(zip(data.mix, mixed, strict=True), 1):
        if mix.weight and not comparisons:
            raise all_repeat(number, read[number].report)
        drawn = draw_samples(len(comparisons), round(mix.weight * len(main)), job.training.seed, number)
        train = [*train, *(comparisons[place] for place in drawn)]
    reports = [one.report for one in (read[0], *([checked] if checked else []), *read[1:])]
    _check_margins(job, train)
    if not held_out:
        warnings.append("Nothing is held out, so the accuracy is not known; set dataset.validation.")
    tokenizer.chat_template = template
    return _data(job, train, held_out, template, max_length, reports, warnings)


def _data(
    job: JobDocument,
    train: list[Comparison],
    held_out: list[Comparison],
    template: str,
    max_length: int,
    reports: list[SourceReport],
    warnings: list[str],
) -> ComparisonData:
    comparisons, checks = Comparisons(train), Comparisons(held_out) if held_out else None
    sequences = comparisons.tokens()
    validation = checks.tokens() if checks else None
    report = data_report(
        job.stage,
        template=template,
        max_length=max_length,
        packing=False,
        sources=reports,
        train=sequences,
        validation=validation,
        warnings=warnings,
    )
    return ComparisonData(
        train=sequences,
        validation=validation,
        report=report,
        template=template,
        packed=False,
        comparisons=comparisons,
        held_out=checks,
        sources=reports,
    )


def _split(job: JobDocument, main: list[Comparison]) -> tuple[list[Comparison], list[Comparison]]:
    """What is trained on and what is held out of the same records: whole prompts, so that accuracy is of new ones."""
    validation = job.dataset.validation
    if validation is None or validation.fraction is None:
        return main, []
    keys = np.array([comparison.key for comparison in main], dtype=np.uint64)
    chosen: NDArray[np.bool_] = hold_out(keys, validation.fraction, job.training.seed)
    train = [one for one, held in zip(main, chosen, strict=True) if not held]
    return train, [one for one, held in zip(main, chosen, strict=True) if held]


def _check_margins(job: JobDocument, train: list[Comparison]) -> None:
    if job.loss is None or job.loss.margin == "none":
        return
    if all(strength is None for comparison in train for strength in comparison.strengths):
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            "loss.margin is fromStrength, but no record says how strong its preference is; add `margin` to the "
            "records, or set loss.margin: none.",
        )


class _Reader:
    """Reads addresses of preferences with one tokenizer and template."""

    def __init__(
        self,
        locations: Locations,
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        max_length: int,
        data: CleanDataset,
    ) -> None:
        self._locations = locations
        self._tokenizer = tokenizer
        self._template = template
        self._max_length = max_length
        self._data = data

    def read(
        self,
        uri: str,
        wanted: DataFormat,
        *,
        field: str = "dataset.uri",
        is_held_out: bool = False,
        is_needed: bool = True,
    ) -> CleanRecords[Comparison]:
        """The comparisons of an address, and what became of its records. Raises JobFailure where needed and none."""
        source = OpenedSource(self._locations, uri, wanted, field=field)
        report = source.report()
        report.shape = "preference"
        found: RecordCollector[Comparison] = RecordCollector(self._data, report, is_held_out=is_held_out)
        seen: set[int] = set()
        examples = source.examples()
        while batch := list(islice(examples, _BATCH)):
            usable = []
            for example, position in batch:
                report.records += 1
                if not isinstance(example, Preference):
                    raise JobFailure(
                        FailureReason.DATA_MALFORMED,
                        f"{field}: {position} is no preference; a reward model learns from a prompt with two or more "
                        "ranked answers, such as prompt, chosen, rejected.",
                    )
                fault = _fault(example, position, field)
                if fault is not None:
                    report.drop(fault, position)
                else:
                    usable.append((example, position))
            for comparison, example, position in self._tokenised(usable, report):
                report.duplicates += comparison.key in seen
                seen.add(comparison.key)
                found.add(
                    comparison,
                    position,
                    key=_key(example, *sorted(zip(example.scores, example.answers, strict=True))),
                    words="\n".join([said_in(example.prompt), *example.answers]),
                    lengths=[len(answer) for answer in comparison.answers],
                )
        if is_needed:
            refuse_nothing(report, field=field)
        return found.done()

    def _tokenised(
        self, usable: list[tuple[Preference, Position]], report: SourceReport
    ) -> Iterator[tuple[Comparison, Preference, Position]]:
        chats = [
            ([*example.prompt, {"role": "assistant", "content": answer}], position)
            for example, position in usable
            for answer in example.answers
        ]
        try:
            rendered = iter(render_batch(self._tokenizer, [chat for chat, _ in chats], self._template))
        except RenderError as error:
            raise JobFailure(
                FailureReason.TEMPLATE_FAILED,
                f"dataset.template cannot render {chats[error.index][1]}: {error.message.rstrip('.')}.",
            ) from error
        for example, position in usable:
            rows = [next(rendered).input_ids for _ in example.answers]
            short = [place for place, row in enumerate(rows) if len(row) <= self._max_length]
            if len(short) < len(rows):
                report.drop(f"{TOO_LONG}, {self._max_length} tokens, one of the answers with its prompt", position)
            scores = [example.scores[place] for place in short]
            pairs = ranked_pairs(scores)
            if len(short) == len(rows) or pairs:
                comparison = Comparison(
                    [rows[place] for place in short],
                    pairs,
                    [pair_strength(scores, pair, example.strength) for pair in pairs],
                    _key(example),
                )
                yield comparison, example, position


def _fault(example: Preference, position: Position, field: str) -> str | None:
    """Why a record cannot be learned from; None when it can. Raises JobFailure for a score that is no number."""
    for name, value in (("margin", example.strength), *(("score", score) for score in example.scores)):
        if value is not None and not math.isfinite(value):
            raise JobFailure(
                FailureReason.DATA_MALFORMED, f"{field}: {position}: `{name}` is {value}; it should be a finite number."
            )
    answers = [answer.strip() for answer in example.answers]
    if len(answers) < 2:
        return FEW_ANSWERS
    if not all(answers):
        return EMPTY_ANSWER
    if len(set(answers)) < len(answers):
        return SAME_ANSWER
    return None if ranked_pairs(example.scores) else NO_RANKING


def _key(example: Preference, *answers: tuple[float, str]) -> int:
    """Equal for equal prompts and, where these are given, equal answers of equal scores."""
    text = "\0".join(f"{turn['role']}\0{turn['content']}" for turn in example.prompt)
    text += "".join(f"\0\0{score}\0{answer}" for score, answer in answers)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
