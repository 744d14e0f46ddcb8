"""What a suite is."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from alidade_crds.contract import JobSuite
from alidade_crds.evaluation import EvaluationResult
from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure
from alidade_eval.asked import Collection, Keep, Rows
from alidade_eval.items import Item
from alidade_eval.measures import AnyMeasure
from alidade_eval.samples import FAILURE, Row


@dataclass(frozen=True)
class Findings:
    """What a suite has found.

    measures: of every model, from which values, intervals and comparisons are computed. results: numbers with
    intervals of their own. samples: one entry for each record that was measured, for the report. details: what else the
    results file holds. warnings: what a person should know.
    """

    measures: Sequence[AnyMeasure] = ()
    results: Sequence[EvaluationResult] = ()
    samples: Sequence["Sample"] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Sample:
    """One record as it was measured.

    answers: by model, as text. scores: by metric, then by model; only metrics that are a mean over records.
    """

    index: int
    question: str
    references: Sequence[str]
    answers: Mapping[str, str]
    scores: Mapping[str, Mapping[str, float]]


class SecondCollection(Protocol):
    """Rows that are made of the rows of other collections, when no measured model is in memory.

    key, size: as of `Collection`. needs: key of the collection whose rows have to be there.
    """

    @property
    def key(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def needs(self) -> str: ...

    def prepare(self) -> None:
        """Loads what is needed, such as a reward model; called once before `collect`."""

    def release(self) -> None:
        """Frees it."""

    def subjects(self, models: Sequence[str]) -> Sequence[str]:
        """Names under which rows are kept: models, or pairs of them."""

    def collect(self, subject: str, indices: Sequence[int], rows: Rows, keep: Keep) -> None:
        """Calls keep with a row for each of the indices, in any order."""


class Suite(ABC):
    """One set of measurements. Its constructor checks that the records have what it needs."""

    def __init__(self, spec: JobSuite, items: Sequence[Item] = ()) -> None:
        self.spec = spec
        self.items = items

    @property
    def title(self) -> str:
        """Its name in the results."""
        return self.spec.title

    @abstractmethod
    def collections(self) -> Sequence[Collection]:
        """What is asked of every model, one model at a time."""

    def second(self) -> Sequence[SecondCollection]:
        """What is made of the rows of all models afterwards, such as rewards of answers."""
        return []

    @abstractmethod
    def findings(self, rows: Rows, models: Sequence[str]) -> Findings:
        """What the rows, of both kinds of collection, come to. models: their names, the baseline among them."""


def whole(rows: Rows, key: str, models: Sequence[str], *, indices: Sequence[int] | None = None) -> dict[str, list[Row]]:
    """The rows of a collection that no model has failed at, by model: the same records in the same order for all.

    indices: those that may be among them; all by default.
    """
    by_model = {model: {row["index"]: row for row in rows[key][model]} for model in models}
    shared = set.intersection(*(set(found) for found in by_model.values()))
    if indices is not None:
        shared &= set(indices)
    good = [index for index in sorted(shared) if not any(FAILURE in by_model[model][index] for model in models)]
    return {model: [by_model[model][index] for index in good] for model in models}


def check_metrics(suite: JobSuite, known: Sequence[str], field_name: str) -> None:
    """Raises JobFailure (ConfigInvalid) when a metric is asked for that the suite does not have."""
    for wanted in suite.metrics:
        if wanted not in known:
            near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.4) or list(known)
            raise JobFailure(
                FailureReason.CONFIG_INVALID,
                f"{field_name}.metrics names {wanted}, which a suite of type {suite.type} does not have. Did you mean "
                f"{' or '.join(near)}?",
            )


def wanted_only(measures: Sequence[AnyMeasure], suite: JobSuite) -> list[AnyMeasure]:
    """The measures that the suite reports: all, or those it names."""
    return [one for one in measures if not suite.metrics or one.metric in suite.metrics]
