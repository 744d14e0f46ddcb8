"""Results of a metric: every model's value with its interval, and whether it differs from the baseline's.

Models are compared on the same samples: what makes a question hard for both does not count as a difference. Where each
sample is right or wrong, McNemar's exact test on those that one model alone has right decides, and the interval of the
difference agrees with it; elsewhere that interval, by the same resamples of both models, decides: whether 0 is in it.
"""

import math
from collections.abc import Mapping

import numpy as np

from alidade_crds.evaluation import EvaluationResult, Verdict
from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure
from alidade_engine.intervals import Interval, percentile_interval
from alidade_eval.inference.intervals import (
    Draws,
    jackknife_interval,
    proportion_interval,
    resampled,
    set_values,
)
from alidade_eval.inference.pairs import share_difference
from alidade_eval.measures import AnyMeasure, Direction, Measure, SetMeasure, Statistics


def results_of(measure: AnyMeasure, *, suite: str, baseline: str, seed: int) -> list[EvaluationResult]:
    """The metric of every model, in the measure's order; nothing of a measure without samples."""
    if isinstance(measure, SetMeasure):
        return _set_results(measure, suite, baseline) if measure.samples else []
    samples = len(next(iter(measure.statistics.values())))
    return _sum_results(measure, samples, suite, baseline, seed) if samples else []


def _sum_results(measure: Measure, samples: int, suite: str, baseline: str, seed: int) -> list[EvaluationResult]:
    values = {
        model: float(measure.value(statistics.sum(0), samples)) for model, statistics in measure.statistics.items()
    }
    if samples == 1:  # nothing tells how another sample would differ
        return [_result(measure, suite, model, value, samples) for model, value in values.items()]
    draws = Draws(samples, seed=seed)
    drawn = {} if measure.binary else {model: resampled(draws, measure, model) for model in values}
    found = []
    for model, value in values.items():
        interval = _interval(measure, model, drawn, samples)
        if model == baseline:
            found.append(_result(measure, suite, model, value, samples, interval))
            continue
        difference = _difference(measure, model, baseline, drawn, samples)
        verdict = judged(measure.direction, sign_of(difference))
        found.append(_result(measure, suite, model, value, samples, interval, difference, verdict))
    return found


def _interval(measure: Measure, model: str, drawn: Mapping[str, Statistics], samples: int) -> Interval:
    if measure.binary:
        return proportion_interval(int(measure.statistics[model].sum()), samples)
    low, high = percentile_interval(drawn[model], samples=samples)
    return max(low, measure.least), high


def _difference(measure: Measure, model: str, baseline: str, drawn: Mapping[str, Statistics], samples: int) -> Interval:
    if measure.binary:
        one, other = measure.statistics[model][:, 0], measure.statistics[baseline][:, 0]
        return share_difference(int((one > other).sum()), int((one < other).sum()), samples)
    return percentile_interval(drawn[model] - drawn[baseline], samples=samples)


def sign_of(difference: Interval) -> int:
    """1 for an interval above 0, -1 for one below, else 0."""
    return int(difference[0] > 0) - int(difference[1] < 0)


def judged(direction: Direction, sign: int) -> Verdict | None:
    """The verdict on a difference of that sign, 0 for none that could be told from chance."""
    if direction is None:
        return None
    if sign == 0:
        return "indistinguishable"
    return "better" if (sign > 0) == (direction == "higher") else "worse"


def _set_results(measure: SetMeasure, suite: str, baseline: str) -> list[EvaluationResult]:
    if measure.samples == 1:
        return [_result(measure, suite, model, one(np.arange(1)), 1) for model, one in measure.value.items()]
    found = []
    reference, reference_parts = set_values(measure, baseline)
    for model in measure.value:
        whole, parts = set_values(measure, model)
        low, high = jackknife_interval(whole, parts)
        interval = max(low, measure.least), high
        if model == baseline:
            found.append(_result(measure, suite, model, whole, measure.samples, interval))
            continue
        differences = [one - other for one, other in zip(parts, reference_parts, strict=True)]
        difference = jackknife_interval(whole - reference, differences)
        verdict = judged(measure.direction, sign_of(difference))
        found.append(_result(measure, suite, model, whole, measure.samples, interval, difference, verdict))
    return found


def _result(
    measure: AnyMeasure,
    suite: str,
    model: str,
    value: float,
    samples: int,
    interval: Interval | None = None,
    difference: Interval | None = None,
    verdict: Verdict | None = None,
) -> EvaluationResult:
    if not math.isfinite(value):
        raise JobFailure(
            FailureReason.TASK_INVALID,
            f"{measure.metric} of suite {suite} is {value} for {model}, which is no number to compare. Correct what "
            "computes it, or leave it out.",
        )
    low, high = _finite(interval)
    difference_low, difference_high = _finite(difference)
    return EvaluationResult(
        suite=suite,
        metric=measure.metric,
        model=model,
        value=value,
        low=low,
        high=high,
        n=samples,
        verdict=verdict,
        difference_low=difference_low,
        difference_high=difference_high,
    )


def _finite(interval: Interval | None) -> tuple[float | None, float | None]:
    if interval is None or not all(map(math.isfinite, interval)):
        return None, None
    return interval
