"""Datasets whose records are chosen: repetitions left out, and what filters say; and that of a language model."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from alidade_crds.base import Spec, spec_config
from alidade_crds.blocks import DATASET_RULES, Dataset


class DeduplicationMethod(StrEnum):
    """How alike two records have to be for the later one to be left out."""

    EXACT = "exact"
    NEAR = "near"


class Deduplication(Spec):
    """Leaves out records that repeat an earlier one, of the same dataset or of one before it."""

    model_config = spec_config(
        ("!has(self.similarity) || self.method == 'near'", "similarity is of method near; exact is 1"),
    )

    method: DeduplicationMethod = Field(
        description="exact leaves out records that are equal, token for token; near also those that are much alike."
    )
    similarity: float | None = Field(
        None,
        ge=0.6,
        le=1,
        description="Share of two records' sequences of five characters that they have in common (Jaccard), from which "
        "on they repeat one another; estimated by MinHash (Broder 1997) to about 0.04. Default: 0.8.",
    )


_TOKENS_RULE = (
    "!has(self.minTokens) || !has(self.maxTokens) || self.minTokens <= self.maxTokens",
    "minTokens must not be above maxTokens",
)


MIN_TOKENS_RULE = (
    "!has(self.filters) || !has(self.filters.minTokens) || self.filters.minTokens <= self.maxLength",
    "filters.minTokens must not be above maxLength",
)


class Filters(Spec):
    """Which records are used; the others are counted, and named in the report."""

    model_config = spec_config(
        (
            "has(self.minTokens) || has(self.maxTokens) || self.languages.size() > 0",
            "at least one of minTokens, maxTokens, languages must be set",
        ),
        _TOKENS_RULE,
    )

    min_tokens: int | None = Field(None, ge=1, le=131072, description="Fewest tokens of a record, template included.")
    max_tokens: int | None = Field(None, ge=1, le=10_000_000, description="Most tokens of a record, template included.")
    languages: list[Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$", max_length=3)]] = Field(
        [],
        max_length=64,
        description="Languages that records may be in, by their ISO 639 codes, such as en or zh; default: all. A "
        "record too short to tell is kept.",
    )


class Perplexity(Spec):
    """Bounds on how well the model that training starts from foretells a record; each holds for itself."""

    model_config = spec_config(
        (
            "has(self.minimum) || has(self.maximum) || has(self.minimumQuantile) || has(self.maximumQuantile)",
            "at least one of minimum, maximum, minimumQuantile, maximumQuantile must be set",
        ),
        (
            "!has(self.minimum) || !has(self.maximum) || self.minimum < self.maximum",
            "minimum must be below maximum",
        ),
        (
            "!has(self.minimumQuantile) || !has(self.maximumQuantile) || self.minimumQuantile < self.maximumQuantile",
            "minimumQuantile must be below maximumQuantile",
        ),
    )

    minimum: float | None = Field(None, ge=1, description="Least perplexity of a record.")
    maximum: float | None = Field(None, ge=1, description="Greatest perplexity of a record.")
    minimum_quantile: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Least perplexity, as the quantile of its dataset: 0.1 leaves out the lowest tenth.",
    )
    maximum_quantile: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Greatest perplexity, as the quantile of its dataset: 0.9 leaves out the highest tenth.",
    )


class TextFilters(Filters):
    """Which records are learned; the others are counted, and named in the report."""

    model_config = spec_config(
        (
            "has(self.minTokens) || has(self.maxTokens) || self.languages.size() > 0 || has(self.perplexity)",
            "at least one of minTokens, maxTokens, languages, perplexity must be set",
        ),
        _TOKENS_RULE,
    )

    perplexity: Perplexity | None = Field(
        None,
        description="Bounds on a record's perplexity under the model that training starts from, over the tokens that "
        "are learned (CCNet, Wenzek et al. 2020); repetitions are left out before.",
    )


class CleanDataset(Dataset):
    """A dataset of which repetitions and what filters say are left out."""

    model_config = spec_config(*DATASET_RULES, MIN_TOKENS_RULE)

    deduplication: Deduplication | None = Field(
        None, description="Which repetitions are left out; default: none, they are only counted."
    )
    filters: Filters | None = Field(None, description="Which records are used; default: all that fit.")


class TextDataset(CleanDataset):
    """What a language model is trained on, and how a record becomes tokens."""

    model_config = spec_config(
        *DATASET_RULES,
        MIN_TOKENS_RULE,
        (
            "!self.lengthGrouping || !self.packing",
            "lengthGrouping saves padding, of which packing leaves none: set packing: false, or leave it out",
        ),
    )

    length_grouping: bool = Field(
        False,
        description="Whether each step takes sequences of like length, which saves padding; for packing: false. "
        "Steps come in random order.",
    )
    filters: TextFilters | None = Field(None, description="Which records are learned; default: all that fit.")

    @property
    def perplexity(self) -> Perplexity | None:
        """Bounds on the perplexity of records; None without them."""
        return self.filters.perplexity if self.filters is not None else None

    @classmethod
    def of(cls, dataset: Dataset) -> "TextDataset":
        """The same dataset with all its records learned, unless it says otherwise itself."""
        return dataset if isinstance(dataset, cls) else cls.model_validate(dataset.model_dump(exclude_unset=True))
