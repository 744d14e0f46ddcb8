"""Ratings from games between models (Bradley & Terry 1952), on the scale of Elo."""

import math

import numpy as np
from numpy.typing import NDArray

from alidade_engine.intervals import share_interval

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


def win_rates(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., models) share of its games that each model has won, ties half, of (..., models, models) points."""
    played = points + np.swapaxes(points, -1, -2)
    return np.asarray(points.sum(-1) / np.maximum(played.sum(-1), 1e-12))


def tables_at_ends(points: NDArray[np.float64], place: int, *, samples: int) -> NDArray[np.float64]:
    """(2, models, models) points in which a model has won as few, and as many, of its games as it may have in truth.

    For who has fared the same in every sample, and so in every resample: the ends are those of Wilson's interval of the
    share that it wins. points: (models, models). samples: how many independent ones these points come from.
    """
    games = (points + points.T)[place]
    rate = float(win_rates(points)[place])
    tables = []
    for end in share_interval(rate, samples):
        moved = points.copy()
        moved[place] = np.clip(points[place] + (end - rate) * games, 0, games)
        moved[:, place] = games - moved[place]
        tables.append(moved)
    return np.stack(tables)
