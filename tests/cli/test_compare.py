"""What `alidade compare` prints, and what it says while there is nothing to print."""

import csv
import io
import json
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from alidade_cli import main as command_line
from alidade_cli.compare import Results, print_table
from alidade_cli.main import alidade
from alidade_crds.crd import Kind
from alidade_crds.evaluation import EvaluationResult


def row(metric: str, model: str, value: float, **more: Any) -> dict[str, Any]:
    return {"suite": "answers", "metric": metric, "model": model, "value": value, "n": 60} | more


ROWS = [
    row("f1", "sft", 0.4, low=0.3, high=0.5),
    row("f1", "aligned", 0.7, low=0.6, high=0.8, verdict="better", differenceLow=0.2, differenceHigh=0.4),
    row("perplexity", "sft", 12.31, low=11.0, high=13.5),
    row("perplexity", "aligned", 13.5, low=12.0, high=15.0, verdict="worse", differenceLow=0.5, differenceHigh=2.0),
    row("leaked", "*", 0.05, low=0.02, high=0.12),
]
REPORT = "pvc://alidade-workspace/evaluations/kbqa-0123abcd/report.html"


def resource(kind_name: str, *, succeeded: str = "True", **status: Any) -> dict[str, Any]:
    conditions = [{"type": "Succeeded", "status": succeeded, "message": ""}]
    return {
        "metadata": {"name": kind_name},
        "spec": {},
        "status": {"phase": "Succeeded", "conditions": conditions} | status,
    }


DONE = resource("kbqa", results=ROWS, baseline="sft", omitted=4, reportUri=REPORT)
RUN = resource(
    "run",
    succeeded="False",
    phase="Running",
    stages=[
        {"name": "sft", "kind": "FineTuneJob", "ref": "run-sft", "phase": "Succeeded"},
        {"name": "evaluation", "kind": "Evaluation", "ref": "run-evaluation-1a", "phase": "Succeeded"},
    ],
) | {"spec": {"evaluation": {"template": {}}}}


class Resources:
    """A cluster that has these."""

    def __init__(self, **found: dict[str, Any]) -> None:
        self._found = found

    def read(self, kind: Kind, name: str) -> dict[str, Any]:
        return self._found[f"{kind.short_name}_{name}".replace("-", "_")]


def compare(monkeypatch: pytest.MonkeyPatch, cluster: Resources, *arguments: str) -> Result:
    monkeypatch.setattr(command_line, "_connect", lambda namespace: cluster)
    return CliRunner().invoke(alidade, ["compare", *arguments])


