"""Ratings from games between models (Bradley & Terry 1952), on the scale of Elo."""

import math

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from alidade_eval.inference.intervals import RESAMPLES, Draws

SCALE = 400 / math.log(10)
"""Points of rating per unit of log-odds: 400 points more are odds of ten to one."""
MEAN = 1000.0
STRENGTH_PRIOR = 100.0
"""Inverse weight of the penalty on log-odds: ratings of several hundred games are moved by less than a point, and one
who has won every game gets a finite rating."""
_BOOTSTRAPS = RESAMPLES // 10
"""A fit is dearer than a sum; the ends of an interval are stable to about a tenth of its width."""


def ratings(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(models,) ratings whose mean is 1000.

    points: (models, models), what the row's model has got against the column's: 1 for a win, a half for a tie.
    """
    winner, loser = np.nonzero(points)
    design = np.zeros((len(winner), len(points)))
    design[np.arange(len(winner)), winner] = 1
    design[np.arange(len(winner)), loser] = -1
    # Each game as won by the one and, seen from the other side, as lost: the library asks for both outcomes.
    outcomes = np.repeat([1.0, 0.0], len(winner))
    weights = np.tile(points[winner, loser], 2) / 2
    model = LogisticRegression(C=STRENGTH_PRIOR, fit_intercept=False, solver="newton-cholesky", tol=1e-8)
    model.fit(np.concatenate([design, -design]), outcomes, sample_weight=weights)
    strengths = model.coef_[0]
    return np.asarray(MEAN + SCALE * (strengths - strengths.mean()))


def rating_samples(points: NDArray[np.float64], *, seed: int) -> NDArray[np.float64]:
    """(resamples, models) ratings on prompts drawn with replacement, for intervals of ratings and of differences.

    points: (prompts, models, models) as of `ratings`, of each prompt.
    """
    draws = Draws(len(points), seed=seed, resamples=_BOOTSTRAPS)
    rows = (weights for portion in draws.weights() for weights in portion)
    return np.array([ratings(np.tensordot(weights, points, axes=1)) for weights in rows])
