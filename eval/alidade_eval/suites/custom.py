"""The custom suite: a Python function of the image scores the answers."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alidade_crds.contract import JobSuite
from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure
from alidade_eval.asked import Answers, Collection, Rows
from alidade_eval.items import Item
from alidade_eval.suites.answering import indices_of, mean_measure, samples, texts, troubles
from alidade_eval.suites.base import Findings, Suite, check_metrics, wanted_only, whole

SCORE = "score"
"""Name of the metric of a function that returns plain numbers."""
_CALLED = (
    "It is called with lists of prompts (each a list of turns), answers and references (a list each), and returns one "
    "number for each answer, or such a list for each name of a metric."
)


class CustomSuite(Suite):
    """Means of the numbers that the function gives, the more the better."""

    def __init__(self, spec: JobSuite, items: Sequence[Item], *, seed: int, field: str) -> None:
        """Raises JobFailure (EntryPointFailed) when there is no such function."""
        super().__init__(spec, items)
        assert spec.entry_point is not None, "the schema asks for one"
        self._function = load_function(spec.entry_point, field=f"{field}.entryPoint")
        self._field = field
        self._answers = Answers.of(spec, items, seed)

    def collections(self) -> Sequence[Collection]:
        """Answers."""
        return [self._answers]

    def findings(self, rows: Rows, models: Sequence[str]) -> Findings:
        """As `Suite.findings`. Raises JobFailure (EntryPointFailed) when the function fails."""
        found = whole(rows, self._answers.key, models)
        indices, answers = indices_of(found), texts(found)
        scored = {model: self._scored([self.items[index] for index in indices], own) for model, own in answers.items()}
        names = list(next(iter(scored.values())))
        check_metrics(self.spec, names, self._field)
        scores = {name: {model: own[name] for model, own in scored.items()} for name in names}
        measures = [mean_measure(name, own) for name, own in scores.items()]
        return Findings(
            measures=[*wanted_only(measures, self.spec), *troubles(rows, self._answers, models)],
            samples=samples(self.items, indices, answers, scores),
        )

    def _scored(self, items: Sequence[Item], answers: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        name = self.spec.entry_point
        try:
            found = self._function(
                [item.messages for item in items], list(answers), [list(item.references) for item in items]
            )
            named = found if isinstance(found, Mapping) else {SCORE: found}
            scores = {str(metric): np.asarray(values, dtype=np.float64) for metric, values in named.items()}
        except Exception as error:  # the user's own code may raise anything
            raise JobFailure(
                FailureReason.ENTRY_POINT_FAILED, f"{name} raised {type(error).__name__}: {error}. {_CALLED}"
            ) from error
        for metric, values in scores.items():
            if values.shape != (len(answers),) or not np.isfinite(values).all():
                raise JobFailure(
                    FailureReason.ENTRY_POINT_FAILED,
                    f"{name} returned {values.shape} numbers as {metric} for {len(answers)} answers, or some that are "
                    f"not finite. {_CALLED}",
                )
        return scores


def load_function(entry_point: str, *, field: str) -> Callable[..., Any]:
    """The function that module:function names. Raises JobFailure (EntryPointFailed) when there is none."""
    module, _, path = entry_point.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise JobFailure(
            FailureReason.ENTRY_POINT_FAILED,
            f"{field} is {entry_point}: {error}. Put the module into the evaluation's image, and name it as "
            "module:function.",
        ) from error
    if not callable(found):
        raise JobFailure(FailureReason.ENTRY_POINT_FAILED, f"{field} is {entry_point}, which is no function.")
    loaded: Callable[..., Any] = found
    return loaded
