"""`alidade bench serve`: load on a served model, measured."""

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click

from alidade_cli.doors import Door
from alidade_cli.errors import CommandFailed
from alidade_cli.loadtest.apis import Api
from alidade_cli.loadtest.measuring import Plan, Result, measure
from alidade_cli.loadtest.tables import Row, print_rows

Parsed = TypeVar("Parsed")
MOST_REQUESTS = 1_000_000
"""Of one load: all of it is planned, and kept, in memory."""


class Word(click.ParamType[Any]):
    """An option that a function reads; its ValueError is wrong usage."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name, self._parse = name, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value that the text means."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def numbers(kind: Callable[[str], float]) -> Callable[[str], tuple[float, ...]]:
    """Reads `1,2,4`: numbers above 0."""

    def parse(text: str) -> tuple[float, ...]:
        try:
            values = tuple(kind(part) for part in text.split(","))
        except ValueError:
            values = ()
        if not values or not all(0 < value < 1e6 for value in values):
            raise ValueError(f"{text!r}: write numbers above 0, such as 4 or 1,2,4")
        return values

    return parse


def run(door: Door, plan: Plan, form: str, chart: Path | None, records: Path | None) -> int:
    """Runs the loads and prints what they have shown. 1 when not one request was answered."""
    for path in (chart, records):
        if path is not None and not path.parent.is_dir():
            raise CommandFailed(f"{path} cannot be written: there is no folder {path.parent}")
    said: list[str] = []

    def told(api: Api) -> None:
        said.append(_sentence(door, api, plan))
        click.echo(said[0], err=True)

    results = asyncio.run(measure(door, plan, told, _watch))
    rows = [Row(_name(plan, result.setting), result.summary) for result in results]
    if form == "json":
        click.echo(json.dumps(_document(said[0], plan, results), ensure_ascii=False, indent=2))
    else:
        print_rows(rows, plan=_plan_name(plan))
    if records is not None:
        _write_records(records, results)
    if chart is not None:
        chart.write_text(_page(said[0], plan, results, rows), encoding="utf-8")
        click.echo(f"chart: {chart}", err=True)
    return 0 if any(result.summary.answered for result in results) else 1


def _watch(text: str) -> None:
    """A line that is written over, at a terminal; elsewhere nothing."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{text}", nl=False, err=True)


def _sentence(door: Door, api: Api, plan: Plan) -> str:
    asked = {"chat": "chat completions", "completions": "completions", "tgi": "/generate_stream"}[api.name]
    of_model = f" of {api.model}" if api.model else ""
    where = f"{door.label} ({asked}{of_model})"
    settings = ", ".join(f"{setting:g}" for setting in plan.rates or plan.streams)
    if plan.streams:
        what = f"{settings} streams at once"
    else:
        kind = {"poisson": "Poisson", "constant": "constant", "burst": f"in bursts of {plan.burst_size}"}[plan.arrivals]
        what = (
            f"{settings} requests/s, {kind} arrivals" if plan.arrivals != "burst" else f"{settings} requests/s {kind}"
        )
    each = " each" if len(plan.rates or plan.streams) > 1 else ""
    return f"Load on {where}: {what}, {plan.bounds.duration_s:g} s{each}, seed {plan.seed}"


def _plan_name(plan: Plan) -> str:
    return "streams" if plan.streams else "rate"


def _axis(plan: Plan) -> str:
    return "streams" if plan.streams else "offered requests/s"


def _name(plan: Plan, setting: float) -> str:
    return f"{setting:g}" if plan.streams else f"{setting:g}/s"


def _document(sentence: str, plan: Plan, results: Sequence[Result]) -> dict[str, Any]:
    key = "streams" if plan.streams else "rate"
    return {
        "load": sentence,
        "arrivals": None if plan.streams else plan.arrivals,
        "seed": plan.seed,
        "runs": [{key: result.setting, **result.summary.to_dict()} for result in results],
    }


def _write_records(path: Path, results: Sequence[Result]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for result in results:
            for record in result.outcome.records:
                file.write(json.dumps({"setting": result.setting, **asdict(record)}, ensure_ascii=False) + "\n")


def _page(sentence: str, plan: Plan, results: Sequence[Result], rows: Sequence[Row]) -> str:
    from alidade_cli.loadtest.charts import charts_of_one, charts_of_several, page

    name = _plan_name(plan)
    if len(results) == 1:
        charts = charts_of_one(results[0].outcome.records)
    else:
        charts = charts_of_several(rows, _axis(plan), [result.setting for result in results])
    return page("Load test", sentence, rows, charts, name)
