"""Draws the dashboards with what a Prometheus has, for the documents: pages of SVG, photographed by Chromium.

python -m charts.pictures ADDRESS FOLDER [--minutes 10] [--until UNIX_SECONDS] [--only run serving]

Grafana draws them otherwise; panels, queries, units and legends are the dashboards' own.
"""

import argparse
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from charts.generate import CHART

Json = dict[str, Any]
Points = list[tuple[float, float]]

COLUMN, LINE, GAP = 42, 26, 8
"""Width of one of the 24 columns, height of a line of the grid, and the space between panels, in pixels."""
SAMPLES = 240
COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#7f3fbf", "#6b6b6b", "#e69f00", "#a50026",
    "#332288", "#88aa33",
)  # fmt: skip
"""Told apart by everyone (Okabe and Ito), the yellow darker; then some that are only told apart from these."""
ROW = 23
"""Height of a row of a table, in pixels."""
MOST_NAMED = 12
LETTER = 6.2
"""Width of a letter of a legend, rather too wide than too narrow."""
STYLE = """
* { box-sizing: border-box; margin: 0 }
body { background: #f4f5f5; font: 12px/1.35 "DejaVu Sans", "Noto Sans", sans-serif; color: #24292e; position: relative }
h1 { font-size: 15px; padding: 10px 8px }
section { position: absolute; background: #fff; border: 1px solid #dcdee0; border-radius: 3px; padding: 6px 8px;
  overflow: hidden; display: flex; flex-direction: column }
h2 { position: absolute; font-size: 13px; padding: 8px 2px 0 }
h3 { flex: none; font-size: 11px; font-weight: 600; white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
svg { flex: none } svg text { font-size: 10px; fill: #57606a }
svg .grid { stroke: #e6e8ea; shape-rendering: crispEdges }
polyline { fill: none; stroke-width: 1.5 }
ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 0 12px; font-size: 10.5px }
li { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; max-width: 100% }
i { display: inline-block; width: 12px; height: 3px; margin-right: 4px; vertical-align: middle }

.number { margin: auto; font-size: 22px; font-weight: 600; white-space: nowrap }
table { border-collapse: collapse; margin-top: 4px; width: 100% } td, th { text-align: left; padding: 2px 8px;
  border-bottom: 1px solid #e6e8ea; white-space: nowrap } td.value { text-align: right } th.value { text-align: right }
.bar { display: grid; grid-template-columns: 45% 1fr 60px; gap: 8px; align-items: center; padding: 3px 0 }
.bar span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; direction: rtl; text-align: left }
.bar b { background: #0072b2; height: 14px; border-radius: 2px }
"""


@dataclass(frozen=True)
class Source:
    """A Prometheus, and the time that is looked at, in seconds since 1970."""

    address: str
    start: float
    end: float
    name: str = ".*"
    """The choice of resources by name, a regular expression."""

    @property
    def step(self) -> float:
        """Seconds between two samples."""
        return max(1.0, (self.end - self.start) / SAMPLES)

    def over_time(self, expr: str) -> list[Json]:
        """The series of an expression."""
        return self._ask("query_range", expr, start=self.start, end=self.end, step=self.step)

    def at_the_end(self, expr: str) -> list[Json]:
        """The values of an expression."""
        return self._ask("query", expr, time=self.end)

    def filled_in(self, expr: str) -> str:
        """An expression as Grafana sends it: a rate looks back over four scrapes, and a step more than one."""
        expr = expr.replace("$__rate_interval", f"{max(20, math.ceil(self.step) + 5)}s")
        expr = expr.replace('="$namespace"', '=~"$namespace"').replace("$namespace", ".*")
        return expr.replace("$name", self.name)

    def _ask(self, path: str, expr: str, **more: float) -> list[Json]:
        query = {"query": self.filled_in(expr)} | {name: str(value) for name, value in more.items()}
        address = f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=60) as answer:
            found: list[Json] = json.load(answer)["data"]["result"]
            return found


