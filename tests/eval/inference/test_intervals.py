"""Intervals hold the truth about as often as they say."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from alidade_engine.intervals import percentile_interval
from alidade_eval.inference.intervals import (
    Draws,
    jackknife_interval,
    left_out,
    proportion_interval,
    resampled,
)
from alidade_eval.measures import Measure, Statistics


def interval_of(values: Statistics, *, seed: int) -> tuple[float, float]:
    draws = Draws(len(values), seed=seed)
    return percentile_interval(resampled(draws, Measure("mean", "higher", {"one": values}), "one"), samples=len(values))


def test_weights_draw_as_scipys_bootstrap_does() -> None:
    values = np.random.default_rng(0).exponential(1, 400)
    own = interval_of(values[:, None], seed=1)
    found = bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(1))
    width = found.confidence_interval.high - found.confidence_interval.low
    # Ends from 2,000 draws vary by some hundredths of the width, and the small-sample factor adds 0.4 % here.
    assert own == pytest.approx(tuple(found.confidence_interval), abs=0.08 * width)


def test_the_same_seed_draws_the_same_samples() -> None:
    one, again = (np.concatenate(list(Draws(7, seed=3, resamples=20).weights())) for _ in range(2))
    assert (one == again).all()
    assert (one.sum(1) == 7).all()


def test_samples_that_are_all_equal_have_an_interval_without_width() -> None:
    low, high = interval_of(np.full((30, 1), 0.25), seed=0)
    assert (low, high) == pytest.approx((0.25, 0.25), abs=1e-12)


def test_means_of_skewed_samples_are_covered() -> None:
    """95 % is promised; 400 simulations are sure to 2.2 points, and 50 skewed samples cost about one."""
    random = np.random.default_rng(0)
    held = 0
    for seed in range(400):
        low, high = interval_of(random.exponential(1, (50, 1)), seed=seed)
        held += low <= 1 <= high
    assert 0.915 <= held / 400 <= 0.975


@pytest.mark.parametrize(
    ("successes", "samples", "wanted"),
    # Newcombe 1998 (two-sided intervals for the single proportion), table I, method 3.
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0.0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_shares_have_the_published_wilson_intervals(successes: int, samples: int, wanted: tuple[float, float]) -> None:
    assert proportion_interval(successes, samples) == pytest.approx(wanted, abs=5e-5)


def test_the_jackknife_of_a_mean_is_students_interval() -> None:
    values = np.random.default_rng(0).normal(size=20)
    whole, parts = left_out(lambda kept: float(values[kept].mean()), 20)
    low, high = jackknife_interval(whole, parts)
    error = values.std(ddof=1) / 20**0.5
    assert (low, high) == pytest.approx((values.mean() - 2.093024 * error, values.mean() + 2.093024 * error), rel=1e-6)


def test_every_sample_is_left_out_once() -> None:
    kept: list[set[int]] = []

    def note(places: np.ndarray[tuple[int], np.dtype[np.intp]]) -> float:
        kept.append(set(places.tolist()))
        return 0.0

    left_out(note, 47)
    missing = [place for places in kept[1:] for place in set(range(47)) - places]
    assert sorted(missing) == list(range(47))
    assert kept[0] == set(range(47))
