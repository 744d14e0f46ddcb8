"""The dashboards as the documents show them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from charts.dashboards.panels import Query, Row, bars, curve, dashboard, number, table
from charts.pictures import Source, page, told

IMAGES = Path(__file__).parents[2] / "docs" / "images"
KNOWN = {
    "up": [
        {"metric": {"pod": "a"}, "values": [[0, "1"], [1, "3"]]},
        {"metric": {"pod": "b"}, "values": [[60, "NaN"]]},
    ],
    "rate(up[20s])": [{"metric": {"pod": "c"}, "values": [[0, "0.25"], [1, "0.25"], [60, "0.5"]]}],
    "done": [{"metric": {}, "value": [60, "0.5"]}],
    "size": [{"metric": {"name": "x<y"}, "value": [60, "2048"]}, {"metric": {"name": "z"}, "value": [60, "1024"]}],
    "value": [{"metric": {"__name__": "value", "name": "x"}, "value": [60, "0.123456"]}],
}


class Recorded(Source):
    """A Prometheus that knows few things."""

    def _ask(self, path: str, expr: str, **more: float) -> list[dict[str, Any]]:
        return KNOWN.get(self.filled_in(expr), [])


def test_a_page_shows_panels_with_titles_units_legends_and_series() -> None:
    rows = [
        Row("Now", (number("Done", "done", unit="percentunit"), number("Lost", "nothing"))),
        Row("Nothing", (curve("Empty", Query("nothing")),)),
        Row(
            "Over time",
            (
                curve("Up", Query("up", "pod {{pod}}"), unit="none"),
                curve("Rate", Query("rate(up[$__rate_interval])", "{{pod}}"), unit="reqps"),
                bars("Size", Query("size", "{{name}}"), unit="bytes"),
                table("Values", {"Value": "value", "Low": "nothing"}),
            ),
        ),
    ]
    html, height = page(dashboard("alidade-a", "Alidade / A", "", rows), Recorded("http://127.0.0.1:1", 0, 60))
    assert re.findall(r"<h2[^>]*>([^<]*)", html) == ["Now", "Over time"]
    assert re.findall(r"<h3>([^<]*)", html) == ["Done", "Up", "Rate", "Size", "Values"], "Lost has no data"
    assert '<p class="number">50 %</p>' in html
    assert "</i>pod a</li>" in html
    assert "pod b" not in html, "what is no number is no series"
    assert "0.2 req/s" in html
    assert "2 KiB" in html
    assert "x&lt;y" in html
    assert '<th>name</th><th class="value">Value</th>' in html
    assert '<td>x</td><td class="value">0.123</td>' in html
    lines = re.findall(r'<polyline stroke="([^"]+)" points="([^"]+)"', html)
    # One of Up; of Rate a line and, after a gap, a point.
    assert [points.count(",") for _, points in lines] == [2, 2, 2]
    assert 300 < height < 800


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.1234, "percentunit", "12.3 %"),
        (3 * 1024**3, "bytes", "3 GiB"),
        (0.25, "s", "250 ms"),
        (600, "s", "10 min"),
        (0, "s", "0 s"),
        (12345, "short", "12.3 K"),
        (12345, "none", "12345"),
        (2.5, "ops", "2.5 ops/s"),
    ],
)
def test_numbers_carry_their_units(value: float, unit: str, text: str) -> None:
    assert told(value, unit) == text


@pytest.mark.parametrize("name", ["fleet", "operator", "run", "serving"])
def test_the_documents_pictures_are_small(name: str) -> None:
    assert 20_000 < (IMAGES / f"dashboard-{name}.png").stat().st_size < 200_000


def test_a_query_is_filled_in_as_grafana_does() -> None:
    source = Source("http://127.0.0.1:1", 0, 60, name="sums.*")
    expr = 'rate(up{namespace="$namespace", name=~"$name", pod=~"($name)-.+"}[$__rate_interval])'
    assert source.filled_in(expr) == 'rate(up{namespace=~".*", name=~"sums.*", pod=~"(sums.*)-.+"}[20s])'
    assert source.filled_in('up{namespace=~"$namespace"}') == 'up{namespace=~".*"}'
