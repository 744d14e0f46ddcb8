"""The diversity suite: how many different things a model says (LMFlow's table 5)."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from alidade_crds.contract import JobSuite
from alidade_crds.evaluation import SUITE_METRICS
from alidade_eval.asked import Answers, Collection, Rows
from alidade_eval.items import Item
from alidade_eval.measures import AnyMeasure, Measure, SetMeasure
from alidade_eval.metrics.diversity import distinct, lengths, msttr, unique, words
from alidade_eval.suites.answering import indices_of, samples, texts, troubles
from alidade_eval.suites.base import Findings, Suite, check_metrics, wanted_only, whole

Words = Sequence[Sequence[str]]
_SETS: dict[str, Callable[[Words], float]] = {
    "msttr100": msttr,
    "distinct1": lambda all_: distinct(all_, 1),
    "distinct2": lambda all_: distinct(all_, 2),
    "unique1": lambda all_: unique(all_, 1),
    "unique2": lambda all_: unique(all_, 2),
}


class DiversitySuite(Suite):
    """Of all answers together; they are compared with no other text."""

    def __init__(self, spec: JobSuite, items: Sequence[Item], *, seed: int, field: str) -> None:
        check_metrics(spec, SUITE_METRICS[spec.type], field)
        super().__init__(spec, items)
        self._answers = Answers.of(spec, items, seed)

    def collections(self) -> Sequence[Collection]:
        """Answers."""
        return [self._answers]

    def findings(self, rows: Rows, models: Sequence[str]) -> Findings:
        """As `Suite.findings`."""
        found = whole(rows, self._answers.key, models)
        indices, answers = indices_of(found), texts(found)
        spoken = {model: [words(answer) for answer in own] for model, own in answers.items()}
        measures: list[AnyMeasure] = [
            SetMeasure(metric, "higher", len(indices), _of_sets(spoken, one), least=0.0)
            for metric, one in _SETS.items()
        ]
        size = {model: np.array(lengths(own)) for model, own in spoken.items()}
        measures.append(Measure("mean_length", None, {model: own[:, None] for model, own in size.items()}))
        return Findings(
            measures=[*wanted_only(measures, self.spec), *troubles(rows, self._answers, models)],
            samples=samples(self.items, indices, answers, {"mean_length": size}),
        )


def _of_sets(
    spoken: Mapping[str, Words], metric: Callable[[Words], float]
) -> dict[str, Callable[[NDArray[np.intp]], float]]:
    """The metric of each model on those of its answers that are kept."""

    def of(own: Words) -> Callable[[NDArray[np.intp]], float]:
        return lambda kept: metric([own[place] for place in kept])

    return {model: of(own) for model, own in spoken.items()}