def page(dashboard: Json, source: Source) -> tuple[str, int]:
    """A dashboard as a page, and its height in pixels. Panels without data are left out; those after them move up."""
    parts, top = [f"<h1>{escape(dashboard['title'])}</h1>"], 36
    for headline, panels in _rows(dashboard["panels"]):
        drawn = [(panel, content) for panel in panels if (content := _content(panel, source))]
        if not drawn:
            continue
        parts.append(f'<h2 style="left:{GAP}px;top:{top}px">{escape(headline)}</h2>')
        top, column, line = top + LINE, 0, 0
        for panel, content in drawn:
            columns, lines = panel["gridPos"]["w"], panel["gridPos"]["h"]
            if column + columns > 24:
                top, column, line = top + line * LINE, 0, 0
            width, height = _room(panel)
            box = f"left:{column * COLUMN + GAP}px;top:{top}px;width:{width}px;height:{height}px"
            parts.append(f'<section style="{box}"><h3>{escape(panel["title"])}</h3>{content}</section>')
            column, line = column + columns, max(line, lines)
        top += line * LINE
    html = f'<!doctype html><meta charset="utf-8"><style>{STYLE}</style><body style="height:{top}px">{"".join(parts)}'
    return html, top


def _rows(panels: Sequence[Json]) -> list[tuple[str, list[Json]]]:
    """The panels below each headline."""
    rows: list[tuple[str, list[Json]]] = []
    for panel in panels:
        if panel["type"] == "row":
            rows.append((panel["title"], []))
        else:
            rows[-1][1].append(panel)
    return rows


def _room(panel: Json) -> tuple[int, int]:
    """Width and height of a panel, in pixels."""
    return panel["gridPos"]["w"] * COLUMN - GAP, panel["gridPos"]["h"] * LINE - GAP


def _content(panel: Json, source: Source) -> str:
    """What is in a panel below its title; empty without data."""
    width, height = _room(panel)
    width, height = width - 18, height - 34
    unit = panel["fieldConfig"]["defaults"]["unit"]
    if panel["type"] == "table":
        return _table(panel, source, height)
    if panel["type"] == "timeseries":
        lines = [
            (_name(target, one), _finite(one["values"]))
            for target in panel["targets"]
            for one in source.over_time(target["expr"])
        ]
        lines = [one for one in lines if one[1]]
        is_stacked = "stacking" in panel["fieldConfig"]["defaults"].get("custom", {})
        return _curves(_stacked(lines) if is_stacked else lines, unit, source, width, height, filled=is_stacked)
    values = [
        (_name(target, one), float(one["value"][1]))
        for target in panel["targets"]
        for one in source.at_the_end(target["expr"])
    ]
    values = [(name, value) for name, value in values if math.isfinite(value)]
    if not values:
        return ""
    return _number(values[0][1], unit) if panel["type"] == "stat" else _bars(values, unit)


def _name(target: Json, one: Json) -> str:
    """What a series is called: by the legend, else by its labels."""
    labels = one["metric"]
    legend = target.get("legendFormat", "")
    if not legend or legend == "__auto":
        return ", ".join(f"{value}" for name, value in labels.items() if name != "__name__")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: str(labels.get(found[1], "")), legend).strip()


def _finite(values: Sequence[Sequence[Any]]) -> Points:
    points = [(float(at), float(value)) for at, value in values]
    return [(at, value) for at, value in points if math.isfinite(value)]


def _number(value: float, unit: str) -> str:
    return f'<p class="number">{escape(told(value, unit))}</p>'


def _bars(values: list[tuple[str, float]], unit: str) -> str:
    most = max(value for _, value in values) or 1.0
    return "".join(
        f'<p class="bar"><span>{escape(name)}</span><b style="width:{max(0.0, value) / most:.1%}"></b>'
        f"{escape(told(value, unit))}</p>"
        for name, value in sorted(values, key=lambda one: -one[1])[:MOST_NAMED]
    )


