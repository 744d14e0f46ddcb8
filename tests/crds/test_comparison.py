"""How results are put for people."""

from typing import Any

import pytest

from alidade_crds.comparison import best_of, counted, difference_text, direction_of, interval_text, value_text
from alidade_crds.evaluation import EvaluationResult, Verdict


def result(value: float, low: float | None = None, high: float | None = None, **more: Any) -> EvaluationResult:
    given = {"suite": "s", "metric": "f1", "model": "a", "n": 60} | more
    return EvaluationResult(value=value, low=low, high=high, **given)


@pytest.mark.parametrize(
    ("one", "value", "interval"),
    [
        (result(0.43333, 0.31, 0.55321), "0.43", "0.31 to 0.55"),
        (result(0.43333, 0.4321, 0.43498), "0.4333", "0.4321 to 0.4350"),
        (result(1016.4, 981.2, 1052.9), "1,016", "981 to 1,053"),
        (result(-1.234, -2.5, 0.1), "−1.2", "−2.5 to 0.1"),
        (result(-0.0001, -0.2, 0.3), "0.00", "−0.20 to 0.30"),
        (result(2.0), "2", None),
        (result(3.14159), "3.142", None),
        (result(0.0, 0.0, 0.0), "0", "0 to 0"),
        (result(1e9, 5e8, 2e9), "1,000,000,000", "500,000,000 to 2,000,000,000"),
    ],
)
def test_a_number_has_the_digits_that_its_interval_leaves_known(
    one: EvaluationResult, value: str, interval: str | None
) -> None:
    assert (value_text(one), interval_text(one)) == (value, interval)


def test_a_difference_has_its_sign() -> None:
    assert difference_text(result(0.5, difference_low=0.05, difference_high=0.2)) == "+0.05 to +0.20"
    assert difference_text(result(0.5, difference_low=-0.05, difference_high=0.0)) == "−0.050 to 0.000"
    assert difference_text(result(0.5)) is None


def test_an_end_of_a_difference_is_never_rounded_to_the_other_side_of_the_verdict() -> None:
    assert difference_text(result(3.0, difference_low=0.3, difference_high=52.0)) == "+0.3 to +52.0"
    assert difference_text(result(3.0, difference_low=-0.04, difference_high=52.0)) == "−0.04 to +52.00"
    assert difference_text(result(3.0, difference_low=0.0, difference_high=52.0)) == "0 to +52"


@pytest.mark.parametrize(
    ("metric", "verdict", "low", "high", "direction"),
    [
        ("score", "better", 0.1, 0.2, "higher"),
        ("score", "better", -0.2, -0.1, "lower"),
        ("score", "worse", -0.2, -0.1, "higher"),
        ("score", "worse", 0.1, 0.2, "lower"),
        ("score", "indistinguishable", -0.1, 0.1, None),
        ("f1", "indistinguishable", -0.1, 0.1, "higher"),
        ("perplexity", None, None, None, "lower"),
        ("mean_length", None, 0.1, 0.2, None),
    ],
)
def test_which_way_is_better_follows_from_verdicts_or_the_metrics_name(
    metric: str, verdict: Verdict | None, low: float | None, high: float | None, direction: str | None
) -> None:
    one = result(0.5, metric=metric, verdict=verdict, difference_low=low, difference_high=high)
    assert direction_of([result(0.4, metric=metric), one]) == direction


def test_the_best_are_all_that_share_the_best_value_and_none_where_all_are_equal() -> None:
    three = [result(0.5, model="a"), result(0.7, model="b"), result(0.7, model="c")]
    assert best_of(three, "higher") == ["b", "c"]
    assert best_of(three, "lower") == ["a"]
    assert best_of(three, None) == []
    assert best_of(three[1:], "higher") == []
    assert best_of([result(0.1, model="*")], "lower") == []


def test_verdicts_are_counted_in_a_fixed_order() -> None:
    verdicts: list[Verdict | None] = ["worse", "better", None, "better"]
    assert counted([result(0.1, verdict=verdict) for verdict in verdicts], "a") == "2 better, 1 worse"
    assert counted([result(0.1)], "a") == ""
