"""Charts that compare a few things by name. Bars and maps are HTML, so that their text stays as large on a phone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from alidade_engine.pages.charts import number_text, ticks

BINS = 30
"""Columns of a histogram: fine enough for two peaks, coarse enough for a hundred values."""
STRONGEST = 60
"""Percent of colour in the most uneven cell of a heat map; more would hide its number."""


@dataclass(frozen=True)
class Bar:
    """One bar. text: the value as it is written beside it. style: a CSS class of the page for its colour."""

    name: str
    value: float
    text: str
    low: float | None = None
    high: float | None = None
    style: str = "base"


def interval_bars(bars: Sequence[Bar], *, from_zero: bool = True) -> str:
    """Bars with their intervals over a common axis; where 0 means nothing (from_zero), points instead of bars."""
    shown = [bar for bar in bars if math.isfinite(bar.value)]
    if not shown:
        return '<p class="quiet">No values.</p>'
    known = [end for bar in shown for end in (bar.value, bar.low, bar.high) if end is not None and math.isfinite(end)]
    marks = ticks(min(known + [0.0] * from_zero), max(known + [0.0] * from_zero))
    axis = _Axis(marks[0], marks[-1])
    rows = "".join(_bar(bar, axis, from_zero=from_zero) for bar in shown)
    return f'<div class="rows">{rows}{axis.row()}</div>'


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float

    def place(self, value: float) -> float:
        """Percent of the way from one end to the other; what lies beyond an end is at it."""
        return min(100.0, max(0.0, 100 * (value - self.low) / (self.high - self.low)))

    def row(self) -> str:
        """The ends of the axis below the rows."""
        ends = f"<span>{number_text(self.low)}</span><span>{number_text(self.high)}</span>"
        return f'<span></span><span class="axis">{ends}</span><span></span>'


def _bar(bar: Bar, axis: _Axis, *, from_zero: bool) -> str:
    end = axis.place(bar.value)
    if from_zero:
        start = axis.place(0.0)
        drawn = _span(f"fill {bar.style}", min(start, end), abs(end - start))
    else:
        drawn = f'<i class="point {bar.style}" style="left:{end:.2f}%"></i>'
    if bar.low is not None and bar.high is not None:
        low, high = axis.place(bar.low), axis.place(bar.high)
        drawn += _span("whisker", low, high - low)
    return (
        f'<span class="name">{escape(bar.name)}</span><span class="track">{drawn}</span>'
        f'<span class="number">{escape(bar.text)}</span>'
    )


def _span(style: str, left: float, width: float) -> str:
    return f'<i class="{style}" style="left:{left:.2f}%;width:{width:.2f}%"></i>'


def heat_map(names: Sequence[str], shares: Sequence[Sequence[float | None]]) -> str:
    """A table of shares, 0 to 1, of the row against the column: one colour above a half, another below."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(map(_cell, row))}</tr>" for name, row in zip(names, shares, strict=True)
    )
    return (
        f'<div class="wide"><table class="heat"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _cell(share: float | None) -> str:
    if share is None or not math.isfinite(share):
        return "<td></td>"
    style = "wins" if share >= 0.5 else "loses"
    return f'<td class="{style}" style="--strength:{2 * STRONGEST * abs(share - 0.5):.0f}%">{share:.0%}</td>'


def histograms(series: Mapping[str, Sequence[float]], *, value_name: str) -> str:
    """A histogram of each series, one below the other over a common axis, with the mean beside it."""
    finite = {name: [value for value in values if math.isfinite(value)] for name, values in series.items()}
    finite = {name: values for name, values in finite.items() if values}
    if not finite:
        return '<p class="quiet">No values.</p>'
    everything = [value for values in finite.values() for value in values]
    marks = ticks(min(everything), max(everything))
    axis = _Axis(marks[0], marks[-1])
    counts = {name: _counts(values, axis) for name, values in finite.items()}
    highest = max(max(own) for own in counts.values())
    rows = "".join(
        f'<span class="name">{escape(name)}</span>{_columns(counts[name], highest, axis, name, value_name)}'
        f'<span class="number">mean {number_text(float(f"{sum(values) / len(values):.3g}"))}</span>'
        for name, values in finite.items()
    )
    return f'<div class="rows">{rows}{axis.row()}</div>'


def _counts(values: Sequence[float], axis: _Axis) -> list[int]:
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, int(axis.place(value) / 100 * BINS))] += 1
    return counts


def _columns(counts: Sequence[int], highest: int, axis: _Axis, name: str, value_name: str) -> str:
    width = (axis.high - axis.low) / BINS
    drawn = []
    for place, count in enumerate(counts):
        if count:
            low = axis.low + place * width
            height = 40 * count / highest
            said = f"{count} of {value_name} {number_text(low)} to {number_text(low + width)}"
            drawn.append(
                f'<rect class="main" x="{place + 0.05}" y="{40 - height:.2f}" width="0.9" height="{height:.2f}">'
                f"<title>{escape(said)}</title></rect>"
            )
    label = escape(f"histogram of {value_name} of {name}")
    # The picture is stretched to the room there is: nothing in it has a shape to lose.
    return (
        f'<svg class="histogram" viewBox="0 0 {BINS} 40" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}">{"".join(drawn)}</svg>'
    )
