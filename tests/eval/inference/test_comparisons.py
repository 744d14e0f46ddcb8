"""Results of measures: values, intervals, differences on the same samples, verdicts."""

import numpy as np
import pytest

from alidade_crds.evaluation import EvaluationResult
from alidade_engine.failures import JobFailure
from alidade_eval.inference.comparisons import judged, results_of, sign_of
from alidade_eval.measures import AnyMeasure, Direction, Measure, SetMeasure, Statistics
from alidade_eval.metrics.diversity import distinct


def results(measure: AnyMeasure) -> dict[str, EvaluationResult]:
    return {one.model: one for one in results_of(measure, suite="s", baseline="base", seed=0)}


def column(values: object) -> Statistics:
    return np.asarray(values, dtype=np.float64)[:, None]


def test_the_baseline_has_an_interval_and_no_verdict() -> None:
    base = results(Measure("m", "higher", {"base": column(range(20)), "one": column(range(20))}))["base"]
    assert (base.value, base.n, base.verdict, base.difference_low) == (9.5, 20, None, None)
    assert base.low is not None
    assert base.low < 9.5


def test_pairing_finds_a_difference_that_is_small_beside_the_spread_of_the_prompts() -> None:
    random = np.random.default_rng(0)
    hard = random.normal(0, 10, 100)
    one = results(Measure("m", "higher", {"base": column(hard), "one": column(hard + random.normal(0.5, 1, 100))}))
    assert one["one"].verdict == "better"
    assert one["one"].low is not None
    assert one["one"].low < one["base"].value  # their own intervals overlap


@pytest.mark.parametrize(
    ("direction", "shift", "verdict"),
    [
        ("higher", 1, "better"),
        ("higher", -1, "worse"),
        ("lower", 1, "worse"),
        ("lower", -1, "better"),
        ("higher", 0, "indistinguishable"),
        (None, 1, None),
    ],
)
def test_the_verdict_follows_the_direction(direction: Direction, shift: float, verdict: str | None) -> None:
    base = np.random.default_rng(0).normal(size=50)
    found = results(Measure("m", direction, {"base": column(base), "one": column(base + shift)}))["one"]
    assert found.verdict == verdict
    assert found.difference_low == pytest.approx(shift)


@pytest.mark.parametrize(("won", "verdict"), [(5, "indistinguishable"), (6, "better")])
def test_right_and_wrong_is_decided_by_the_exact_test(won: int, verdict: str) -> None:
    """5 of 5 have p = 0.0625, 6 of 6 have p = 0.03125; the interval agrees."""
    base, one = np.zeros(40), np.zeros(40)
    one[:won] = 1
    found = results(Measure("m", "higher", {"base": column(base), "one": column(one)}, binary=True))["one"]
    assert found.verdict == verdict
    assert found.difference_low is not None
    assert (found.difference_low > 0) == (verdict == "better")


def test_all_right_has_an_interval_with_width() -> None:
    found = results(Measure("m", "higher", {"base": column(np.ones(10))}, binary=True))["base"]
    assert found.value == 1
    assert found.high == pytest.approx(1)
    assert found.low == pytest.approx(0.7225, abs=1e-4)  # Wilson


@pytest.mark.parametrize("binary", [True, False])
def test_one_sample_has_a_value_and_nothing_else(binary: bool) -> None:
    measure = Measure("m", "higher", {"base": column([1]), "one": column([0])}, binary=binary)
    assert [
        (found.value, found.n, found.low, found.difference_low, found.verdict) for found in results(measure).values()
    ] == [(1, 1, None, None, None), (0, 1, None, None, None)]


def test_a_measure_without_samples_has_no_results() -> None:
    assert results(Measure("m", "higher", {"base": np.zeros((0, 1))})) == {}
    assert results(SetMeasure("m", "higher", 0, {"base": lambda kept: 0.0})) == {}


def test_ratios_are_of_the_sums() -> None:
    def ratio(sums: Statistics, _samples: int) -> Statistics:
        return np.asarray(sums[..., 0] / sums[..., 1])

    found = results(Measure("m", "lower", {"base": np.array([[1.0, 1.0], [1.0, 9.0], [2.0, 10.0]])}, ratio))["base"]
    assert found.value == pytest.approx(4 / 20)


def test_sets_are_compared_by_leaving_out_the_same_samples() -> None:
    random = np.random.default_rng(0)
    rich = [[str(word) for word in random.integers(0, 2000, 12)] for _ in range(100)]
    poor = [[str(word) for word in random.integers(0, 20, 12)] for _ in range(100)]

    def measure(one: list[list[str]], base: list[list[str]]) -> SetMeasure:
        return SetMeasure(
            "distinct1",
            "higher",
            100,
            {
                "base": lambda kept: distinct([base[place] for place in kept], 1),
                "one": lambda kept: distinct([one[place] for place in kept], 1),
            },
        )

    assert results(measure(rich, poor))["one"].verdict == "better"
    assert results(measure(poor, rich))["one"].verdict == "worse"
    same = results(measure(rich, rich))["one"]
    assert (same.verdict, same.difference_low, same.difference_high) == ("indistinguishable", 0, 0)
    assert same.value == distinct(rich, 1)


def test_an_interval_that_touches_0_tells_nothing_apart() -> None:
    assert [sign_of(one) for one in [(0.0, 1.0), (-1.0, 0.0), (0.1, 1.0), (-1.0, -0.1)]] == [0, 0, 1, -1]
    assert judged("higher", 0) == "indistinguishable"


def test_a_metric_that_is_no_number_is_named() -> None:
    with pytest.raises(JobFailure, match="m of suite s is nan for base, which is no number to compare"):
        results(SetMeasure("m", "higher", 1, {"base": lambda kept: float("nan")}))
