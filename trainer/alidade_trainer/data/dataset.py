"""A job's data, ready to train on: read, rendered, tokenised, checked, split, mixed, packed, and accounted for."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from alidade_crds.blocks import Dataset, Validation
from alidade_crds.contract import JobDocument, Stage
from alidade_crds.reasons import FailureReason
from alidade_engine.data.formats import Conversation, Preference, Prompt, Text
from alidade_engine.sources import Locations
from alidade_engine.templates import resolve_template
from alidade_trainer.data.packing import PACKABLE
from alidade_trainer.data.report import GhostReport, SourceReport, data_report
from alidade_trainer.data.sequences import Collator, Samples, TokenDataset, concatenate, epoch_order
from alidade_trainer.data.tokenising import (
    TOO_LONG,
    OpenedSource,
    Rules,
    SampledAnswer,
    TokenisedSource,
    fault_of_sample,
    tokenise,
)
from alidade_trainer.failures import JobFailure


@dataclass(frozen=True)
class PreparedData:
    """What a training loop needs of a job's data.

    template: Jinja source that conversations were rendered with, already set as the tokenizer's chat_template; None for
    plain text. packed: whether batches carry position_ids instead of an attention_mask (see Collator).
    """

    train: TokenDataset
    validation: TokenDataset | None
    report: dict[str, Any]
    template: str | None
    packed: bool

    @property
    def warnings(self) -> list[str]:
        """Sentences that a person should read, such as which records were left out."""
        return list(self.report["warnings"])

    def save(self, folder: Path) -> None:
        """Writes everything into a folder, which other processes of this machine `load` instead of tokenising again."""
        self.train.save(folder / "train")
        if self.validation is not None:
            self.validation.save(folder / "validation")
        meta = {"report": self.report, "template": self.template, "packed": self.packed}
        (folder / "data.json").write_text(json.dumps(meta))

    @classmethod
    def load(cls, folder: Path) -> "PreparedData":
        """What `save` wrote."""
        meta = json.loads((folder / "data.json").read_text())
        validation = folder / "validation"
        return cls(
            TokenDataset.load(folder / "train"),
            TokenDataset.load(validation) if validation.is_dir() else None,
            meta["report"],
            meta["template"],
            meta["packed"],
        )


def prepare(
    job: JobDocument,
    tokenizer: PreTrainedTokenizerBase,
    locations: Locations,
    *,
    stage: Stage | None = None,
    context_length: int | None = None,
    model_type: str | None = None,
    sampled: Mapping[int, SampledAnswer | None] | None = None,
) -> PreparedData:
    """The job's data as sequences of tokens: a function of the arguments and the files alone.

    stage: sft or pretrain; default: the job's. context_length: longest sequence of the model, in tokens; a greater
    dataset.maxLength is lowered to it, with a warning. model_type: transformers' name of the model's family; one whose
    samples would see one another is not packed, with a warning. sampled: by number of the example, the last answers
    that ghost attention trains on (see `tokenise`). The template is set as the tokenizer's chat_template.
    Raises JobFailure: DataNotFound, DataMalformed, DataEmpty, DataTooLong, TemplateFailed.
    """
    stage = stage or job.stage
    data = job.dataset
    warnings: list[str] = []
    max_length = data.max_length
    if context_length is not None and context_length < max_length:
        warnings.append(
            f"dataset.maxLength is {max_length}, the model's context {context_length} tokens; {context_length} is used."
        )
        max_length = context_length
    packing = data.packing
    if packing and model_type is not None and model_type not in PACKABLE:
        warnings.append(
            f"dataset.packing is true, and samples that share a sequence would see one another in a model of type "
            f"{model_type}; each has a padded sequence of its own."
        )
        packing = False
    template = resolve_template(tokenizer, data.template)
    rules = Rules(stage, max_length, template)
    main = tokenise(OpenedSource(locations, data.address, data.format), tokenizer, rules, sampled)
    refuse_nothing(main.report)
    mixed = [
        tokenise(
            OpenedSource(locations, mix.address, mix.format, field=f"dataset.mix[{number}].uri", mixed=True),
            tokenizer,
            rules,
        )
        for number, mix in enumerate(data.mix)
    ]
    for number, (source, mix) in enumerate(zip(mixed, data.mix, strict=True)):
        if mix.weight:
            refuse_nothing(source.report, field=f"dataset.mix[{number}].uri")
    held_out = _held_out_source(data, tokenizer, locations, rules)
    train, validation, samples = _select(job, main, mixed, held_out, warnings)
    sources = [main.report, *(source.report for source in mixed), *([held_out.report] if held_out else [])]
    sequences = TokenDataset.of(samples, train, max_length=max_length, packing=packing)
    checks = TokenDataset.of(samples, validation, max_length=max_length, packing=packing) if len(validation) else None
    if stage is Stage.SFT:
        tokenizer.chat_template = template
    used = template if stage is Stage.SFT else None
    report = data_report(
        stage,
        template=used,
        max_length=max_length,
        packing=packing,
        sources=sources,
        train=sequences,
        validation=checks,
        warnings=warnings,
        ghost_attention=_ghost_report(sampled, rules) if sampled else None,
    )
    return PreparedData(sequences, checks, report, used, packing)


def training_texts(job: JobDocument, locations: Locations) -> Iterator[str]:
    """Every text of the job's dataset, in order: what a tokenizer for a new model is trained on."""
    for example, _ in OpenedSource(locations, job.dataset.address, job.dataset.format).examples():
        if isinstance(example, Text):
            yield example.text
        elif isinstance(example, Conversation | Prompt):
            yield from (turn["content"] for turn in example.messages)
        elif isinstance(example, Preference):
            yield from (turn["content"] for turn in example.prompt)
            yield from example.answers


