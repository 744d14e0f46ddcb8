"""Ratings from games between models (Bradley & Terry 1952), on the scale of Elo."""

import math

import numpy as np
from numpy.typing import NDArray

from alidade_eval.inference.intervals import Draws

SCALE = 400 / math.log(10)
"""Points of rating per unit of log-odds: 400 points more are odds of ten to one."""
MEAN = 1000.0
STRENGTH_PRIOR = 100.0
"""Inverse weight of the penalty on log-odds: ratings of several hundred games are moved by less than a point, and one
who has won every game gets a finite rating."""
_STEPS = 100
"""Of Newton's method; a few are enough, and about as many as the log-odds are high for one who never loses."""
_EXACT = 1e-9
"""Log-odds: far less than a point."""


def ratings(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., models) ratings whose mean is 1000, each by penalised maximum likelihood.

    points: (..., models, models), what the row's model has got against the column's: 1 for a win, a half for a tie.
    It is logistic regression on who played whom, without intercept. All tables are solved at once, since intervals
    need thousands: from 200 resamples instead, which a library's solver has time for, they held the truth 89 to 90 %
    of the time.
    """
    games, won = points + np.swapaxes(points, -1, -2), points.sum(-1)
    strengths = np.zeros(won.shape)  # log-odds
    diagonal = np.arange(points.shape[-1])
    for _ in range(_STEPS):
        expected = 1 / (1 + np.exp(strengths[..., None, :] - strengths[..., :, None]))  # (..., models, models)
        slope = won - (games * expected).sum(-1) - strengths / STRENGTH_PRIOR
        curvature = -games * expected * (1 - expected)
        curvature[..., diagonal, diagonal] -= curvature.sum(-1) - 1 / STRENGTH_PRIOR
        step = np.linalg.solve(curvature, slope[..., None])[..., 0]
        strengths = strengths + step
        if np.abs(step).max() < _EXACT:
            break
    return np.asarray(MEAN + SCALE * (strengths - strengths.mean(-1, keepdims=True)))


def rating_samples(points: NDArray[np.float64], *, seed: int) -> NDArray[np.float64]:
    """(resamples, models) ratings on prompts drawn with replacement, for intervals of ratings and of differences.

    points: (prompts, models, models) as of `ratings`, of each prompt.
    """
    return ratings(table_samples(points, seed=seed))


def table_samples(points: NDArray[np.float64], *, seed: int) -> NDArray[np.float64]:
    """(resamples, models, models) sums of the points of prompts drawn with replacement."""
    flat = points.reshape(len(points), -1)
    tables = [weights @ flat for weights in Draws(len(points), seed=seed).weights()]
    return np.concatenate(tables).reshape(-1, *points.shape[1:])
