"""Ratings from games."""

import numpy as np
import pytest

from alidade_eval.inference.bradley_terry import MEAN, rating_samples, ratings


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