def _table(panel: Json, source: Source, height: float) -> str:
    """A row for each set of labels, as many as there is room for; a column for each label and each query."""
    renamed = next((one["options"]["renameByName"] for one in panel["transformations"] if one["id"] == "organize"), {})
    heads = list(renamed.values())
    rows: dict[tuple[tuple[str, str], ...], dict[str, float]] = {}
    for head, target in zip(heads, panel["targets"], strict=True):
        for one in source.at_the_end(target["expr"]):
            labels = tuple((name, value) for name, value in sorted(one["metric"].items()) if name != "__name__")
            rows.setdefault(labels, {})[head] = float(one["value"][1])
    if not rows:
        return ""
    names = [name for name, _ in next(iter(rows))]
    lines = [
        "".join([*(f"<th>{escape(one)}</th>" for one in names), *(f'<th class="value">{one}</th>' for one in heads)])
    ]
    for labels, values in sorted(rows.items())[: int(height / ROW) - 1]:
        cells = [f"<td>{escape(value)}</td>" for _, value in labels]
        cells += [f'<td class="value">{told(values[one], "none") if one in values else ""}</td>' for one in heads]
        lines.append("".join(cells))
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _curves(
    lines: list[tuple[str, Points]], unit: str, source: Source, width: float, height: float, *, filled: bool
) -> str:
    """Lines over time; filled: down to the ground, the highest first, so that each shows what it adds."""
    if not lines:
        return ""
    legend = _legend([name for name, _ in lines])
    left, bottom = 56, 18
    height -= 15 * _legend_lines([name for name, _ in lines], width)
    values = [value for _, points in lines for _, value in points]
    low, high = min(values), max(values)
    if 0 < low < high / 2 or low == high:
        low = min(0.0, low)
    scale = 1024.0 ** _power(high) if unit == "bytes" else 1.0
    ticks = [tick * scale for tick in _ticks(low / scale, high / scale)]

    def place(at: float, value: float) -> tuple[float, float]:
        x = left + (at - source.start) / (source.end - source.start) * (width - left - 6)
        y = 8 + (ticks[-1] - value) / (ticks[-1] - ticks[0]) * (height - bottom - 8)
        return x, y

    parts = [f'<svg width="{width:.0f}" height="{height:.0f}">']
    for tick in ticks:
        _, y = place(source.start, tick)
        parts.append(f'<line class="grid" x1="{left}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 5}" y="{y + 3:.1f}" text-anchor="end">{escape(told(tick, unit))}</text>')
    for at in _times(source.start, source.end):
        x, _ = place(at, ticks[0])
        clock = time.strftime("%H:%M" if at % 60 == 0 else "%H:%M:%S", time.gmtime(at))
        parts.append(f'<text x="{x:.1f}" y="{height - 4:.0f}" text-anchor="middle">{clock}</text>')
    for index, (_, points) in sorted(enumerate(lines), reverse=filled):
        colour = COLOURS[index % len(COLOURS)]
        for run in _unbroken(points, source.step):
            path = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in run)
            if filled:
                (first, ground), (last, _) = place(run[0][0], ticks[0]), place(run[-1][0], ticks[0])
                area = f"{first:.1f},{ground:.1f} {path} {last:.1f},{ground:.1f}"
                parts.append(f'<polygon fill="{colour}" points="{area}"/>')
            parts.append(f'<polyline stroke="{colour}" points="{path}"/>')
    return f"{''.join(parts)}</svg>{legend}"


def _legend_lines(names: Sequence[str], width: float) -> int:
    count, left = 1, 0.0
    for name in names[: MOST_NAMED + 1]:
        room = LETTER * len(name) + 28
        if left + room > width and left:
            count, left = count + 1, 0.0
        left += room
    return count


def _legend(names: Sequence[str]) -> str:
    items = [
        f'<li><i style="background:{COLOURS[index % len(COLOURS)]}"></i>{escape(name)}</li>'
        for index, name in enumerate(names[:MOST_NAMED])
    ]
    more = f"<li>and {len(names) - MOST_NAMED} more</li>" if len(names) > MOST_NAMED else ""
    return f"<ul>{''.join(items)}{more}</ul>"


