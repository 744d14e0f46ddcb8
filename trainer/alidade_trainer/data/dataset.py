"""A job's data, ready to train on: read, rendered, tokenised, checked, split, mixed, packed, and accounted for."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from alidade_crds.contract import JobDocument, Stage
from alidade_crds.reasons import FailureReason
from alidade_crds.text_dataset import CleanDataset, Perplexity, TextDataset
from alidade_engine.data.formats import Conversation, Preference, Prompt, Text
from alidade_engine.sources import Locations
from alidade_engine.templates import resolve_template
from alidade_trainer.data.cleaning import is_near
from alidade_trainer.data.encoding import TOO_LONG, Rules
from alidade_trainer.data.languages import languages_known
from alidade_trainer.data.likeness import PERMUTATIONS
from alidade_trainer.data.packing import PACKABLE
from alidade_trainer.data.perplexity import candidates, out_of_bounds
from alidade_trainer.data.report import GhostReport, SourceReport, data_report
from alidade_trainer.data.selection import Repetitions, Sources, find_repetitions, kept_samples, select
from alidade_trainer.data.sequences import Collator, SampleBuilder, Samples, TokenDataset, epoch_order
from alidade_trainer.data.tokenising import OpenedSource, SampledAnswer, fault_of_sample, tokenise
from alidade_trainer.failures import JobFailure

NOT_SCORED = "dataset.filters.perplexity is not counted here: only a job scores records, with the model it starts from."


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
        self.train.samples.save(folder)
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
        samples = Samples.load(folder)
        return cls(
            TokenDataset.load(folder / "train", samples),
            TokenDataset.load(validation, samples) if validation.is_dir() else None,
            meta["report"],
            meta["template"],
            meta["packed"],
        )


@dataclass(frozen=True)
class TokenisedData:
    """A job's records as samples, before it is decided which of them are learned.

    template: Jinja source that conversations were rendered with; None for plain text. max_length: of a sequence, in
    tokens. packing: whether samples share one. warnings: what a person should know so far.
    """

    job: JobDocument
    stage: Stage
    sources: Sources
    repetitions: Repetitions
    samples: Samples
    template: str | None
    max_length: int
    packing: bool
    warnings: list[str]
    ghost_attention: GhostReport | None

    @property
    def candidates(self) -> NDArray[np.int64]:
        """Samples that may be learned, whose losses `prepared` takes."""
        return candidates(self.sources.trained, self.repetitions.repeats)

    def prepared(self, losses: NDArray[np.float32] | None = None) -> PreparedData:
        """What is trained on. losses: (candidates,) in nats, summed over the tokens that are learned of each.

        Without losses no record is left out for its perplexity. Raises JobFailure (DataEmpty) where nothing is left.
        """
        data, warnings = self.job.dataset, list(self.warnings)
        repetitions = self.repetitions
        if data.perplexity is not None:
            if losses is None:
                warnings.append(NOT_SCORED)
            else:
                repetitions = replace(repetitions, repeats=self._out_of_bounds(losses, data.perplexity))
        selection = select(
            self.sources, repetitions, mix=data.mix, validation=data.validation, seed=self.job.training.seed
        )
        origins = _origins(self.sources, len(self.samples)) if data.mix else None
        train = self._sequences(selection.train, origins)
        of_several = origins if self.sources.held_out is None else None
        validation = self._sequences(selection.validation, of_several) if len(selection.validation) else None
        report = data_report(
            self.stage,
            template=self.template,
            max_length=self.max_length,
            packing=self.packing,
            sources=[source.report for source in self.sources.all],
            train=train,
            validation=validation,
            warnings=[*warnings, *selection.warnings],
            ghost_attention=self.ghost_attention,
        )
        return PreparedData(train, validation, report, self.template, self.packing)

    def _sequences(self, indices: NDArray[np.int64], origins: NDArray[np.uint8] | None = None) -> TokenDataset:
        return TokenDataset.of(
            self.samples, indices, max_length=self.max_length, packing=self.packing, datasets=origins
        )

    def _out_of_bounds(self, losses: NDArray[np.float32], bounds: Perplexity) -> list[NDArray[np.bool_]]:
        """For each dataset, (records,) whether a record is left out for whatever reason."""
        left_out = self.repetitions.repeats
        counts = [len(kept_samples(*one)) for one in zip(self.sources.trained, left_out, strict=True)]
        parts = np.split(losses, np.cumsum(counts)[:-1])
        weights = [1.0, *(mix.weight for mix in self.job.dataset.mix)]
        found = []
        for number, (source, repeats, part) in enumerate(zip(self.sources.trained, left_out, parts, strict=True)):
            outside = out_of_bounds(source, repeats, self.samples, part, bounds)
            if outside.any() and weights[number]:
                refuse_nothing(source.report, field=source.source.field)
            found.append(repeats | outside)
        return found


def prepare(job: JobDocument, tokenizer: PreTrainedTokenizerBase, locations: Locations, **options: Any) -> PreparedData:
    """The job's data as sequences of tokens, where no model tells the perplexity of records.

    options: of `tokenise_data`, whose failures it has.
    """
    return tokenise_data(job, tokenizer, locations, **options).prepared()


def tokenise_data(
    job: JobDocument,
    tokenizer: PreTrainedTokenizerBase,
    locations: Locations,
    *,
    stage: Stage | None = None,
    context_length: int | None = None,
    model_type: str | None = None,
    sampled: Mapping[int, SampledAnswer | None] | None = None,
    folder: Path | None = None,
    limit: int | None = None,
) -> TokenisedData:
    """The job's records as tokens: a function of the arguments and the files alone.

    stage: sft or pretrain; default: the job's. context_length: longest sequence of the model, in tokens; a greater
    dataset.maxLength is lowered to it, with a warning. model_type: transformers' name of the model's family; one whose
    samples would see one another is not packed, with a warning. sampled: by number of the example, the last answers
    that ghost attention trains on (see `tokenise`). folder: where tokens are kept and read from as they are needed;
    default: in memory. limit: examples of each address that are read; default: all. The template is set as the
    tokenizer's chat_template.
    Raises JobFailure: ConfigInvalid, DataNotFound, DataMalformed, DataEmpty, DataTooLong, TemplateFailed.
    """
    stage = stage or job.stage
    data = job.dataset
    warnings: list[str] = []
    max_length, packing = _room(data, context_length, model_type, warnings)
    template = resolve_template(tokenizer, data.template)
    refuse_unknown_languages(data)
    rules = Rules(stage, max_length, template, data.filters, with_signatures=is_near(data.deduplication))
    builder = SampleBuilder(folder)
    sources = _tokenised(data, tokenizer, locations, rules, builder, sampled, limit)
    signatures = builder.signatures.done().reshape(-1, PERMUTATIONS)
    repetitions = find_repetitions(sources.trained, sources.held_out, data.deduplication, signatures)
    used = template if stage is Stage.SFT else None
    if used is not None:
        tokenizer.chat_template = used
    return TokenisedData(
        job,
        stage,
        sources,
        repetitions,
        builder.build(),
        used,
        max_length,
        packing,
        warnings,
        ghost_attention=_ghost_report(sampled, rules) if sampled else None,
    )


def _room(
    data: TextDataset, context_length: int | None, model_type: str | None, warnings: list[str]
) -> tuple[int, bool]:
    """Tokens of the longest sequence, and whether samples share one: what the model allows of what is asked."""
    max_length, packing = data.max_length, data.packing
    if context_length is not None and context_length < max_length:
        warnings.append(
            f"dataset.maxLength is {max_length}, the model's context {context_length} tokens; {context_length} is used."
        )
        max_length = context_length
    if packing and model_type is not None and model_type not in PACKABLE:
        warnings.append(
            f"dataset.packing is true, and samples that share a sequence would see one another in a model of type "
            f"{model_type}; each has a padded sequence of its own."
        )
        packing = False
    return max_length, packing


def refuse_unknown_languages(data: CleanDataset) -> None:
    """Raises JobFailure (ConfigInvalid) for a filter by a language that cannot be told."""
    wanted = data.filters.languages if data.filters is not None else []
    unknown = [language for language in wanted if language not in languages_known()]
    if unknown:
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"dataset.filters.languages has {', '.join(unknown)}; languages that can be told are "
            f"{', '.join(sorted(languages_known()))}.",
        )


def _tokenised(
    data: TextDataset,
    tokenizer: PreTrainedTokenizerBase,
    locations: Locations,
    rules: Rules,
    builder: SampleBuilder,
    sampled: Mapping[int, SampledAnswer | None] | None,
    limit: int | None,
) -> Sources:
    """All datasets of the job as samples. Raises JobFailure also for one from which nothing is left."""
    main = tokenise(
        OpenedSource(locations, data.address, data.format), tokenizer, rules, builder, sampled=sampled, limit=limit
    )
    refuse_nothing(main.report)
    mixed = []
    for number, mix in enumerate(data.mix):
        field = f"dataset.mix[{number}].uri"
        opened = OpenedSource(locations, mix.address, mix.format, field=field, mixed=True)
        mixed.append(tokenise(opened, tokenizer, rules, builder, limit=limit))
        if mix.weight:
            refuse_nothing(mixed[-1].report, field=field)
    held_out = None
    if data.validation is not None and data.validation.address is not None:
        field = "dataset.validation.uri"
        opened = OpenedSource(locations, data.validation.address, data.format, field=field)
        # Filters say what is learned; what is measured stays what it is.
        held_out = tokenise(opened, tokenizer, replace(rules, filters=None), builder, limit=limit)
        refuse_nothing(held_out.report, field=field)
    sources = Sources(main, mixed, held_out)
    names = dataset_names([source.report.uri for source in sources.trained])
    for name, source in zip(names, sources.trained, strict=True):
        source.report.name = name
    return sources


def dataset_names(uris: list[str]) -> list[str]:
    """Short names for addresses, which metrics use: the last part of each, and a number where two are alike.

    `pvc://data/qa/train.jsonl` is `train`, `hf://org/name@main` is `name`.
    """
    lasts = [uri.partition("#")[0].rstrip("/").rpartition("/")[2].partition("@")[0] for uri in uris]
    names = [last.partition(".")[0] or last for last in lasts]
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(name if names.count(name) == 1 else f"{name}-{seen[name]}")
    return numbered


def _origins(sources: Sources, samples: int) -> NDArray[np.uint8]:
    """(samples,) the number of the dataset that each is from."""
    origins = np.zeros(samples, dtype=np.uint8)
    for number, source in enumerate(sources.trained):
        origins[source.samples.start : source.samples.stop] = number
    return origins


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


def refuse_nothing(report: SourceReport, *, field: str = "dataset.uri") -> None:
    """Raises JobFailure when no record is left, with the reason that took most of them."""
    if report.kept > report.removed:
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


__all__ = [
    "Collator",
    "PreparedData",
    "TokenDataset",
    "TokenisedData",
    "epoch_order",
    "prepare",
    "tokenise_data",
    "training_texts",
]
