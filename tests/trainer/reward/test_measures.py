"""Measures of a reward model on hand-worked cases."""

import math

import pytest

from alidade_trainer.reward.measures import (
    ScoredPair,
    calibration_error,
    length_bias,
    preference_metrics,
    reward_histogram,
)


def test_accuracy_counts_ties_half_and_is_told_for_each_strength() -> None:
    pairs = [
        ScoredPair(1.0, 0.0, 1.0),
        ScoredPair(0.0, 1.0, 0.5),
        ScoredPair(2.0, 2.0, 0.5),
        ScoredPair(3.0, 0.0, None),
    ]
    metrics = preference_metrics(pairs)
    assert metrics["accuracy"] == 2.5 / 4
    assert metrics["accuracyByStrength.0.5"] == 0.25
    assert metrics["accuracyByStrength.1"] == 1.0
    assert metrics["meanMargin"] == (1 - 1 + 0 + 3) / 4
    assert metrics["heldOutPairs"] == 4


def test_a_model_that_is_right_as_often_as_it_says_is_calibrated() -> None:
    margin = math.log(3)  # sigmoid: 0.75
    assert calibration_error([margin, margin, margin, -margin]) == pytest.approx(0.0, abs=1e-12)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    confident = math.log(9)  # 0.9, and right half of the time
    unsure = math.log(1.5)  # 0.6, and always right
    margins = [confident, -confident, unsure, unsure]
    assert calibration_error(margins) == pytest.approx((abs(0.9 - 0.5) * 2 + abs(0.6 - 1.0) * 2) / 4)


def test_length_bias_is_how_much_more_often_the_longer_answer_wins_than_it_should() -> None:
    always_longer = [ScoredPair(1, 0, None, 9, 3), ScoredPair(0, 1, None, 3, 9)]
    assert length_bias(always_longer) == 0.5  # the longer won twice and was preferred once
    assert length_bias([ScoredPair(1, 0, None, 5, 5)]) == 0.0


def test_a_histogram_counts_every_reward_once_over_common_bins() -> None:
    histogram = reward_histogram([0.0, 1.0, 2.0], [-2.0, 2.0], bins=4)
    assert histogram["edges"] == [-2.0, -1.0, 0.0, 1.0, 2.0]
    assert histogram["chosen"] == [0, 0, 1, 2]
    assert histogram["rejected"] == [1, 0, 0, 1]


def test_a_histogram_of_one_value_has_it_in_its_first_bin() -> None:
    assert reward_histogram([1.0], [1.0], bins=2)["chosen"] == [1, 0]
