"""Two models that are right or wrong on the same samples: is the difference of their shares more than chance?"""

import math

from scipy.optimize import brentq
from scipy.stats import binomtest, norm

from alidade_engine.intervals import LEVEL, Interval

_IMPOSSIBLE = 1e3
"""Standard errors; finite, since the search for the ends interpolates."""


def mcnemar(won: int, lost: int) -> float:
    """Two-sided p-value of as uneven a split of the samples that one of two models alone has right (McNemar 1947).

    The exact test, which rejects a true null hypothesis in at most as many cases as it says, however few samples.
    """
    return float(binomtest(won, won + lost, 0.5).pvalue) if won + lost else 1.0


def share_difference(won: int, lost: int, samples: int) -> Interval:
    """Interval of the difference of two shares from the samples that one, or the other, model alone has right.

    All differences that Tango's score test (1998) does not reject. At 0 that is McNemar's test by the normal
    approximation, which rejects a little more than the exact one. Where the exact test does not tell the models apart,
    the interval reaches to 0, so that it never contradicts the verdict; that can only make it cover more.
    """
    middle, limit = (won - lost) / samples, float(norm.ppf((1 + LEVEL) / 2))

    def low(difference: float) -> float:
        return _score(difference, won, lost, samples) - limit

    def high(difference: float) -> float:
        return _score(difference, won, lost, samples) + limit

    lowest = -1.0 if middle == -1 else float(brentq(low, -1, middle))
    highest = 1.0 if middle == 1 else float(brentq(high, middle, 1))
    if mcnemar(won, lost) < 1 - LEVEL:
        return lowest, highest
    return min(lowest, 0.0), max(highest, 0.0)


def _score(difference: float, won: int, lost: int, samples: int) -> float:
    """How many standard errors the found difference lies above a supposed one (Tango 1998)."""
    above = won - lost - samples * difference
    linear = (2 * samples - won + lost) * difference - won - lost
    root = max(linear**2 + 8 * samples * lost * difference * (1 - difference), 0.0) ** 0.5
    lost_share = (root - linear) / (4 * samples)  # likeliest share that is lost, given the supposed difference
    variance = samples * (2 * lost_share + difference * (1 - difference))
    if variance <= 1e-12 * samples:
        # At the ends of what is possible nothing varies: any other finding is out of the question.
        return math.copysign(_IMPOSSIBLE, above) if above else 0.0
    return float(above / variance**0.5)
