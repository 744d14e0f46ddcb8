"""The results of an Evaluation side by side: alidade compare."""

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from alidade.state import condition, is_true
from alidade_cli.errors import CommandFailed
from alidade_cli.kube import Cluster, Resource, kind_named
from alidade_crds.comparison import (
    SIGNS,
    best_of,
    counted,
    direction_of,
    interval_text,
    metrics_of,
    value_text,
)
from alidade_crds.crd import Kind
from alidade_crds.evaluation import EVERY_MODEL, LEAKED, EvaluationResult, Verdict

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Form = Literal["table", "json", "csv", "markdown"]
FORMS: tuple[Form, ...] = ("table", "json", "csv", "markdown")
STYLES: dict[Verdict, str] = {"better": "bold cyan", "worse": "bold yellow", "indistinguishable": "dim"}
"""Colours that are told apart by everyone; the signs say the same without."""
BEST = "*"
UNBROKEN = 10_000
"""Columns of a table that no terminal breaks."""


@dataclass(frozen=True)
class Results:
    """What an Evaluation has found."""

    name: str
    baseline: str
    results: Sequence[EvaluationResult]
    omitted: int
    report: str | None

    @property
    def models(self) -> list[str]:
        """The models, in the order of the results."""
        return [name for name in dict.fromkeys(one.model for one in self.results) if name != EVERY_MODEL]


def results_of(cluster: Cluster, kind: Kind, name: str) -> Results:
    """The results of an Evaluation, or of an AlignmentRun's. CommandFailed while there are none."""
    evaluation = _evaluation(cluster, kind, name)
    own_name, status = evaluation["metadata"]["name"], evaluation.get("status", {})
    if not is_true(evaluation, "Succeeded"):
        raise CommandFailed(f"Evaluation {own_name} has no results: {_state(evaluation)}")
    results = [EvaluationResult.model_validate(row) for row in status.get("results", [])]
    models = [one.model for one in results if one.model != EVERY_MODEL]
    baseline = status.get("baseline") or next(iter(models), "")
    return Results(own_name, baseline, results, status.get("omitted") or 0, status.get("reportUri"))


def _evaluation(cluster: Cluster, kind: Kind, name: str) -> Resource:
    resource = cluster.read(kind, name)
    if kind.kind == "Evaluation":
        return resource
    if kind.kind != "AlignmentRun":
        raise CommandFailed(
            f"{kind.kind} {name} has nothing to compare; name an Evaluation (eval/NAME) or an "
            "AlignmentRun that has one (ar/NAME)"
        )
    if "evaluation" not in resource.get("spec", {}):
        raise CommandFailed(f"AlignmentRun {name} has no evaluation; add spec.evaluation to a run to have one")
    stages = resource.get("status", {}).get("stages", [])
    ref = next((stage["ref"] for stage in stages if stage["kind"] == "Evaluation" and stage.get("ref")), None)
    if ref is None:
        raise CommandFailed(f"AlignmentRun {name} has not come to its evaluation: {_state(resource)}")
    return cluster.read(kind_named("Evaluation"), ref)


def _state(resource: Resource) -> str:
    """Phase, and what is said of it: of a failure, else of what does not hold yet."""
    status = resource.get("status", {})
    phase = status.get("phase", "not looked at by an operator yet")
    failed = condition(resource, "Failed")
    if failed is not None and failed["status"] == "True":
        return f"it is {phase}: {failed['message']}"
    open_ones = (found for found in status.get("conditions", []) if found["status"] == "False" and found["message"])
    waiting = next((found["message"] for found in open_ones if found["type"] != "Failed"), None)
    counted_samples = f", {status['done']} samples measured" if status.get("done") else ""
    return f"it is {phase}{counted_samples}" + (f": {waiting}" if waiting else "")


def print_results(found: Results, form: Form) -> None:
    """Prints them to stdout."""
    if form == "table":
        _print_table(found)
        return
    text = {"json": _json, "csv": _csv, "markdown": _markdown}[form](found)
    sys.stdout.write(text)


