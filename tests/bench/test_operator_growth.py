"""The chart of the operator's growth shows what was measured."""

import hashlib
import json

import pytest

from bench.operator_growth import CHART, RESULTS, ROWS, order


@pytest.mark.parametrize(("costs", "exponent"), [((5, 5, 5), 0), ((3, 30, 300), 1), ((2, 200, 20_000), 2)])
def test_the_order_is_the_exponent_of_a_power_law(costs: tuple[int, ...], exponent: int) -> None:
    assert order((100, 1000, 10_000), costs) == exponent


def test_what_costs_nothing_has_no_order() -> None:
    assert order((100, 1000), (0.0, 1.0)) is None


def test_the_chart_is_drawn_from_the_newest_results() -> None:
    digest = hashlib.sha256(RESULTS.read_bytes()).hexdigest()
    assert f"sha256:{digest}<" in CHART.read_text(), "draw it anew: python bench/operator_growth.py --chart"


def test_the_orders_are_those_of_the_figures() -> None:
    results = json.loads(RESULTS.read_text())
    sizes = [int(size) for size in results["found"]]
    found = {name: order(sizes, [one[name] for one in results["found"].values()]) for name in ROWS}
    assert found == results["orders"]
