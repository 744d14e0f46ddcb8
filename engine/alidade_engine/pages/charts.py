"""Line charts as inline SVG, which every browser shows without a script or a network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 30, 38
LETTER = 7
"""Width of a letter of the legend, rather too wide than too narrow."""
MOST_POINTS = 600
"""Points of a line; more would be finer than the screen."""


@dataclass(frozen=True)
class Line:
    """One line of a chart. style: a CSS class of the page (`raw`, `main`, `other`, `third`)."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "main"
    dots: bool = False


def line_chart(lines: Sequence[Line], *, x_name: str, y_name: str) -> str:
    """An SVG element with the lines over a common grid, and a legend when there are several.

    Points that are not finite are left out; without any point the chart says so.
    """
    shown = [Line(line.name, _finite(thinned(line.points)), line.style, line.dots) for line in lines]
    shown = [line for line in shown if line.points]
    if not shown:
        return '<p class="quiet">No values.</p>'
    x_ticks = ticks(*_range([x for line in shown for x, _ in line.points]), whole=True)
    y_ticks = ticks(*_range([y for line in shown for _, y in line.points]))
    frame = _Frame(x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1])
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_name)} over {escape(x_name)}">',
        *_grid(frame, x_ticks, y_ticks, x_name),
        *(_drawn(frame, line) for line in shown),
        *(_legend(shown) if len(shown) > 1 else []),
        "</svg>",
    ]
    return "".join(parts)


@dataclass(frozen=True)
class _Frame:
    """From values to places in the picture."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Round numbers, 4 to 8 of them, that enclose low and high; whole allows no fractions."""
    if high <= low:
        margin = max(abs(low) * 0.1, 1.0 if whole else 1e-9)
        low, high = low - (0 if whole else margin), high + margin
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    if whole:
        step = max(1.0, math.ceil(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


SHORT_CURVE = 10
"""Points up to which a curve is shown as it is."""


def smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Exponential moving average without its early bias (Kingma & Ba 2015, section 3).

    It looks back over about ten points, fewer on a short curve, so that it does not lag behind by much of it.
    """
    weight = min(0.9, max(0.0, 1 - SHORT_CURVE / max(len(points), 1)))
    average, result = 0.0, []
    for number, (x, y) in enumerate(points, 1):
        average = weight * average + (1 - weight) * y
        result.append((x, average / (1 - weight**number)))
    return result


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most about MOST_POINTS of the points, the last one among them."""
    stride = max(1, math.ceil(len(points) / MOST_POINTS))
    kept = list(points[::stride])
    if points and kept[-1] != points[-1]:
        kept.append(points[-1])
    return kept


def number_text(value: float) -> str:
    """A number as short as it can be read on an axis."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-3:
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _grid(frame: _Frame, x_ticks: Sequence[float], y_ticks: Sequence[float], x_name: str) -> list[str]:
    parts = []
    for value in y_ticks:
        y = frame.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number_text(value)}</text>')
    for value in x_ticks:
        x = frame.x(value)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">'
            f"{number_text(value)}</text>"
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="tick" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_name)}</text>')
    return parts


def _drawn(frame: _Frame, line: Line) -> str:
    places = [(frame.x(x), frame.y(y), x, y) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in places)
    parts = [f'<polyline class="{line.style}" points="{path}"/>'] if len(places) > 1 else []
    if line.dots or len(places) == 1:
        parts += [
            f'<circle class="{line.style}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"><title>{escape(line.name)} '
            f"{value:.4g} at {number_text(at)}</title></circle>"
            for x, y, at, value in places
        ]
    return "".join(parts)


def _legend(lines: Sequence[Line]) -> list[str]:
    """Names of the lines in a row above the plot, where no line can run into them."""
    parts, left = [], float(LEFT)
    for line in lines:
        parts.append(f'<line class="{line.style} key" x1="{left}" y1="12" x2="{left + 22}" y2="12"/>')
        parts.append(f'<text class="legend" x="{left + 28}" y="16">{escape(line.name)}</text>')
        left += 28 + LETTER * len(line.name) + 20
    return parts
