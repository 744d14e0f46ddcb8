"""Ranking metrics against naive definitions."""

import random

import pytest

from alidade_eval.metrics.ranking import average_precision, first_is_relevant, reciprocal_rank


def worst_rank(place: int, scores: list[float], relevant: list[bool]) -> int:
    """Rank of a relevant candidate when all others of its score that are irrelevant stand before it."""
    better = sum(score > scores[place] for score in scores)
    level = [other for other in range(len(scores)) if scores[other] == scores[place]]
    return better + sum(not relevant[other] for other in level) + sum(relevant[o] for o in level if o <= place)


def test_a_thousand_random_rankings_agree_with_a_naive_count() -> None:
    draw = random.Random(0)
    for _ in range(1000):
        size = draw.randint(1, 12)
        scores = [float(draw.randint(-3, 3)) for _ in range(size)]
        relevant = [draw.random() < 0.4 for _ in range(size)]
        relevant[draw.randrange(size)] = True
        ranks = sorted(worst_rank(place, scores, relevant) for place in range(size) if relevant[place])
        precisions = [sum(other <= rank for other in ranks) / rank for rank in ranks]
        assert reciprocal_rank(scores, relevant) == pytest.approx(1 / min(ranks))
        assert average_precision(scores, relevant) == pytest.approx(sum(precisions) / len(precisions))
        assert first_is_relevant(scores, relevant) == (min(ranks) == 1)


def test_a_model_that_scores_all_alike_gets_the_worst_rank() -> None:
    assert reciprocal_rank([0.0] * 4, [True, False, False, False]) == 1 / 4


def test_a_hand_worked_case() -> None:
    # Order: b (relevant), d, a (relevant), c.
    scores, relevant = [0.2, 0.9, 0.1, 0.5], [True, True, False, False]
    assert reciprocal_rank(scores, relevant) == 1
    assert average_precision(scores, relevant) == pytest.approx((1 / 1 + 2 / 3) / 2)
