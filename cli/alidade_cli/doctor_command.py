"""`alidade doctor`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

import click

from alidade_cli import local_cluster
from alidade_cli.doctor.findings import Finding, State, findings
from alidade_cli.doctor.survey import survey

_WORDS: dict[State, str] = {"ok": "ok", "missing": "MISSING", "warning": "warning", "optional": "-", "hidden": "?"}
_COLOURS: dict[State, str] = {"ok": "green", "missing": "red", "warning": "yellow"}


@click.command(short_help="Say what the cluster lacks.")
@click.option("--namespace", "-n", help="Namespace that jobs are to run in; default: the kubeconfig's.")
@click.option("--output", "-o", type=click.Choice(["text", "json"]), default="text", help="Form of the answer.")
def doctor(namespace: str | None, output: str) -> None:
    """Say what the cluster lacks, and what to do about it; exit 1 when nothing can run for want of it."""
    found = findings(survey(local_cluster.connect(namespace)))
    if output == "json":
        click.echo(json.dumps([asdict(one) for one in found], indent=1))
    else:
        _print(found)
    sys.exit(1 if any(one.state == "missing" for one in found) else 0)


def _print(found: Sequence[Finding]) -> None:
    width = max(len(one.name) for one in found)
    for one in found:
        word = click.style(f"{_WORDS[one.state]:7}", fg=_COLOURS.get(one.state), bold=one.state == "missing")
        click.echo(f"{word}  {one.name:{width}}  {one.message}")
        if one.fix:
            click.echo(f"{'':7}  {'':{width}}  -> {one.fix}")
