"""report.html: what an evaluation has found, for people, in one file that needs nothing else."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from alidade_crds.comparison import SIGNS, difference_text, metrics_of
from alidade_crds.evaluation import LEAKED, EvaluationResult
from alidade_engine.disk import write_file
from alidade_engine.pages.frame import columns, facts, flat, page, tiles, warnings
from alidade_eval.places import DOCUMENT_FILE, REPORT_FILE, RESULTS_FILE, SCORES_FOLDER
from alidade_eval.samples import read_rows
from alidade_eval.suite_sections import Comparison, suite_section

MOST_NAMED = 5
"""Metrics that a model's sentence names of each verdict."""
NOT_SETTINGS = ("version", "models", "suites", "baseline", "endpoint")
"""Parts of the document that the page shows elsewhere."""


class ReportError(Exception):
    """A folder of which no report can be made; the message says what is missing."""


def write_report(output: Path) -> Path:
    """Writes report.html of a finished evaluation's output folder; answers its path.

    Raises ReportError when the evaluation is not finished.
    """
    path = output / RESULTS_FILE
    if not path.is_file():
        raise ReportError(f"{path} is missing; a report is made of a finished evaluation's output folder.")
    content = json.loads(path.read_text())
    samples = {suite["name"]: _samples(output, suite["name"]) for suite in content["suites"]}
    document = output / DOCUMENT_FILE
    settings = json.loads(document.read_text()) if document.is_file() else {}
    write_file(output / REPORT_FILE, report_page(content, samples=samples, settings=settings))
    return output / REPORT_FILE


def _samples(output: Path, suite: str) -> list[dict[str, Any]]:
    path = output / SCORES_FOLDER / f"{suite}.jsonl"
    return list(read_rows(path)) if path.is_file() else []


def report_page(
    content: Mapping[str, Any], *, samples: Mapping[str, Sequence[Mapping[str, Any]]], settings: Mapping[str, Any]
) -> str:
    """The page as HTML. content: results.json. samples: by suite, of scores/. settings: evaluation.json."""
    results = [EvaluationResult.model_validate(row) for row in content["results"]]
    names = [model["name"] for model in content["models"]]
    owner = content["owner"]
    sections = [
        _tiles(content, results),
        warnings(content["warnings"]),
        _verdicts(names, content["baseline"], results),
        *(
            suite_section(
                suite,
                Comparison(
                    names,
                    content["baseline"],
                    [one for one in results if one.suite == suite["name"]],
                    samples.get(suite["name"], ()),
                ),
            )
            for suite in content["suites"]
        ),
        columns(
            [
                facts("Models", _models(content)),
                facts("Time", {name: duration(seconds) for name, seconds in content["seconds"].items()})
                if content["seconds"]
                else "",
                facts("Settings", _settings(settings)),
            ]
        ),
    ]
    return page(f"{owner['kind']} {owner['namespace']}/{owner['name']}", _subtitle(content), sections)


def _subtitle(content: Mapping[str, Any]) -> str:
    others = len(content["models"]) - 1
    compared = f"{others} model{'s' * (others > 1)} compared with {content['baseline']}" if others else "One model"
    return f"{compared}, finished {_moment(content['finishedAt'])}"


def _moment(at: str) -> str:
    return f"{datetime.fromisoformat(at).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _tiles(content: Mapping[str, Any], results: Sequence[EvaluationResult]) -> str:
    seconds = sum(content["seconds"].values())
    return tiles(
        [
            ("Models", str(len(content["models"]))),
            ("Suites", str(len(content["suites"]))),
            ("Metrics", str(len(metrics_of(one for one in results if one.metric != LEAKED)))),
            ("Measuring took", duration(seconds) if seconds else None),
        ]
    )


def _verdicts(names: Sequence[str], baseline: str, results: Sequence[EvaluationResult]) -> str:
    """A sentence for each model: is it better, by what, and by how much?"""
    if len(names) < 2:
        return (
            '<section class="card"><p>Only one model was measured, so there is nothing to compare it with; its numbers '
            "below are known within their 95 % intervals.</p></section>"
        )
    sentences = "".join(f"<p>{_sentence(name, baseline, results)}</p>" for name in names if name != baseline)
    legend = (
        f'<p class="quiet">Compared with {escape(baseline)} on the same samples at the 95 % level: '
        f"{_signs()}. The best value of a metric is underlined. In the charts the bars of what is "
        "indistinguishable are hollow.</p>"
    )
    return f'<section class="card verdicts"><h2>Is it better?</h2>{sentences}{legend}</section>'


def _signs() -> str:
    return ", ".join(f'<span class="{verdict}">{sign} {verdict}</span>' for verdict, sign in SIGNS.items())


def _sentence(name: str, baseline: str, results: Sequence[EvaluationResult]) -> str:
    own = [one for one in results if one.model == name and one.verdict is not None]
    by = {verdict: [one for one in own if one.verdict == verdict] for verdict in SIGNS}
    said = []
    for verdict in ("better", "worse"):
        found = by[verdict]
        if found:
            named = ", ".join(_named(one) for one in found[:MOST_NAMED])
            more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
            sign = f'<b class="{verdict}">{SIGNS[verdict]} {verdict}</b>'
            said.append(f"{sign} than {escape(baseline)} by {len(found)} of {len(own)} metrics ({named}{more})")
    same = by["indistinguishable"]
    if same and len(same) == len(own):
        said.append(
            f"{SIGNS['indistinguishable']} not to be told from {escape(baseline)} by any of {len(own)} "
            f"metric{'s' * (len(own) > 1)}"
        )
    elif same:
        said.append(f"{SIGNS['indistinguishable']} not to be told from it by {len(same)}")
    return f"<b>{escape(name)}</b> is {', '.join(said)}." if said else f"<b>{escape(name)}</b> has no verdict."


def _named(result: EvaluationResult) -> str:
    difference = difference_text(result)
    return escape(f"{result.suite}.{result.metric} {difference}" if difference else f"{result.suite}.{result.metric}")


def _models(content: Mapping[str, Any]) -> dict[str, str]:
    return {
        f"{model['name']}{' (baseline)' * (model['name'] == content['baseline'])}": model["uri"] or "unknown"
        for model in content["models"]
    }


def _settings(document: Mapping[str, Any]) -> dict[str, str]:
    return dict(flat({name: value for name, value in document.items() if name not in NOT_SETTINGS}, ""))


def duration(seconds: float) -> str:
    """Such as 42 s, 3 min 5 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
