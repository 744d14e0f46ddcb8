"""A load as a page: charts as inline SVG, which every browser shows without a script or a network."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from alidade_cli.loadtest.records import Record
from alidade_cli.loadtest.summary import Spread, Summary, in_flight, percentile
from alidade_cli.loadtest.tables import NONE, Row, duration_text

WIDTH, HEIGHT = 640, 270
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 34, 40
LETTER = 7.2
"""Width of a letter of the legend, rather too wide than too narrow."""
MOST_POINTS = 2000
"""Marks of a chart; more would be finer than the screen."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """Points of one colour (`blue`, `orange`, `green`, `red`), as a line or as dots."""

    name: str
    colour: str
    points: Points
    dots: bool = False


@dataclass(frozen=True)
class Chart:
    """Series over a common grid. Vertical values start at 0."""

    title: str
    x_name: str
    y_name: str
    series: Sequence[Series]

    def svg(self) -> str:
        """The chart; without any point a sentence."""
        shown = [one for one in self.series if one.points]
        if not shown:
            return '<p class="quiet">No values.</p>'
        x_ticks = _ticks(min(x for one in shown for x, _ in one.points), max(x for one in shown for x, _ in one.points))
        y_ticks = _ticks(0.0, max(y for one in shown for _, y in one.points))
        frame = _Frame(x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1])
        label = escape(f"{self.title}: {self.y_name} over {self.x_name}", quote=True)
        parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">']
        parts += _grid(frame, x_ticks, y_ticks, self.x_name, self.y_name)
        parts += [_drawn(frame, one) for one in shown]
        parts += _legend(shown)
        return "".join(parts) + "</svg>"


@dataclass(frozen=True)
class _Frame:
    """From values to places in the picture."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x_low) / (self.x_high - self.x_low)
        up = (y - self.y_low) / (self.y_high - self.y_low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, 3 to 8 of them, that enclose low and high."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _grid(frame: _Frame, x_ticks: Sequence[float], y_ticks: Sequence[float], x_name: str, y_name: str) -> list[str]:
    parts = []
    for value in y_ticks:
        _, y = frame.place(frame.x_low, value)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for value in x_ticks:
        x, _ = frame.place(value, frame.y_low)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{value:.4g}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_name)}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="16" text-anchor="end">{escape(y_name)}</text>')
    return parts


def _drawn(frame: _Frame, series: Series) -> str:
    stride = max(1, math.ceil(len(series.points) / MOST_POINTS))
    places = [frame.place(x, y) for x, y in series.points[::stride]]
    parts = []
    if not series.dots and len(places) > 1:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="{series.colour}" points="{path}"/>')
    if series.dots or len(places) <= 12:
        radius = 2.2 if series.dots else 3.5
        parts += [f'<circle class="{series.colour}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>' for x, y in places]
    return "".join(parts)


def _legend(series: Sequence[Series]) -> list[str]:
    parts, left = [], float(LEFT)
    for one in series:
        parts.append(f'<circle class="{one.colour}" cx="{left + 5}" cy="12" r="4"/>')
        parts.append(f'<text x="{left + 14}" y="16">{escape(one.name)}</text>')
        left += 14 + LETTER * len(one.name) + 16
    return parts


def charts_of_one(records: Sequence[Record]) -> list[Chart]:
    """What happened during a load."""
    answered = [record for record in records if record.outcome == "answered"]
    refused = [record for record in records if record.outcome != "answered"]
    latency = [
        Series("whole answer", "blue", [(record.arrived_s, record.e2e_s) for record in answered], dots=True),
        Series("first token", "orange", [(record.arrived_s, record.ttft_s or 0.0) for record in answered], dots=True),
        Series("shed or failed", "red", [(record.arrived_s, record.e2e_s) for record in refused], dots=True),
    ]
    curves = [
        Series("first token", "orange", _curve([record.ttft_s for record in answered])),
        Series("whole answer", "blue", _curve([record.e2e_s for record in answered])),
    ]
    return [
        Chart("Latency of each request", "arrival, s", "s", latency),
        Chart("Latency by percentile", "percent of the answered requests", "s", curves),
        Chart("Tokens answered", "s", "tokens/s", [Series("tokens", "green", tokens_over_time(answered))]),
        Chart("Requests in flight", "s", "requests", [Series("in flight", "blue", _steps(in_flight(records)))]),
    ]


