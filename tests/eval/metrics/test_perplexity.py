"""Perplexity and bits per byte of sums."""

import math

import pytest

from alidade_eval.metrics.perplexity import bits_per_byte, perplexity, perplexity_statistics


def test_each_token_of_all_texts_weighs_the_same() -> None:
    statistics = perplexity_statistics([3 * math.log(2), math.log(16)], [3, 1], ["abcdefg", "é"])
    assert statistics[:, 2].tolist() == [7, 2]  # bytes, not signs
    assert perplexity(statistics.sum(0), 2) == pytest.approx(2 ** (7 / 4))
    assert bits_per_byte(statistics.sum(0), 2) == pytest.approx(7 / 9)


def test_a_model_without_any_idea_is_still_finite() -> None:
    statistics = perplexity_statistics([1e6], [1], ["a"])
    assert math.isfinite(perplexity(statistics.sum(0), 1))
