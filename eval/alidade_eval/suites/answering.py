"""What suites share that look at answers."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from alidade_crds.evaluation import FAILED, UNFINISHED
from alidade_eval.asked import Answers, Rows
from alidade_eval.items import Item
from alidade_eval.measures import Measure
from alidade_eval.samples import FAILURE, Row
from alidade_eval.suites.base import Sample

Scores = Mapping[str, NDArray[np.float64]]
"""For each model (samples,) numbers."""


def mean_measure(metric: str, scores: Scores, *, binary: bool = False, least: float = -math.inf) -> Measure:
    """A metric that is the mean of a number of each sample, the more the better."""
    statistics = {model: own[:, None] for model, own in scores.items()}
    return Measure(metric, "higher", statistics, binary=binary, least=least)


def troubles(rows: Rows, answers: Answers, models: Sequence[str]) -> list[Measure]:
    """Shares of samples without an answer, and of answers that the limit cut off; each only where there are any."""
    by_model = {model: rows[answers.key][model] for model in models}
    failed = {model: _shares(own, lambda row: FAILURE in row) for model, own in by_model.items()}
    cut = {model: _shares(own, lambda row: not row.get("finished", True)) for model, own in by_model.items()}
    return [
        Measure(metric, "lower", shares, binary=True)
        for metric, shares in ((FAILED, failed), (UNFINISHED, cut))
        if any(own.any() for own in shares.values())
    ]


def _shares(rows: Sequence[Row], is_so: Callable[[Row], bool]) -> NDArray[np.float64]:
    return np.array([[float(is_so(row))] for row in rows])


def texts(found: Mapping[str, Sequence[Row]]) -> dict[str, list[str]]:
    """Each model's answers, without white space around them."""
    return {model: [row["text"].strip() for row in own] for model, own in found.items()}


def samples(
    items: Sequence[Item], indices: Sequence[int], answers: Mapping[str, Sequence[str]], scores: Mapping[str, Scores]
) -> list[Sample]:
    """The records as they were measured. indices: of the samples in answers and scores, in order."""
    return [
        Sample(
            index,
            items[index].question,
            items[index].references,
            {model: own[place] for model, own in answers.items()},
            {metric: {model: float(own[place]) for model, own in by.items()} for metric, by in scores.items()},
        )
        for place, index in enumerate(indices)
    ]


def indices_of(found: Mapping[str, Sequence[Row]]) -> list[int]:
    """The records of the rows, which are the same for every model."""
    return [row["index"] for row in next(iter(found.values()))]