def test_the_table_has_a_row_for_each_metric_and_a_column_for_each_model(monkeypatch: pytest.MonkeyPatch) -> None:
    done = compare(monkeypatch, Resources(eval_kbqa=DONE), "kbqa")

    lines = [line.split("  ") for line in done.output.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert done.exit_code == 0
    assert cells[0] == ["metric", "n", "sft (baseline)", "aligned"]
    assert cells[2] == ["answers.f1", "60", "0.40 (0.30 to 0.50)", "▲ 0.70* (0.60 to 0.80)"]
    assert cells[3] == ["answers.perplexity", "60", "12.3* (11.0 to 13.5)", "▼ 13.5 (12.0 to 15.0)"]


@pytest.mark.parametrize(
    "line",
    [
        "aligned against sft: 1 better, 1 worse",
        "Leak check of answers: 3 of 60 prompts (5.0%) stand in the training data",
        "4 more numbers are in results.json beside the report",
        "In brackets 95 % intervals; * the best value; ▲ better, ▼ worse, ≈ indistinguishable, each against sft on the "
        "same samples",
        f"Report: {REPORT}",
    ],
)
def test_below_the_table_stands_what_it_cannot_say(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    assert line in compare(monkeypatch, Resources(eval_kbqa=DONE), "eval/kbqa").output.splitlines()


def test_programs_get_every_number_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Resources(eval_kbqa=DONE)

    told = json.loads(compare(monkeypatch, cluster, "kbqa", "-o", "json").output)
    assert (told["baseline"], told["omitted"], told["report"]) == ("sft", 4, REPORT)
    assert told["results"] == ROWS

    lines = list(csv.DictReader(compare(monkeypatch, cluster, "kbqa", "-o", "csv").output.splitlines()))
    assert len(lines) == len(ROWS)
    assert (lines[1]["model"], lines[1]["value"], lines[1]["verdict"], lines[0]["verdict"]) == (
        "aligned",
        "0.7",
        "better",
        "",
    )


def test_markdown_is_a_table_with_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = compare(monkeypatch, Resources(eval_kbqa=DONE), "kbqa", "-o", "markdown").output.splitlines()

    assert lines[:3] == [
        "| metric | n | sft (baseline) | aligned |",
        "| --- | --- | --- | --- |",
        "| answers.f1 | 60 | 0.40 (0.30 to 0.50) | ▲ 0.70* (0.60 to 0.80) |",
    ]


def test_one_model_is_compared_with_none(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = resource("kbqa", results=[row("f1", "endpoint", 0.4)])
    output = compare(monkeypatch, Resources(eval_kbqa=alone), "kbqa").output
    assert "0.4000" in output
    assert "baseline" not in output


def test_a_run_is_asked_for_its_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    done = compare(monkeypatch, Resources(ar_run=RUN, eval_run_evaluation_1a=DONE), "ar/run")
    assert done.exit_code == 0
    assert "answers.f1" in done.output


FAILED = {"type": "Failed", "status": "True", "message": "the judge does not answer"}
WAITING = {"type": "Fits", "status": "False", "message": "needs 100 GiB"}


@pytest.mark.parametrize(
    ("target", "cluster", "said"),
    [
        (
            "kbqa",
            Resources(eval_kbqa=resource("kbqa", phase="Running", done="12/60", conditions=[])),
            "Evaluation kbqa has no results: it is Running, 12/60 samples measured",
        ),
        (
            "kbqa",
            Resources(eval_kbqa=resource("kbqa", phase="Failed", conditions=[FAILED])),
            "it is Failed: the judge does not answer",
        ),
        (
            "kbqa",
            Resources(eval_kbqa=resource("kbqa", phase="Pending", conditions=[WAITING])),
            "it is Pending: needs 100 GiB",
        ),
        ("kbqa", Resources(eval_kbqa={"metadata": {"name": "kbqa"}}), "it is not looked at by an operator yet"),
        ("ftj/kbqa", Resources(ftj_kbqa=resource("kbqa")), "FineTuneJob kbqa has nothing to compare"),
        ("ar/run", Resources(ar_run=resource("run")), "AlignmentRun run has no evaluation"),
        (
            "ar/run",
            Resources(ar_run=RUN | {"status": {"phase": "Running", "stages": []}}),
            "AlignmentRun run has not come to its evaluation: it is Running",
        ),
    ],
)
def test_without_results_the_command_ends_with_1_and_says_why(
    monkeypatch: pytest.MonkeyPatch, target: str, cluster: Resources, said: str
) -> None:
    done = compare(monkeypatch, cluster, target)
    assert done.exit_code == 1
    assert said in done.output


def test_an_unknown_form_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compare(monkeypatch, Resources(eval_kbqa=DONE), "kbqa", "-o", "xml").exit_code == 2


def test_a_narrow_terminal_has_intervals_below_their_values_and_whole_metric_names() -> None:
    written = io.StringIO()
    found = Results("kbqa", "sft", [EvaluationResult.model_validate(row) for row in ROWS], 0, None)

    print_table(found, Console(file=written, width=60, color_system=None))

    lines = [" ".join(line.split()) for line in written.getvalue().splitlines()]
    assert lines[2:4] == ["answers.f1 60 0.40 ▲ 0.70*", "(0.30 to 0.50) (0.60 to 0.80)"]
    assert lines[4].startswith("answers.perplexity 60 12.3*")


def test_verdicts_are_coloured_at_a_terminal() -> None:
    written = io.StringIO()
    found = Results("kbqa", "sft", [EvaluationResult.model_validate(row) for row in ROWS], 0, None)

    print_table(found, Console(file=written, width=200, force_terminal=True, color_system="standard"))

    assert "\x1b[1;36m▲ 0.70*" in written.getvalue()
    assert "\x1b[1;33m▼ 13.5" in written.getvalue()
