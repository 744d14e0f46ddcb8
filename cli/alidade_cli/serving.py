"""What a ModelServe has come to, for `alidade wait`, `logs` and `report`."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from alidade_cli.kube import Resource
from alidade_cli.loadtest.tables import NONE

Facts = Sequence[tuple[str, str]]


def facts(resource: Resource) -> Facts:
    """What is served, and how, each with its name."""
    status = resource.get("status", {})
    return [
        (name, str(value))
        for name, value in (
            ("address", status.get("url")),
            ("model", status.get("model")),
            ("engine", status.get("engine")),
            ("replicas", f"{status.get('readyReplicas', 0)} of {status.get('replicas', 0)} ready"),
            ("adapters", ", ".join(status.get("adapters", []))),
            *_quantization(status.get("quantization") or {}),
            *_canary(status.get("canary") or {}),
        )
        if value
    ]


def _quantization(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if not report:
        return
    yield "quantization", str(report.get("type") or report["method"])
    size, before = report["sizeBytes"], report.get("sizeBytesBefore")
    yield "size", f"{size:,} bytes" + (f", {size / before:.0%} of {before:,}" if before else "")
    first, second = report.get("perplexityBefore"), report.get("perplexityAfter")
    if first and second is not None:
        yield "perplexity", f"{first:.6g} before, {second:.6g} after ({second / first - 1:+.2%})"


def _canary(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if not report:
        return
    yield "canary", f"{report['model']}, {report['percent']} % of the requests"
    yield (
        "canary errors",
        f"{report.get('errors', 0)} of {report.get('requests', 0)} requests; beside it "
        f"{report.get('stableErrors', 0)} of {report.get('stableRequests', 0)}",
    )
    slow, stable_slow = report.get("secondsP95"), report.get("stableSecondsP95")
    if slow is not None and stable_slow is not None:
        yield "canary time", f"p95 {slow:.3g} s; beside it {stable_slow:.3g} s"


def save_page(resource: Resource, target: Path) -> None:
    """Writes what a ModelServe has come to as a page that needs nothing else."""
    name = resource["metadata"]["name"]
    namespace = resource["metadata"].get("namespace", "default")
    phase = resource.get("status", {}).get("phase", NONE)
    style = Path(__file__).with_name("loadtest").joinpath("page.css").read_text(encoding="utf-8")
    target.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}</title><style>{style}</style></head><body><main>"
        f'<h1>ModelServe {escape(name)}</h1><p class="quiet">Namespace {escape(namespace)}, {escape(phase)}</p>'
        f'<section class="wide">{_table(facts(resource))}</section>'
        f'<section class="wide">{_table(_conditions(resource), ("condition", "status", "reason", "why"))}</section>'
        "</main></body></html>\n",
        encoding="utf-8",
    )


def _conditions(resource: Resource) -> list[tuple[str, ...]]:
    return [
        (one["type"], one["status"], one.get("reason", ""), one["message"])
        for one in resource.get("status", {}).get("conditions", [])
    ]


def _table(rows: Sequence[Sequence[str]], heads: Sequence[str] = ()) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table class="words">{f"<thead><tr>{head}</tr></thead>" if heads else ""}<tbody>{body}</tbody></table>'
