"""Paired shares: McNemar's exact test, Tango's interval, and that they never contradict each other."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar

from alidade_eval.inference.pairs import mcnemar, share_difference


def test_the_exact_test_doubles_the_binomial_tail() -> None:
    tail = sum(math.comb(10, lost) for lost in (0, 1)) / 2**10
    assert mcnemar(9, 1) == pytest.approx(2 * tail) == mcnemar(1, 9)


def test_models_that_agree_on_all_samples_do_not_differ() -> None:
    assert mcnemar(0, 0) == 1
    low, high = share_difference(0, 0, 50)
    assert -high == pytest.approx(low) == pytest.approx(-3.841459 / (50 + 3.841459))  # Tango 1998: z²/(n + z²)


def naive_score(difference: float, won: int, lost: int, samples: int) -> float:
    """The score statistic with the constrained likeliest shares found by search instead of the formula."""

    def surprise(lost_share: float) -> float:
        shares = (lost_share + difference, lost_share, 1 - 2 * lost_share - difference)
        counts = (won, lost, samples - won - lost)
        return -sum(count * math.log(share) for count, share in zip(counts, shares, strict=True) if count)

    bounds = (max(0.0, -difference) + 1e-12, (1 - difference) / 2 - 1e-12)
    lost_share = minimize_scalar(surprise, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    variance = (2 * lost_share + difference - difference**2) / samples
    return float(((won - lost) / samples - difference) / variance**0.5)


@pytest.mark.parametrize(("won", "lost", "samples"), [(9, 1, 44), (12, 2, 50), (30, 11, 120), (3, 17, 60)])
def test_the_ends_are_where_a_naive_score_test_begins_to_reject(won: int, lost: int, samples: int) -> None:
    middle = (won - lost) / samples
    low = brentq(lambda difference: naive_score(difference, won, lost, samples) - 1.959964, -0.9, middle)
    high = brentq(lambda difference: naive_score(difference, won, lost, samples) + 1.959964, middle, 0.9)
    assert share_difference(won, lost, samples) == pytest.approx((low, high), abs=1e-5)


@pytest.mark.parametrize("samples", [1, 2, 7, 30])
def test_the_interval_leaves_out_0_just_where_the_exact_test_rejects(samples: int) -> None:
    for won in range(samples + 1):
        for lost in range(samples + 1 - won):
            low, high = share_difference(won, lost, samples)
            assert -1 <= low <= (won - lost) / samples + 1e-9
            assert (won - lost) / samples - 1e-9 <= high <= 1
            assert (low > 0 or high < 0) == (mcnemar(won, lost) < 0.05), (won, lost)


def test_differences_are_covered() -> None:
    """95 % is promised and may be exceeded; 1,000 simulations are sure to 1.4 points."""
    random = np.random.default_rng(0)
    held = 0
    for won, lost, _ in random.multinomial(100, [0.2, 0.1, 0.7], size=1000):
        low, high = share_difference(int(won), int(lost), 100)
        held += low <= 0.1 <= high
    assert held >= 936
