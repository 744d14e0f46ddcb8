"""Draws how the operator's costs grow, from what bench/operator_growth.py has measured.

    python bench/operator_growth.py --chart     runs this with matplotlib, which lives in an environment of its own

Standard library and matplotlib only, since that environment has nothing else.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

BLUE, ORANGE, GREEN, GREY = "#3f51b5", "#e07b00", "#00897b", "#9a9a9a"
PANELS: tuple[tuple[str, str, tuple[float, float], dict[str, tuple[str, str]]], ...] = (
    (
        "Paid for each resource",
        "milliseconds",
        (1, 100),
        {
            "change_ms_p50": ("a change acted on, p50", BLUE),
            "new_cpu_ms": ("CPU for a new resource", ORANGE),
            "change_cpu_ms": ("CPU for a change", GREEN),
        },
    ),
    (
        "After a kill, for all resources",
        "seconds",
        (0.3, 30),
        {"restart_cpu_s": ("CPU until quiet", ORANGE), "restart_s": ("until it serves", BLUE)},
    ),
    ("Held for all resources", "megabytes", (30, 3000), {"resident_mb": ("resident memory", BLUE)}),
)
"""Title, unit, ends of the axis, two decades each so that slopes compare, and the figures with names and colours."""
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "alidade",
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans", "sans-serif"],
    "font.size": 10,
    "axes.edgecolor": "#bbb",
    "axes.labelcolor": "#333",
    "xtick.color": "#555",
    "ytick.color": "#555",
    "text.color": "#222",
}
"""Text stays text, so that the picture is small, and the same numbers give the same file."""


def main(argv: Sequence[str]) -> int:
    """Draws the results of the first path into the second; exit code 0."""
    source, target = (Path(path) for path in argv)
    results = json.loads(source.read_text())
    with mpl.rc_context(SETTINGS):
        figure, places = plt.subplots(1, len(PANELS), figsize=(10.4, 4.0), layout="constrained")
        for axes, (title, unit, ends, figures) in zip(places, PANELS, strict=True):
            _panel(axes, results, figures)
            axes.set_ylim(*ends)
            _show_linear(axes)
            axes.set_title(title, loc="left", fontsize=11, fontweight="bold")
            axes.set_ylabel(unit)
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        about: dict[str, Any] = {
            "Title": "How the operator's costs grow",
            "Description": f"{source.name} sha256:{digest}",
        }
        about |= dict.fromkeys(("Date", "Creator"))
        figure.savefig(target, metadata=about)
    return 0


def _panel(axes: Axes, results: Mapping[str, Any], figures: Mapping[str, tuple[str, str]]) -> None:
    sizes = sorted(int(size) for size in results["found"])
    axes.loglog()
    axes.set_xlim(sizes[0] / 1.4, sizes[-1] * 1.4)
    for name, (label, colour) in figures.items():
        costs, order = [results["found"][str(size)][name] for size in sizes], results["orders"][name]
        axes.plot(sizes, _fitted(sizes, costs, order), color=colour, linewidth=1.6)
        points: dict[str, Any] = {"markersize": 6, "markeredgecolor": "white", "zorder": 3}
        axes.plot(sizes, costs, "o", color=colour, label=f"{label}: order {order:.2f}", **points)
    axes.set_xlabel("launched jobs")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.grid(color="#ececec", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", frameon=False, fontsize=9, handlelength=1.0, handletextpad=0.4)


def _show_linear(axes: Axes) -> None:
    """What grows with the number of resources would run along it."""
    right, low = axes.get_xlim()[1], 1.2 * axes.get_ylim()[0]
    begin, end = right / 4.5, right / 1.1
    axes.plot([begin, end], [low, low * end / begin], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate("linear", (begin, low), (-4, 0), textcoords="offset points", ha="right", color=GREY, fontsize=9)


def _fitted(sizes: Sequence[int], costs: Sequence[float], order: float) -> list[float]:
    """The power law of that order whose logarithms have the mean of the costs', as least squares have it."""
    scale = geometric_mean(costs) / geometric_mean(sizes) ** order
    return [scale * size**order for size in sizes]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
