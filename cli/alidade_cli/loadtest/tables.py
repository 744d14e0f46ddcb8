"""A load's numbers as text: of one load each number on a line, of several loads a row for each."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alidade_cli.loadtest.summary import LATE_S, Spread, Summary

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

UNBROKEN = 10_000
"""Columns of a table that no terminal breaks."""
NONE = "–"


@dataclass(frozen=True)
class Row:
    """A load and what sets it apart from the others, such as `4/s`."""

    name: str
    summary: Summary


def print_rows(rows: Sequence[Row], *, plan: str) -> None:
    """Prints to stdout."""
    from rich.console import Console

    # A file or a pipe has no width: lines must not be broken there.
    show(rows, Console() if sys.stdout.isatty() else Console(width=UNBROKEN, color_system=None), plan=plan)


def show(rows: Sequence[Row], console: "Console", *, plan: str) -> None:
    """Prints the numbers. plan: what sets the loads apart, the head of the first column."""
    from rich.text import Text

    if len(rows) == 1:
        _show_one(rows[0].summary, console)
    else:
        console.print(_sweep(rows, plan))
    for line in notes(rows):
        console.print(Text(line, "yellow"))


def _show_one(summary: Summary, console: "Console") -> None:
    from rich.text import Text

    width = max(len(name) for name, _ in _facts(summary))
    for name, value in _facts(summary):
        console.print(Text.assemble((f"{name:{width}}  ", "dim"), value))
    console.print()
    console.print(_latencies(summary))
    if summary.errors:
        console.print()
    for one in summary.errors:
        said = f": {one.message}" if one.message else ""
        console.print(Text(f"{one.count} × {one.reason}{said}", "yellow"))


def _facts(summary: Summary) -> Iterator[tuple[str, str]]:
    yield "requests", f"{summary.offered} offered: {_outcomes(summary)}"
    yield "rate", f"{summary.offered_per_s:.3g}/s offered, {summary.per_s(summary.answered):.3g}/s answered"
    if summary.answered > summary.uncounted:
        each = summary.answer_tokens / (summary.answered - summary.uncounted)
        asked = summary.prompt_tokens / summary.answered
        speed = summary.per_s(summary.answer_tokens)
        yield "tokens", f"{speed:.4g} tokens/s answered; {each:.3g} an answer, {asked:.3g} a prompt in the mean"
    yield "in flight", f"{summary.most_in_flight} at most"
    yield "time", f"{summary.elapsed_s:.1f} s"
    if summary.good is not None and summary.offered:
        within = ", ".join(f"{name} ≤ {duration_text(limit)}" for name, limit in summary.objectives.items())
        share = f"{summary.good / summary.offered:.1%} of the offered"
        yield "goodput", f"{summary.per_s(summary.good):.3g}/s, {share}, with {within}"


def _outcomes(summary: Summary) -> str:
    parts = [f"{summary.answered} answered"]
    parts += [f"{summary.shed} shed (429)"] * bool(summary.shed)
    parts += [f"{summary.failed} failed"] * bool(summary.failed)
    return ", ".join(parts)


def _latencies(summary: Summary) -> "Table":
    table = _table()
    table.add_column("from the arrival on")
    for name in ("mean", "p50", "p90", "p95", "p99", "max"):
        table.add_column(name, justify="right")
    for name, spread in (
        ("time to first token", summary.ttft),
        ("time per output token", summary.tpot),
        ("gap between events", summary.gap),
        ("whole answer", summary.e2e),
    ):
        table.add_row(name, *_cells(spread))
    return table


def _cells(spread: Spread | None) -> list[str]:
    if spread is None:
        return [NONE] * 6
    return [duration_text(value) for value in (spread.mean, spread.p50, spread.p90, spread.p95, spread.p99, spread.max)]


def _sweep(rows: Sequence[Row], plan: str) -> "Table":
    table = _table()
    has_goodput = any(row.summary.good is not None for row in rows)
    heads = ("answered", "tokens/s", "TTFT p50", "p95", "TPOT p50", "p95", "answer p95", "shed", "failed")
    table.add_column(plan)
    for head in (*heads, *(["goodput"] if has_goodput else [])):
        table.add_column(head, justify="right")
    for row in rows:
        one = row.summary
        cells = [
            f"{one.per_s(one.answered):.3g}/s",
            f"{one.per_s(one.answer_tokens):.4g}",
            *(_at(one.ttft, name) for name in ("p50", "p95")),
            *(_at(one.tpot, name) for name in ("p50", "p95")),
            _at(one.e2e, "p95"),
            *(str(number) for number in (one.shed, one.failed)),
        ]
        if one.good is not None:
            cells.append(f"{one.good / one.offered:.1%}" if one.offered else NONE)
        table.add_row(row.name, *cells)
    return table


def _at(spread: Spread | None, name: str) -> str:
    return NONE if spread is None else duration_text(getattr(spread, name))


def _table() -> "Table":
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)


def notes(rows: Sequence[Row]) -> Iterator[str]:
    """What the numbers cannot say of themselves."""
    for row in rows:
        one, name = row.summary, f"{row.name}: " if len(rows) > 1 else ""
        if one.stopped:
            yield f"{name}stopped after {one.elapsed_s:.1f} s; what had not ended by then is not counted"
        if one.uncounted:
            yield f"{name}of {one.uncounted} answers the server did not say how many tokens they have"
        if one.late is not None and one.late.p99 > LATE_S:
            yield (
                f"{name}1 % of the requests were sent {duration_text(one.late.p99)} or more after their arrival, which "
                "the latencies include: --max-in-flight was reached, or this machine is too slow for the load"
            )
        if len(rows) > 1:
            yield from (f"{name}{error.count} × {error.reason}: {error.message}" for error in one.errors)


def duration_text(seconds: float) -> str:
    """Three digits and a unit."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.3g} s" if seconds < 999.5 else f"{seconds:.0f} s"