def _held_out_source(
    data: Dataset, tokenizer: PreTrainedTokenizerBase, locations: Locations, rules: Rules
) -> TokenisedSource | None:
    if data.validation is None or data.validation.address is None:
        return None
    field = "dataset.validation.uri"
    source = tokenise(OpenedSource(locations, data.validation.address, data.format, field=field), tokenizer, rules)
    refuse_nothing(source.report, field=field)
    return source


def refuse_nothing(report: SourceReport, *, field: str = "dataset.uri") -> None:
    """Raises JobFailure when no record is left, with the reason that took most of them."""
    if report.kept:
        return
    reason, dropped = max(report.dropped.items(), key=lambda item: item[1].count)
    places = ", ".join(dropped.examples)
    if reason.startswith(TOO_LONG):
        raise JobFailure(
            FailureReason.DATA_TOO_LONG,
            f"{field}: all {report.records} records are left out, {dropped.count} of them because they are {reason} "
            f"({places}). Raise dataset.maxLength, or shorten them.",
        )
    raise JobFailure(
        FailureReason.DATA_EMPTY,
        f"{field}: none of the {report.records} records can be learned from; {dropped.count} have {reason} ({places}).",
    )


def _select(
    job: JobDocument,
    main: TokenisedSource,
    mixed: list[TokenisedSource],
    held_out: TokenisedSource | None,
    warnings: list[str],
) -> tuple[NDArray[np.int64], NDArray[np.int64], Samples]:
    """Indices of training and of held-out samples, and the samples of all sources together."""
    seed = job.training.seed
    parts = [main, *mixed, *([held_out] if held_out else [])]
    starts = np.cumsum([0, *(len(part.samples) for part in parts)])
    train = np.arange(len(main.samples), dtype=np.int64)
    validation = np.empty(0, dtype=np.int64)
    if held_out is not None:
        validation = np.arange(len(held_out.samples), dtype=np.int64) + starts[-2]
        both = int(np.isin(held_out.keys, main.keys).sum())
        if both:
            warnings.append(f"{both} of {len(held_out.keys)} held-out samples are also in the training data.")
    elif job.dataset.validation is not None:
        chosen = hold_out(main.keys, job.dataset.validation, seed)
        train, validation = train[~chosen], train[chosen]
    drawn = [train]
    for number, (source, mix) in enumerate(zip(mixed, job.dataset.mix, strict=True), 1):
        wanted = round(mix.weight * len(train))
        drawn.append(draw_samples(len(source.samples), wanted, seed, number) + starts[number])
    train = np.concatenate(drawn)
    return train[epoch_order(seed, 0, len(train))], validation, concatenate(part.samples for part in parts)


def _ghost_report(sampled: Mapping[int, SampledAnswer | None], rules: Rules) -> GhostReport:
    total = hashlib.sha256()
    kept: list[int] = []
    for number, answer in sorted(sampled.items()):
        ids = [] if answer is None else [*answer.prompt_ids, *answer.answer_ids]
        total.update(np.asarray([number, len(ids), *ids], dtype=np.int64).tobytes())
        if answer is not None and not fault_of_sample(answer, rules):
            kept.append(len(answer.answer_ids))
    mean = sum(kept) / len(kept) if kept else 0.0
    return GhostReport(f"sha256:{total.hexdigest()}", sampled=len(sampled), kept=len(kept), mean_answer=mean)


def hold_out(keys: NDArray[np.uint64], validation: Validation, seed: int) -> NDArray[np.bool_]:
    """(samples,) bool, which are held out: whole records, and with a record all its repetitions.

    Each record's place in the draw is a hash of its key and the seed, so it does not depend on the file's order.
    """
    assert validation.fraction is not None
    records = np.unique(keys)
    if len(records) < 2:
        raise JobFailure(
            FailureReason.DATA_EMPTY,
            f"dataset.validation.fraction needs two different records to hold one out; the dataset has {len(records)}.",
        )
    count = min(max(1, round(validation.fraction * len(records))), len(records) - 1)
    mixed = _scramble(records ^ np.uint64(_scramble(np.array([seed + 1], dtype=np.uint64))[0]))
    chosen = records[np.argsort(mixed, kind="stable")[:count]]
    return np.isin(keys, chosen)


def _scramble(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finalizer (Steele et al. 2014): a bijection that leaves no pattern of its input."""
    mixed = values.copy()
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def draw_samples(available: int, wanted: int, seed: int, number: int) -> NDArray[np.int64]:
    """`wanted` of the available samples at random; each is taken once before any is taken again."""
    turns = -(-wanted // available) if wanted else 0
    rounds = [epoch_order(seed, 1_000_000 * number + turn, available) for turn in range(turns)]
    return np.concatenate([np.empty(0, dtype=np.int64), *rounds])[:wanted]


__all__ = ["Collator", "PreparedData", "TokenDataset", "epoch_order", "prepare", "training_texts"]
