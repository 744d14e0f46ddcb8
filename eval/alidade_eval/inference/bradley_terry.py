"""Resamples of games between models, for intervals of their ratings and of what these differ by."""

import numpy as np
from numpy.typing import NDArray

from alidade_engine.ratings import ratings
from alidade_eval.inference.intervals import Draws


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