def _stacked(lines: list[tuple[str, Points]]) -> list[tuple[str, Points]]:
    """Each line on top of those before."""
    heights: dict[float, float] = {}
    stacked = []
    for name, points in lines:
        for at, value in points:
            heights[at] = heights.get(at, 0.0) + value
        stacked.append((name, [(at, heights[at]) for at, _ in points]))
    return stacked


def _times(start: float, end: float) -> list[float]:
    """Round times, at most six of them."""
    step = next((one for one in (30, 60, 120, 300, 600, 1800, 3600) if (end - start) / one <= 6), 14400)
    first = math.ceil((start + (end - start) / 20) / step)
    return [float(number * step) for number in range(first, math.floor((end - (end - start) / 30) / step) + 1)]


def _unbroken(points: Points, step: float) -> list[Points]:
    """The points in runs: where a series ends and comes back, no line is drawn. A single one becomes a short dash."""
    runs: list[Points] = []
    for point in points:
        if runs and point[0] - runs[-1][-1][0] <= 1.5 * step:
            runs[-1].append(point)
        else:
            runs.append([point])
    return [run if len(run) > 1 else [run[0], (run[0][0] + step, run[0][1])] for run in runs]


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, some four of them, that enclose low and high."""
    if high <= low:
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if low else (0.0, 1.0)
    raw = (high - low) / 3
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _power(size: float) -> int:
    """Of 1024, by which a number of bytes is told."""
    return min(4, int(math.log(abs(size), 1024))) if abs(size) >= 1 else 0


_SUFFIXES = {"s": "s", "reqps": "req/s", "ops": "ops/s"}


def told(value: float, unit: str) -> str:
    """A number with its unit, as short as it can be read."""
    if unit in ("percentunit", "percent"):
        return f"{value * (100 if unit == 'percentunit' else 1):.3g} %"
    if unit == "bytes":
        power = _power(value)
        return f"{value / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
    if unit == "s" and 0 < abs(value) < 1:
        return f"{value * 1000:.3g} ms"
    if unit == "s" and abs(value) >= 120:
        return f"{value / 60:.3g} min"
    if unit == "short" and abs(value) >= 1000:
        return f"{value / 1000:.3g} K"
    text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{text} {_SUFFIXES[unit]}" if unit in _SUFFIXES else text


def photograph(html: str, height: int, target: Path) -> None:
    """Writes a page as a PNG. SystemExit without a Chromium."""
    browser = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("no Chromium: install Debian's package chromium, or set CHROMIUM to its path")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "page.html"
        source.write_text(html, encoding="utf-8")
        size = f"--window-size={COLUMN * 24 + GAP},{height}"
        flags = [
            "--headless",
            "--no-sandbox",
            "--hide-scrollbars",
            "--disable-lcd-text",
            f"--user-data-dir={folder}/profile",
            size,
        ]
        command = [browser, *flags, f"--screenshot={target.resolve()}", source.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)


def main(argv: list[str]) -> int:
    """Draws the dashboards; returns the exit code."""
    parser = argparse.ArgumentParser(description="Draws the dashboards with what a Prometheus has.")
    parser.add_argument("address", help="Prometheus, such as http://127.0.0.1:9090")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--minutes", type=float, default=10, help="how much time they show")
    parser.add_argument("--until", type=float, default=None, help="its end, in seconds since 1970; default: now")
    parser.add_argument("--name", default=".*", help="resources that are shown, a regular expression; default: all")
    parser.add_argument("--only", nargs="*", help="names of dashboards; default: all")
    options = parser.parse_args(argv)
    end = options.until or time.time()
    source = Source(options.address.rstrip("/"), end - options.minutes * 60, end, options.name)
    for file in sorted((CHART / "files" / "dashboards").glob("*.json")):
        if options.only and file.stem not in options.only:
            continue
        html, height = page(json.loads(file.read_text()), source)
        target = options.folder / f"dashboard-{file.stem}.png"
        photograph(html, height, target)
        print(f"{target} ({target.stat().st_size // 1024} KiB)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
