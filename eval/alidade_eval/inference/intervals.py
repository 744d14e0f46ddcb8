"""95 % intervals of metrics.

Means, ratios and corpus scores are functions of sums over samples. A bootstrap (Efron 1979) of such a sum needs no
sample twice in memory: how often each sample is drawn is a row of a multinomial, and all resamples are one product of
matrices. Counts have Wilson's interval (Wilson 1927), which is sound where all or none of the samples count. Metrics of
whole sets, which repeated samples would change, have an interval by leaving groups of samples out (jackknife;
Quenouille 1956, Efron & Tibshirani 1993, chapter 11).
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, t

from alidade_engine.intervals import LEVEL, RESAMPLES, Interval
from alidade_eval.measures import Measure, SetMeasure, Statistics

GROUPS = 20
"""Of samples that are left out one after the other."""
_CELLS = 1 << 24
"""Draws that are held at once: 128 MiB."""


def proportion_interval(successes: int, samples: int) -> Interval:
    """Wilson's score interval of a share."""
    found = binomtest(successes, samples).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


def resampled(draws: "Draws", measure: Measure, model: str) -> Statistics:
    """(resamples,) values of the metric of one model, each on as many samples drawn with replacement."""
    statistics = measure.statistics[model]
    sums = np.concatenate([weights @ statistics for weights in draws.weights()])
    return measure.value(sums, draws.samples)


class Draws:
    """Which samples each resample has; the same for every model and metric, so that comparisons are paired."""

    def __init__(self, samples: int, *, seed: int, resamples: int = RESAMPLES) -> None:
        self.samples = samples
        self._seed = seed
        self._resamples = resamples

    def weights(self) -> Iterator[NDArray[np.float64]]:
        """How often each sample is drawn: (resamples, samples) in portions of rows."""
        random = np.random.default_rng(self._seed)
        even = np.full(self.samples, 1 / self.samples)
        portion = max(1, _CELLS // self.samples)
        for start in range(0, self._resamples, portion):
            rows = min(portion, self._resamples - start)
            yield random.multinomial(self.samples, even, size=rows).astype(np.float64)


def left_out(value: Callable[[NDArray[np.intp]], float], samples: int) -> tuple[float, list[float]]:
    """A set metric on all samples, and without each of at most GROUPS groups of them."""
    everything = np.arange(samples)
    groups = min(GROUPS, samples)
    # Every groups-th sample makes a group: neighbours in a file are often alike.
    return value(everything), [value(everything[everything % groups != group]) for group in range(groups)]


def jackknife_interval(whole: float, parts: list[float]) -> Interval:
    """Interval of a metric from its values without each group, by Student's t with groups - 1 degrees of freedom."""
    groups = len(parts)
    values = np.array(parts)
    error = float(np.sqrt((groups - 1) / groups * ((values - values.mean()) ** 2).sum()))
    width = float(t.ppf((1 + LEVEL) / 2, groups - 1)) * error
    return whole - width, whole + width


def set_values(measure: SetMeasure, model: str) -> tuple[float, list[float]]:
    """`left_out` of one model's metric."""
    return left_out(measure.value[model], measure.samples)