def _json(found: Results) -> str:
    content: dict[str, Any] = {
        "evaluation": found.name,
        "baseline": found.baseline,
        "results": [one.to_dict() for one in found.results],
        "omitted": found.omitted,
        "report": found.report,
    }
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def _csv(found: Results) -> str:
    fields = list(EvaluationResult.model_fields)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    for one in found.results:
        writer.writerow([getattr(one, field) for field in fields])
    return text.getvalue()


def _markdown(found: Results) -> str:
    head = ["metric", "n", *(_title(found, name) for name in found.models)]
    lines = [head, ["---"] * len(head)]
    lines += [[name, size, *(text for text, _ in cells)] for name, size, cells in _rows(found)]
    table = "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
    return table + "".join(f"\n{line}\n" for line in _notes(found))


def _print_table(found: Results) -> None:
    from rich.console import Console

    # A file or a pipe has no width: lines must not be broken there.
    print_table(found, Console() if sys.stdout.isatty() else Console(width=UNBROKEN, color_system=None))


def print_table(found: Results, console: "Console") -> None:
    """Prints the table and what it cannot say. Where it is too narrow, intervals stand below their values."""
    from rich.text import Text

    table = _table(found, before_interval=" ")
    if console.measure(table, options=console.options.update(max_width=UNBROKEN)).maximum > console.width:
        table = _table(found, before_interval="\n")
    console.print(table)
    for line in _notes(found):
        console.print(Text(line))


def _table(found: Results, *, before_interval: str) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("metric", no_wrap=True)
    table.add_column("n", justify="right")
    for name in found.models:
        table.add_column(Text(_title(found, name)), overflow="fold")
    for metric, size, cells in _rows(found):
        shown = [Text(text.replace(" (", f"{before_interval}("), style) for text, style in cells]
        table.add_row(Text(metric), Text(size), *shown)
    return table


def _title(found: Results, name: str) -> str:
    return f"{name} (baseline)" if name == found.baseline and len(found.models) > 1 else name


def _rows(found: Results) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """For each metric its name, its samples, and for each model a text with its style."""
    for (suite, metric), own in metrics_of(found.results).items():
        if metric == LEAKED:
            continue
        by_model = {one.model: one for one in own}
        best = best_of(own, direction_of(own))
        sizes = "–".join(str(size) for size in sorted({one.n for one in own}))
        cells = [_cell(by_model.get(name), is_best=name in best) for name in found.models]
        yield f"{suite}.{metric}", sizes, cells


def _cell(result: EvaluationResult | None, *, is_best: bool) -> tuple[str, str]:
    if result is None:
        return "", ""
    interval = interval_text(result)
    text = value_text(result) + BEST * is_best + (f" ({interval})" if interval else "")
    if result.verdict is None:
        return text, ""
    return f"{SIGNS[result.verdict]} {text}", STYLES[result.verdict]


def _notes(found: Results) -> Iterator[str]:
    """What the table cannot say."""
    for name in found.models:
        verdicts = counted(found.results, name)
        if verdicts:
            yield f"{name} against {found.baseline}: {verdicts}"
    yield from _leaks(found.results)
    if found.omitted:
        yield f"{found.omitted} more numbers are in results.json beside the report"
    signs = ", ".join(f"{sign} {verdict}" for verdict, sign in SIGNS.items())
    compared = f"; {signs}, each against {found.baseline} on the same samples" if len(found.models) > 1 else ""
    yield f"In brackets 95 % intervals; {BEST} the best value{compared}"
    if found.report is not None:
        yield f"Report: {found.report}"


def _leaks(results: Iterable[EvaluationResult]) -> Iterator[str]:
    """What the leak check has found; suites with the same prompts are named together."""
    suites: dict[tuple[int, int], list[str]] = {}
    for one in results:
        if one.metric == LEAKED:
            suites.setdefault((round(one.value * one.n), one.n), []).append(one.suite)
    for (leaked, count), names in suites.items():
        share = f"{leaked} of {count} prompts ({leaked / count:.1%})"
        yield f"Leak check of {', '.join(names)}: {share} stand in the training data"
