"""Which of a job's samples are learned, which are held out, and which only repeat others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from alidade_crds.blocks import MixedDataset, Validation
from alidade_crds.reasons import FailureReason
from alidade_crds.text_dataset import Deduplication, DeduplicationMethod
from alidade_trainer.data.likeness import earlier_alike
from alidade_trainer.data.report import SourceReport
from alidade_trainer.data.sequences import epoch_order
from alidade_trainer.data.tokenising import TokenisedSource
from alidade_trainer.failures import JobFailure

SIMILARITY = 0.8
"""From which on records are near-duplicates, where nothing else is said (Lee et al. 2022 take 0.8)."""


@dataclass(frozen=True)
class Sources:
    """All that was tokenised for a job: the dataset itself, those mixed in, and, at an address of its own, what is held
    out."""

    main: TokenisedSource
    mixed: list[TokenisedSource]
    held_out: TokenisedSource | None

    @property
    def trained(self) -> list[TokenisedSource]:
        """Those that are trained on, in order."""
        return [self.main, *self.mixed]

    @property
    def all(self) -> list[TokenisedSource]:
        """Every one, in the order of its samples."""
        return [*self.trained, *([self.held_out] if self.held_out else [])]


@dataclass(frozen=True)
class Repetitions:
    """Records that repeat others.

    repeats: for each dataset that is trained on, (records,) whether a record is left out for an earlier one.
    near_leaks: held-out records that are much like one trained on, those that are equal not counted.
    """

    repeats: list[NDArray[np.bool_]]
    near_leaks: int = 0


class Keyed(Protocol):
    """Records of an address. keys: (records,) uint64, equal for equal records."""

    @property
    def keys(self) -> NDArray[np.uint64]: ...

    @property
    def report(self) -> SourceReport: ...


def find_repetitions(
    trained: Sequence[Keyed],
    held_out: Keyed | None,
    deduplication: Deduplication | None,
    signatures: NDArray[np.uint32],
) -> Repetitions:
    """What is left out, and counted in the reports of the datasets.

    signatures: (records of all sources, those held out last, PERMUTATIONS), see `likeness`; read for method near only.
    """
    counts = [len(source.keys) for source in trained]
    if deduplication is None:
        return Repetitions([np.zeros(count, dtype=np.bool_) for count in counts])
    keys = np.concatenate([source.keys for source in trained])
    _, firsts = np.unique(keys, return_index=True)
    repeats = np.ones(len(keys), dtype=np.bool_)
    repeats[firsts] = False
    near_leaks = 0
    if deduplication.method == DeduplicationMethod.NEAR:
        alike = earlier_alike(signatures, deduplication.similarity or SIMILARITY)
        repeats |= alike[: len(keys)] >= 0
        if held_out is not None:
            leaks = (alike[len(keys) :] >= 0) & (alike[len(keys) :] < len(keys))
            near_leaks = int((leaks & ~np.isin(held_out.keys, keys[~repeats])).sum())
    parts = np.split(repeats, np.cumsum(counts)[:-1])
    for source, part in zip(trained, parts, strict=True):
        source.report.removed = int(part.sum())
    return Repetitions(parts, near_leaks)


@dataclass(frozen=True)
class Selection:
    """Indices of samples: train in the order that they are packed in, and validation."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    warnings: list[str]


def select(
    sources: Sources,
    repetitions: Repetitions,
    *,
    mix: Sequence[MixedDataset],
    validation: Validation | None,
    seed: int,
) -> Selection:
    """What is trained on and what is held out: a function of the arguments alone."""
    fraction = validation.fraction or 0.0 if validation is not None else 0.0
    first, *others = repetitions.repeats
    main = _split(sources.main, first, fraction, seed)
    parts, drawn = [main], [main.learned]
    for number, (source, repeats, one) in enumerate(zip(sources.mixed, others, mix, strict=True), 1):
        available, records = int((~repeats[source.record_of]).sum()), len(np.unique(source.keys[~repeats]))
        if one.weight and not available:
            raise all_repeat(number, source.report)
        wanted = round(one.weight * len(main.learned))
        # Of what is drawn, so that what is measured is mixed as what is learned; of one record nothing would be left.
        share = fraction * min(1.0, wanted / available) if records > 1 else 0.0
        parts.append(_split(source, repeats, share, seed))
        drawn.append(parts[-1].learned[draw_samples(len(parts[-1].learned), wanted, seed, number)])
    train = np.concatenate(drawn)
    held_out, held_keys = (np.concatenate([getattr(part, name) for part in parts]) for name in ("held_out", "keys"))
    if sources.held_out is not None:
        held_out, held_keys = np.array(sources.held_out.samples, dtype=np.int64), sources.held_out.keys
    warnings = _leaks(sources, drawn, held_keys, repetitions.near_leaks)
    return Selection(train[epoch_order(seed, 0, len(train))], held_out, warnings)


def all_repeat(number: int, report: SourceReport) -> JobFailure:
    """That of the dataset mixed in as so manieth, from 1, nothing is left."""
    return JobFailure(
        FailureReason.DATA_EMPTY,
        f"dataset.mix[{number - 1}].uri: all {report.kept} records repeat earlier ones of this job's data. Remove it "
        "from mix, or leave out dataset.deduplication.",
    )


def kept_samples(source: TokenisedSource, left_out: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(samples,) those of records that are not left out, counted within the source."""
    return np.flatnonzero(~left_out[source.record_of])


@dataclass(frozen=True)
class _Split:
    """Indices of a dataset's samples, learned and held out, and the keys of the records held out, each once."""

    learned: NDArray[np.int64]
    held_out: NDArray[np.int64]
    keys: NDArray[np.uint64]


def _split(source: TokenisedSource, repeats: NDArray[np.bool_], fraction: float, seed: int) -> _Split:
    """A share of what repeats nothing is held out, of a share of 0 nothing."""
    samples = kept_samples(source, repeats)
    keys = source.keys[source.record_of[samples]]
    chosen = hold_out(keys, fraction, seed) if fraction else np.zeros(len(samples), dtype=np.bool_)
    places = samples + source.samples.start
    return _Split(places[~chosen], places[chosen], np.unique(keys[chosen]))


def _leaks(sources: Sources, drawn: Sequence[NDArray[np.int64]], held_keys: NDArray[np.uint64], near: int) -> list[str]:
    """Sentences about held-out records that are trained on as well; repetitions among them count each."""
    trained = [
        source.keys[source.record_of[samples - source.samples.start]]
        for source, samples in zip(sources.trained, drawn, strict=True)
    ]
    both = int(np.isin(held_keys, np.concatenate(trained)).sum())
    said = []
    if both:
        said.append(f"{both} of {len(held_keys)} held-out records are also in the training data.")
    return [*said, *near_leak(near, len(held_keys))]


def near_leak(count: int, held_out: int) -> list[str]:
    """A sentence about held-out records that are much like one trained on, where there are any."""
    return [f"{count} of {held_out} held-out records are much like one of the training data."] if count else []


def hold_out(keys: NDArray[np.uint64], fraction: float, seed: int) -> NDArray[np.bool_]:
    """(samples,) bool, which are held out: whole records, and with a record all its repetitions.

    Each record's place in the draw is a hash of its key and the seed, so it does not depend on the file's order.
    """
    records = np.unique(keys)
    if len(records) < 2:
        raise JobFailure(
            FailureReason.DATA_EMPTY,
            f"dataset.validation.fraction needs two different records to hold one out; the dataset has {len(records)}.",
        )
    count = min(max(1, round(fraction * len(records))), len(records) - 1)
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
