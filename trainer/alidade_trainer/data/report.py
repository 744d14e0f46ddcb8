"""What became of a dataset's records, in numbers that a model card and a result can carry."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from alidade_crds.contract import Stage
from alidade_trainer.data.sequences import TokenDataset

# Places shown for each reason that records are left out for.
EXAMPLES_SHOWN = 5


@dataclass
class Dropped:
    """Records left out for one reason, with the places of the first."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, place: object) -> None:
        """Counts one more."""
        self.count += 1
        if len(self.examples) < EXAMPLES_SHOWN:
            self.examples.append(str(place))


@dataclass
class SourceReport:
    """One address of records.

    shape: the kind of its first example; files: sha256 of each; digest: of all of them.
    name: in metrics. records: examples read; kept: those with tokens to learn that are short enough and pass the
    filters; duplicates: kept ones that are equal to another; removed: kept ones that are not learned, since
    dataset.deduplication leaves out what repeats an earlier record. perplexity: of its records by quantile, where they
    are filtered by it.
    """

    uri: str
    shape: str
    files: dict[str, str]
    digest: str
    records: int = 0
    kept: int = 0
    duplicates: int = 0
    removed: int = 0
    name: str = ""
    dropped: dict[str, Dropped] = field(default_factory=dict)
    held_out_files: list[str] = field(default_factory=list)
    perplexity: dict[str, float] | None = None

    def drop(self, reason: str, place: object) -> None:
        """Counts a record that is left out."""
        self.dropped.setdefault(reason, Dropped()).add(place)

    def drop_kept(self, reason: str, count: int, places: Sequence[object]) -> None:
        """Counts records that were kept at first; places: of the first of them."""
        self.kept -= count
        self.dropped[reason] = Dropped(count, [str(place) for place in places])

    def sentences(self) -> list[str]:
        """What a person should know."""
        said = [
            f"{self.uri}: {item.count} of {self.records} records are left out: {reason} ({', '.join(item.examples)}"
            f"{', …' if item.count > len(item.examples) else ''})."
            for reason, item in sorted(self.dropped.items())
        ]
        if self.removed:
            said.append(f"{self.uri}: {self.removed} of {self.kept} records are left out: they repeat an earlier one.")
        elif self.duplicates:
            said.append(f"{self.uri}: {self.duplicates} of {self.kept} records repeat another.")
        if self.held_out_files:
            said.append(
                f"{self.uri}: {', '.join(self.held_out_files)} left out, held-out data by name; name the file to "
                "use it."
            )
        return said


@dataclass
class SplitReport:
    """Training or held-out data after selection: tokens are of one pass, answer_tokens those that carry loss."""

    samples: int = 0
    sequences: int = 0
    tokens: int = 0
    answer_tokens: int = 0
    longest_sample: int = 0
    mean_sample: float = 0.0
    packing_efficiency: float = 1.0


@dataclass
class GhostReport:
    """Conversations whose last answer was sampled (alidade_trainer.data.ghost_attention).

    digest: of prompts and answers. mean_answer: tokens of an answer that is kept.
    """

    digest: str
    sampled: int = 0
    kept: int = 0
    mean_answer: float = 0.0


@dataclass
class DataReport:
    """What became of all data of a job; packing_efficiency is the share of places that hold a token."""

    stage: str
    template: str | None
    max_length: int
    packing: bool
    sources: list[SourceReport]
    train: SplitReport
    validation: SplitReport | None
    warnings: list[str]
    ghost_attention: GhostReport | None = None

    @property
    def digest(self) -> str:
        """The digest of the files trained on first."""
        return self.sources[0].digest

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)


def split_report(sequences: TokenDataset, max_length: int) -> SplitReport:
    """The sequences in numbers. max_length: of a sequence, which packing fills."""
    lengths = sequences.samples.lengths[sequences.members]
    places = len(sequences) * max_length
    return SplitReport(
        samples=len(sequences.members),
        sequences=len(sequences),
        tokens=sequences.tokens,
        answer_tokens=sequences.learned_tokens,
        longest_sample=int(lengths.max()),
        mean_sample=float(lengths.mean()),
        packing_efficiency=sequences.tokens / places if sequences.packed else 1.0,
    )


def data_report(
    stage: Stage,
    *,
    template: str | None,
    max_length: int,
    packing: bool,
    sources: list[SourceReport],
    train: TokenDataset,
    validation: TokenDataset | None,
    warnings: Sequence[str],
    ghost_attention: GhostReport | None = None,
) -> dict[str, Any]:
    """The report of a job's data, as JSON can hold it; what the sources have to say comes after the warnings."""
    return DataReport(
        stage=stage.value,
        template=template,
        max_length=max_length,
        packing=packing,
        sources=sources,
        train=split_report(train, max_length),
        validation=split_report(validation, max_length) if validation else None,
        warnings=[*warnings, *(sentence for source in sources for sentence in source.sentences())],
        ghost_attention=ghost_attention,
    ).to_dict()