def charts_of_several(rows: Sequence[Row], x_name: str, places: Sequence[float]) -> list[Chart]:
    """How numbers change from load to load. places: where each row stands, such as its rate."""

    def series(name: str, colour: str, values: Iterable[float | None]) -> Series:
        known = [(x, y) for x, y in zip(places, values, strict=True) if y is not None]
        return Series(name, colour, known)

    def at(spread: Spread | None, name: str) -> float | None:
        return None if spread is None else float(getattr(spread, name))

    loads = [row.summary for row in rows]
    return [
        Chart("Time to first token", x_name, "s", [
            series("p50", "orange", [at(one.ttft, "p50") for one in loads]),
            series("p95", "red", [at(one.ttft, "p95") for one in loads]),
        ]),
        Chart("Time per output token", x_name, "s", [
            series("p50", "orange", [at(one.tpot, "p50") for one in loads]),
            series("p95", "red", [at(one.tpot, "p95") for one in loads]),
        ]),
        Chart("Tokens answered", x_name, "tokens/s", [
            series("tokens", "green", [one.per_s(one.answer_tokens) for one in loads]),
        ]),
        Chart("Requests", x_name, "requests/s", [
            series("offered", "blue", [one.offered_per_s for one in loads]),
            series("answered", "green", [one.per_s(one.answered) for one in loads]),
            series("good", "orange", [None if one.good is None else one.per_s(one.good) for one in loads]),
        ]),
    ]  # fmt: skip


def _curve(values: Iterable[float | None]) -> Points:
    ascending = sorted(value for value in values if value is not None)
    if not ascending:
        return []
    return [(percent / 2, percentile(ascending, percent / 2)) for percent in range(201)]


def tokens_over_time(answered: Sequence[Record]) -> list[tuple[float, float]]:
    """(second, tokens in that second): of each answer evenly between its first token and its end."""
    seconds = [0.0] * (1 + max((int(record.ended_s) for record in answered), default=-1))
    for record in answered:
        begin, tokens = record.first_token_s, record.answer_tokens
        if begin is None or not tokens:
            continue
        length = record.ended_s - begin
        for second in range(int(begin), int(record.ended_s) + 1):
            share = (min(second + 1, record.ended_s) - max(second, begin)) / length if length > 0 else 1.0
            seconds[second] += tokens * share
    return [(second + 0.5, tokens) for second, tokens in enumerate(seconds)]


def _steps(changes: Sequence[tuple[float, int]]) -> Points:
    points: list[tuple[float, float]] = []
    for at, number in changes:
        points += [(at, points[-1][1] if points else 0.0), (at, number)]
    return points


def page(title: str, subtitle: str, rows: Sequence[Row], charts: Sequence[Chart], plan: str) -> str:
    """The whole page."""
    figures = "".join(f"<figure><figcaption>{escape(one.title)}</figcaption>{one.svg()}</figure>" for one in charts)
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body><main>"
        f"<h1>{escape(title)}</h1><p class=quiet>{escape(subtitle)}</p>"
        f'<section class="charts">{figures}</section><section class="wide">{_table(rows, plan)}</section>'
        "</main></body></html>\n"
    )


def _table(rows: Sequence[Row], plan: str) -> str:
    heads = (plan, "offered", "answered", "shed", "failed", "requests/s", "tokens/s", "TTFT p50 / p95 / p99",
             "TPOT p50 / p95 / p99", "answer p50 / p95 / p99", "goodput")  # fmt: skip
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in _cells(row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cells(row: Row) -> list[str]:
    one: Summary = row.summary
    goodput = NONE if one.good is None or not one.offered else f"{one.good / one.offered:.1%}"
    return [
        row.name,
        *(str(number) for number in (one.offered, one.answered, one.shed, one.failed)),
        f"{one.per_s(one.answered):.3g}",
        f"{one.per_s(one.answer_tokens):.4g}",
        *(_three(spread) for spread in (one.ttft, one.tpot, one.e2e)),
        goodput,
    ]


def _three(spread: Spread | None) -> str:
    if spread is None:
        return NONE
    return " / ".join(duration_text(value) for value in (spread.p50, spread.p95, spread.p99))
