"""How a canary is judged: errors by Fisher's exact test, times by their 95th percentiles."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alidade_crds.contract import BackendCounts, GatewayBackends, GatewayDocument
from alidade_crds.modelserve import CanaryAnalysis
from alidade_operator.reconcile.canaryjudge import Sides, chance_of_as_many_errors, counted, judge
from tests.operator.builders import NOW

DEFAULTS = CanaryAnalysis()


def counts(requests: int, errors: int = 0, p95: float | None = None, p50: float | None = None) -> BackendCounts:
    """What a side was given."""
    return BackendCounts(requests=requests, errors=errors, seconds_p50=p50, seconds_p95=p95)


def verdict(canary: BackendCounts, stable: BackendCounts, **analysis: float) -> str:
    """What is thought of a canary."""
    return judge(Sides(stable, canary), DEFAULTS.model_copy(update=analysis))[0]


def test_the_chance_is_that_of_the_lady_tasting_tea() -> None:
    # Fisher, The Design of Experiments, chapter 2: of 8 cups 4 are named, all of them rightly: 1 of 70 ways.
    assert chance_of_as_many_errors(counts(4, 4), counts(4, 0)) == pytest.approx(1 / 70)
    assert chance_of_as_many_errors(counts(4, 3), counts(4, 1)) == pytest.approx(17 / 70)


@given(canary=st.integers(1, 60), stable=st.integers(1, 60), data=st.data())
def test_the_chance_is_that_of_counting_all_ways(canary: int, stable: int, data: st.DataObject) -> None:
    bad, other = data.draw(st.integers(0, canary)), data.draw(st.integers(0, stable))
    errors = bad + other
    ways = sum(math.comb(canary, k) * math.comb(stable, errors - k) for k in range(bad, min(errors, canary) + 1))
    expected = ways / math.comb(canary + stable, errors)
    # lgamma is good to some 1e-13 of its value, which is below 200 here.
    assert chance_of_as_many_errors(counts(canary, bad), counts(stable, other)) == pytest.approx(expected, rel=1e-9)


def test_millions_of_requests_are_no_trouble() -> None:
    assert chance_of_as_many_errors(counts(10**6, 12_000), counts(10**7, 100_000)) < 1e-6


@pytest.mark.parametrize(
    ("canary", "stable", "expected"),
    [
        (counts(50), counts(450), "well"),
        (counts(49), counts(450), "open"),
        (counts(50), counts(0), "well"),
        (counts(5, 5), counts(45), "worse"),
        (counts(5, 1), counts(45), "open"),
        (counts(50, 1), counts(450, 0), "open"),
        (counts(500, 60), counts(4500, 500), "well"),
        (counts(500, 2), counts(4500, 4500), "well"),
        (counts(50, 0, 1.6), counts(450, 0, 1.0), "worse"),
        (counts(50, 0, 1.4), counts(450, 0, 1.0), "well"),
        (counts(49, 0, 9.0), counts(450, 0, 1.0), "open"),
        (counts(50, 0, 9.0), counts(19, 0, 1.0), "well"),
        (counts(50, 0, 9.0), counts(450, 0, None), "well"),
        # sigma is ln 4 / 1.645 = 0.843, of which 2.113 / sqrt(50) and 2.113 / sqrt(450) are the standard errors.
        (counts(50, 0, 2.9, 0.725), counts(450, 0, 1.0, 0.25), "open"),
        (counts(50, 0, 3.1, 0.775), counts(450, 0, 1.0, 0.25), "worse"),
        (counts(50, 0, 1.4, 0.35), counts(450, 0, 1.0, 0.25), "well"),
        (counts(0), counts(0), "open"),
    ],
)
def test_a_canary_is_worse_well_or_not_known(canary: BackendCounts, stable: BackendCounts, expected: str) -> None:
    assert verdict(canary, stable) == expected


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_a_canary_as_good_as_the_model_before_is_rarely_taken_back(share: float) -> None:
    chance, taken_back = random.Random(7), 0
    for _ in range(100):
        canary, stable = [0, 0], [0, 0]
        for number in range(1, 301):
            for side, requests in ((canary, 1), (stable, 4)):
                side[0] += requests
                side[1] += sum(chance.random() < share for _ in range(requests))
            if number % 5 == 0 and verdict(counts(*canary), counts(*stable)) == "worse":
                taken_back += 1
                break
    # 1 to 2 percent over 600 of them; of 100, more than 6 would be a chance of less than 1 in 200.
    assert taken_back <= 6


@pytest.mark.parametrize(("slower", "most", "fewest"), [(1.0, 2, 0), (3.0, 50, 48)])
def test_a_slow_canary_is_told_from_one_whose_times_vary(slower: float, most: int, fewest: int) -> None:
    """Times are lognormal with sigma 1, so that one answer of twenty takes five times the median."""
    chance, taken_back = random.Random(7), 0
    for _ in range(50):
        canary: list[float] = []
        stable: list[float] = []
        for number in range(1, 301):
            canary.append(slower * chance.lognormvariate(0, 1))
            stable += [chance.lognormvariate(0, 1) for _ in range(4)]
            if number >= 50 and number % 10 == 0 and verdict(timed(canary), timed(stable)) == "worse":
                taken_back += 1
                break
    assert fewest <= taken_back <= most


def timed(seconds: list[float]) -> BackendCounts:
    """What a gateway tells of these times."""
    ordered = sorted(seconds[-1000:])
    p50, p95 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.95))
    return counts(len(seconds), 0, p95, p50)


def test_gateways_are_counted_together_and_those_without_the_canary_are_not() -> None:
    def told(stable: BackendCounts, canary: BackendCounts | None) -> GatewayDocument:
        return GatewayDocument(started_at=NOW, backends=GatewayBackends(stable=stable, canary=canary))

    both = counted(
        [
            told(counts(90, 1, 1.0), counts(10, 1, 4.0)),
            told(counts(270, 2, 2.0), counts(30, 0, 2.0)),
            told(counts(1000, 99, 9.0), None),
        ]
    )
    assert both == Sides(counts(360, 3, 1.75), counts(40, 1, 2.5))
    assert counted([told(counts(5), None)]) is None
