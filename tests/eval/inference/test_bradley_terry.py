"""Ratings from games."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from alidade_engine.ratings import MEAN, SCALE, STRENGTH_PRIOR, ratings
from alidade_eval.inference.bradley_terry import rating_samples


def naive_ratings(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ratings by a general search for the least of the penalised surprise, game by game."""
    pairs = [(one, other) for one in range(len(points)) for other in range(len(points)) if one != other]

    def surprise(strengths: NDArray[np.float64]) -> float:
        games = [points[one, other] * np.logaddexp(0, strengths[other] - strengths[one]) for one, other in pairs]
        return float(sum(games) + (strengths**2).sum() / (2 * STRENGTH_PRIOR))

    found = minimize(surprise, np.zeros(len(points)), method="BFGS", options={"gtol": 1e-6}).x
    return np.asarray(MEAN + SCALE * (found - found.mean()))


def played(random: np.random.Generator, planted: NDArray[np.float64], prompts: int) -> NDArray[np.float64]:
    """(prompts, models, models) points of games between models of these ratings."""
    chances = 1 / (1 + 10 ** ((planted[None, :] - planted[:, None]) / 400))
    won = np.triu(random.random((prompts, *chances.shape)) < chances, 1)
    lost = np.triu(np.ones(chances.shape, dtype=bool), 1) & ~won
    return (won + lost.transpose(0, 2, 1)).astype(np.float64)


@pytest.mark.parametrize("spread", [50, 500, 3000])  # from close games to models that never lose
def test_many_tables_at_once_have_the_ratings_that_a_general_search_finds_for_each(spread: float) -> None:
    random = np.random.default_rng(0)
    tables = np.stack([played(random, random.normal(MEAN, spread, 5), 40).sum(0) for _ in range(10)])
    wanted = np.stack([naive_ratings(table) for table in tables])
    assert ratings(tables) == pytest.approx(wanted, abs=0.05)  # points; the search stops that near


def test_ratings_are_covered() -> None:
    """95 % is promised; 200 simulations of three models are sure to about 2.5 points."""
    random, planted = np.random.default_rng(0), np.array([850.0, 1000.0, 1150.0])
    held = []
    for seed in range(200):
        low, high = np.quantile(rating_samples(played(random, planted, 50), seed=seed), [0.025, 0.975], axis=0)
        held.append((low <= planted) & (planted <= high))
    assert 0.925 <= np.mean(held) <= 0.975


def test_two_models_have_the_closed_form() -> None:
    found = ratings(np.array([[0.0, 750.0], [250.0, 0.0]]))
    # Odds of three to one; the penalty on a thousand games moves it by less than a tenth of a point.
    assert found[0] - found[1] == pytest.approx(400 * np.log10(3), abs=0.2)
    assert found.mean() == pytest.approx(MEAN)


def test_planted_strengths_are_found() -> None:
    planted = np.array([700.0, 950.0, 1050.0, 1300.0])
    chances = 1 / (1 + 10 ** ((planted[None, :] - planted[:, None]) / 400))
    points = 1000 * chances * (1 - np.eye(4))
    assert ratings(points) == pytest.approx(planted, abs=1)


def test_ties_are_half_a_win_for_each() -> None:
    assert ratings(np.array([[0.0, 10.0], [10.0, 0.0]])) == pytest.approx([MEAN, MEAN], abs=1e-6)


def test_who_has_won_every_game_has_a_finite_rating_above_all() -> None:
    points = np.array([[0.0, 50.0, 50.0], [0.0, 0.0, 30.0], [0.0, 20.0, 0.0]])
    found = ratings(points)
    assert np.isfinite(found).all()
    assert found[0] > found[1] > found[2]


def test_samples_vary_around_the_ratings_and_follow_the_seed() -> None:
    random = np.random.default_rng(0)
    points = np.zeros((200, 2, 2))
    points[:, 0, 1] = random.random(200) < 0.7
    points[:, 1, 0] = 1 - points[:, 0, 1]
    drawn = rating_samples(points, seed=1)
    assert (drawn == rating_samples(points, seed=1)).all()
    low, high = np.quantile(drawn[:, 0], [0.025, 0.975])
    assert low < ratings(points.sum(0))[0] < high
    assert drawn.mean(1) == pytest.approx(np.full(len(drawn), MEAN))
