"""A metric of every model, as what its value, its interval and its comparison are computed from."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Statistics = NDArray[np.float64]
"""(samples, k): what each sample adds; a metric is a function of the sums over samples."""

Direction = Literal["higher", "lower"] | None
"""Which way is better; None for what is neither, such as a length."""


def mean(sums: Statistics, samples: int) -> Statistics:
    """(...,) mean of (..., 1) sums over so many samples."""
    return sums[..., 0] / samples


@dataclass(frozen=True)
class Measure:
    """One metric of several models on the same samples in the same order.

    statistics: for each model (samples, k). value: from (..., k) sums over the samples, and their number, to (...,)
    values. binary: each sample is 0 or 1, so that counts have exact intervals and tests.
    """

    metric: str
    direction: Direction
    statistics: Mapping[str, Statistics]
    value: Callable[[Statistics, int], Statistics] = mean
    binary: bool = False
    least: float = -math.inf
    """No value, and no end of an interval, lies below it."""


@dataclass(frozen=True)
class SetMeasure:
    """One metric that is a function of a whole set of samples, such as the share of different n-grams.

    samples: number of samples, the same for every model. value: for each model from the places (kept,) of the samples
    that are kept to the metric on them. Resampling with replacement would repeat samples, which such metrics count;
    their intervals come from leaving samples out.
    """

    metric: str
    direction: Direction
    samples: int
    value: Mapping[str, Callable[[NDArray[np.intp]], float]]
    least: float = -math.inf
    """No value, and no end of an interval, lies below it."""


AnyMeasure = Measure | SetMeasure
