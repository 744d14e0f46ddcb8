"""Charts that compare by name: true to their numbers, whole with odd ones, safe with any name."""

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest

from alidade_engine.pages.comparison import BINS, Bar, heat_map, histograms, interval_bars


def places(chart: str, style: str) -> list[tuple[float, float]]:
    """(left, width) of each mark, in percent of the track."""
    found = re.findall(rf'class="{style}[^"]*" style="left:([\d.]+)%;width:([\d.]+)%"', chart)
    return [(float(left), float(width)) for left, width in found]


def test_bars_reach_from_zero_to_their_value_and_whiskers_over_their_interval() -> None:
    chart = interval_bars([Bar("a", 0.5, "0.50", 0.4, 0.6), Bar("b", 1.0, "1.00", 0.8, 1.0)])

    assert places(chart, "fill") == [(0.0, 50.0), (0.0, 100.0)]
    assert places(chart, "whisker") == [(40.0, 20.0), (80.0, 20.0)]


def test_bars_below_zero_go_the_other_way() -> None:
    chart = interval_bars([Bar("a", -1.0, "−1"), Bar("b", 1.0, "1")])

    assert places(chart, "fill") == [(0.0, 50.0), (50.0, 50.0)]


def test_what_has_no_zero_is_a_point_on_an_axis_of_its_own() -> None:
    chart = interval_bars([Bar("a", 950.0, "950", 900.0, 1000.0), Bar("b", 1050.0, "1,050")], from_zero=False)

    assert "fill" not in chart
    assert re.findall(r'class="point base" style="left:([\d.]+)%"', chart) == ["33.33", "100.00"]
    assert "<span>900</span>" in chart


@pytest.mark.parametrize(
    "bars",
    [
        [Bar("a", 0.0, "0", 0.0, 0.0)],
        [Bar("a", -0.0, "0")],
        [Bar("a", 1e-12, "0"), Bar("b", 1e12, "1e12", 1e11, 1e13)],
        [Bar("a", math.nan, "?"), Bar("b", 1.0, "1", 0.5, math.inf)],
    ],
)
def test_odd_numbers_stay_within_the_track(bars: list[Bar]) -> None:
    chart = interval_bars(bars)

    ElementTree.fromstring(chart)
    assert "nan" not in chart
    drawn = places(chart, "fill") + places(chart, "whisker")
    assert drawn
    assert all(left >= 0 and left + width <= 100.01 for left, width in drawn)


def test_charts_without_values_say_so() -> None:
    assert "No values" in interval_bars([Bar("a", math.nan, "")])
    assert "No values" in histograms({"a": []}, value_name="reward")


def test_a_heat_map_shows_shares_with_the_more_colour_the_further_from_a_half() -> None:
    chart = heat_map(["a", "b", "c"], [[None, 1.0, 0.5], [0.0, None, 0.25], [0.5, 0.75, None]])

    ElementTree.fromstring(chart)
    cells = re.findall(r'<td class="(\w+)" style="--strength:(\d+)%">(\d+)%</td>', chart)
    assert cells == [
        ("wins", "60", "100"),
        ("wins", "0", "50"),
        ("loses", "60", "0"),
        ("loses", "30", "25"),
        ("wins", "0", "50"),
        ("wins", "30", "75"),
    ]
    assert chart.count("<td></td>") == 3


def test_histograms_share_their_axis_and_their_scale() -> None:
    chart = histograms({"a": [0.0, 0.0, 0.0, 1.0], "b": [1.0] * 6}, value_name="reward")

    ElementTree.fromstring(chart)
    first, second = (
        re.findall(r'x="([\d.]+)" y="[\d.]+" width="0.9" height="([\d.]+)"', svg) for svg in chart.split("</svg>")[:2]
    )
    assert first == [("0.05", "20.00"), (f"{BINS - 1 + 0.05}", "6.67")]
    assert second == [(f"{BINS - 1 + 0.05}", "40.00")]
    assert "mean 0.25" in chart


def test_one_value_makes_a_histogram() -> None:
    assert histograms({"a": [2.5]}, value_name="reward").count("<rect") == 1


def test_names_are_escaped() -> None:
    name = '<b>&"'
    for chart in (
        interval_bars([Bar(name, 1.0, name)]),
        heat_map([name], [[None]]),
        histograms({name: [1.0]}, value_name="x"),
    ):
        ElementTree.fromstring(chart)
        assert "<b>" not in chart
