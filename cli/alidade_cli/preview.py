"""A dataset's preview at a terminal."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import click

from alidade_crds.contract import JobDocument
from alidade_crds.preview import PreviewDocument, PreviewPiece, PreviewRecord

_SEPARATOR = "|"
_SIGNS = {"\n": "⏎", "\r": "␍", "\t": "⇥"}


def print_preview(preview: PreviewDocument, job: JobDocument, *, limit: int | None) -> None:
    """Records first, then the counts. What is learned has a line of its own, and is green at a terminal."""
    click.echo(click.style(f"{job.owner.kind} {job.owner.name}: {job.dataset.uri}", bold=True))
    for record in preview.shown:
        click.echo(f"\n{headline(record)}")
        for learned, pieces in groupby(record.pieces, key=lambda piece: piece.learned):
            text = line_of(pieces)
            click.echo(f"  learned  {click.style(text, fg='green', bold=True)}" if learned else f"  read     {text}")
    click.echo("")
    if preview.data is not None:
        if limit is not None and any(source["records"] == limit for source in preview.data["sources"]):
            click.echo(f"Counts of the first {limit:,} records of each dataset (--limit 0 counts all):")
        for line in counts(preview.data):
            click.echo(line)
    elif not preview.failure:
        click.echo("Without a model there are no tokens to count: name one with --model.")
    if preview.failure:
        click.echo(f"A job with this data would fail: {preview.failure}", err=True)


def headline(record: PreviewRecord) -> str:
    """Where a record stands, how long it is, and why it is left out."""
    tokens = sum(len(piece.ids) for piece in record.pieces)
    learned = sum(len(piece.ids) for piece in record.pieces if piece.learned)
    counted = f": {tokens:,} tokens, {learned:,} of them learned" if tokens else ""
    return f"{record.place}{counted}{f'; left out: {record.fault}' if record.fault else ''}"


def line_of(pieces: Iterable[PreviewPiece]) -> str:
    """Tokens apart from one another, on one line."""
    return _SEPARATOR.join(_visible(piece.text) for piece in pieces)


def _visible(text: str) -> str:
    signs = "".join(_SIGNS.get(sign, sign) for sign in text)
    return "".join(sign if sign.isprintable() else f"\\x{ord(sign):02x}" for sign in signs)


def counts(report: dict[str, Any]) -> Iterator[str]:
    """What became of the records, a line each."""
    for source in report["sources"]:
        yield f"  {source['uri']}: {source['kept']:,} of {source['records']:,} records are kept ({source['shape']})"
    for split, name in (("train", "trained on"), ("validation", "held out")):
        found = report.get(split)
        if found:
            yield (
                f"  {name}: {found['samples']:,} samples in {found['sequences']:,} sequences, {found['tokens']:,} "
                f"tokens, {found['answer_tokens']:,} of them learned; {found['mean_sample']:.1f} tokens on average, "
                f"{found['longest_sample']:,} at most"
            )
    if report["packing"]:
        yield f"  packing: {report['train']['packing_efficiency']:.1%} of the places hold a token"
    for warning in report["warnings"]:
        yield f"  Warning: {warning}"
