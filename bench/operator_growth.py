"""How the operator's costs grow with the number of resources: 100 to 10,000 launched FineTuneJobs.

    python bench/operator_growth.py [--sizes 100 300 1000 3000 10000] [--chart]

One operator and one API server (alidade_local.apiserver), no other controller: the jobs stay launched, as those whose
pods run for days. At each size, reached by adding to the one before: processor time of the operator for each new
resource, from its creation until all is quiet; resident memory; the time from suspending one resource to the end of
its child, with all others idle, and the API writes of that; processor time while nothing happens; and, after SIGKILL,
the time and processor time until it serves and is quiet again, and what it writes then.

The order is the exponent of a power law over the sizes, by least squares of the logarithms: 1 is linear. Costs for one
resource have the order 0 when they do not grow. Results: bench/results/operator_growth.json, and the
chart of them, docs/images/operator-growth.svg, drawn by matplotlib in an environment of its own, .tools/chart; --chart
only draws what was measured before.
"""

import argparse
import asyncio
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.operator_load import (  # noqa: E402  # the path is set above
    Children,
    Subject,
    api_server,
    changes,
    create_all,
    quantile,
    settled,
    version,
)
from bench.servers import processor  # noqa: E402

RESULTS = ROOT / "bench/results/operator_growth.json"
CHART = ROOT / "docs/images/operator-growth.svg"
MATPLOTLIB = "matplotlib==3.11.2"
CHANGED = 40
"""Resources whose change is timed at each size."""
IDLE_S = 10.0
ROWS = {
    "new_cpu_ms": "CPU for each new resource, ms",
    "resident_mb": "resident memory, MB",
    "change_ms_p50": "a change acted on, p50, ms",
    "change_ms_p95": "the same, p95, ms",
    "change_cpu_ms": "CPU for a change, ms",
    "change_writes": "API writes for a change",
    "idle_cpu_percent": "CPU when nothing happens, percent of a core",
    "restart_s": "serving after a kill, s",
    "restart_cpu_s": "CPU until quiet after a kill, s",
    "restart_writes": "API writes after a kill",
}


def main(argv: Sequence[str]) -> int:
    """Measures, prints a table, writes it and draws the chart; exit code 1 where that could not be drawn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 300, 1000, 3000, 10_000], metavar="N")
    parser.add_argument("--chart", action="store_true", help="only draw the chart anew")
    options = parser.parse_args(argv)
    if not options.chart:
        _measure_all(parser, sorted(options.sizes))
    return draw()


def draw() -> int:
    """Draws the results; returns the exit code of whoever did not."""
    environment: list[str | Path] = [sys.executable, ROOT / "tools/environment.py", ROOT / ".tools/chart", MATPLOTLIB]
    made = subprocess.run(environment, stdout=subprocess.PIPE, text=True)
    return (
        made.returncode
        or subprocess.run([made.stdout.strip(), ROOT / "bench/growth_chart.py", RESULTS, CHART]).returncode
    )


def _measure_all(parser: argparse.ArgumentParser, sizes: Sequence[int]) -> None:
    if sizes[0] < CHANGED:
        parser.error(f"--sizes: {sizes[0]} is too few; {CHANGED} resources are changed at each size")
    with tempfile.TemporaryDirectory(prefix="alidade-growth-") as folder:
        found = asyncio.run(_measure(sizes, Path(folder)))
    orders = {name: order(sizes, [found[size][name] for size in sizes]) for name in ROWS}
    RESULTS.write_text(json.dumps({"processor": processor(), "found": found, "orders": orders}, indent=2) + "\n")
    print(_table(sizes, found, orders))


async def _measure(sizes: Sequence[int], folder: Path) -> dict[int, dict[str, float]]:
    command = [sys.executable, "-m", "alidade_operator.main"]
    subject = Subject("alidade-operator", command, "listed every kind", folder)
    found, before = {}, 0
    async with api_server(folder) as (api, environment, _):
        await subject.start(environment)
        children = Children(api)
        await settled(api, subject)
        for size in sizes:
            names = [f"job-{number}" for number in range(before, size)]
            found[size] = await _at_size(subject, api, environment, children, names)
            print(f"{size}: {json.dumps(found[size])}", file=sys.stderr, flush=True)
            before = size
        await children.stop()
        subject.kill()
    return found


async def _at_size(
    subject: Subject, api: Any, environment: dict[str, str], children: Children, names: list[str]
) -> dict[str, float]:
    used = subject.cpu_s()
    await create_all(api, children, names)
    await settled(api, subject)
    found = {"new_cpu_ms": 1000 * (subject.cpu_s() - used) / len(names), "resident_mb": subject.resident_mb()}

    used, begun = subject.cpu_s(), time.monotonic()
    await asyncio.sleep(IDLE_S)
    found["idle_cpu_percent"] = 100 * (subject.cpu_s() - used) / (time.monotonic() - begun)

    written, used = await version(api), subject.cpu_s()
    acted = await changes(api, children, names[:CHANGED])
    await settled(api, subject)
    found["change_ms_p50"], found["change_ms_p95"] = statistics.median(acted), quantile(acted, 0.95)
    found["change_cpu_ms"] = 1000 * (subject.cpu_s() - used) / CHANGED
    # The change itself, and what the deletion of the child is, are not the operator's.
    found["change_writes"] = (await version(api) - written) / CHANGED - 1

    subject.kill()
    written = await version(api)
    found["restart_s"] = await subject.start(environment)
    await settled(api, subject)
    found["restart_cpu_s"], found["restart_writes"] = subject.cpu_s(), float(await version(api) - written)
    return found


def order(sizes: Sequence[int], costs: Sequence[float]) -> float | None:
    """The exponent b of cost = a x size^b, by least squares of the logarithms; None where a cost is 0."""
    if min(costs) <= 0:
        return None
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    return round(statistics.linear_regression(x, y).slope, 2)


def _table(sizes: Sequence[int], found: dict[int, dict[str, float]], orders: dict[str, float | None]) -> str:
    lines = ["| launched jobs | " + " | ".join(f"{size:,}" for size in sizes) + " | order |"]
    lines.append("|---|" + "---:|" * (len(sizes) + 1))
    for name, title in ROWS.items():
        cells = [f"{found[size][name]:.1f}" for size in sizes]
        shown = "–" if orders[name] is None else f"{orders[name]:.2f}"
        lines.append(f"| {title} | " + " | ".join(cells) + f" | {shown} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
