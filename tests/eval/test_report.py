"""The page of an evaluation: whole without a network, safe with any text, true to its numbers."""

import json
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from alidade_crds.blocks import RewardFunction
from alidade_crds.contract import EvaluationDocument
from alidade_engine.reward.functions import programmed
from alidade_eval.inference.comparisons import results_of
from alidade_eval.items import Item
from alidade_eval.report import ReportError, duration, report_page, write_report
from alidade_eval.results import Outcome, write_results, write_samples
from alidade_eval.suites.arena import ArenaSuite
from alidade_eval.suites.reward import RewardSuite

HOSTILE = "</style><script>alert(1)</script>"


def row(suite: str, metric: str, model: str, value: float, **more: Any) -> dict[str, Any]:
    known = {"low": value - 0.1, "high": value + 0.1, "n": 60} | more
    return {"suite": suite, "metric": metric, "model": model, "value": value, **known}


def sample(index: int, question: str, **answers: tuple[str, float]) -> dict[str, Any]:
    return {
        "index": index,
        "question": question,
        "references": ["北京"],
        "answers": {name: text for name, (text, _) in answers.items()},
        "scores": {"f1": {name: score for name, (_, score) in answers.items()}},
    }


def suite(name: str, kind: str, **more: Any) -> dict[str, Any]:
    settings = {"type": kind, "dataset": "pvc://data/test.json"}
    return {"name": name, "type": kind, "settings": settings, "directions": {}, "details": {}, "leaks": []} | more


CONTENT: dict[str, Any] = {
    "owner": {"kind": "Evaluation", "namespace": "team", "name": "kbqa", "uid": "u"},
    "finishedAt": "2026-01-02T03:04:05+00:00",
    "baseline": "sft",
    "models": [{"name": "sft", "uri": "pvc://w/sft/model"}, {"name": "aligned", "uri": "pvc://w/aligned/model"}],
    "suites": [
        suite(
            "answers",
            "generation",
            directions={"f1": "higher", "bleu": "higher"},
            leaks=[
                {"index": 3, "question": HOSTILE, "kind": "exact", "similarity": 1.0, "place": "train.json, record 7"},
                {"index": 4, "question": "q", "kind": "near", "similarity": 0.8333, "place": "train.json, record 9"},
            ],
        ),
        suite("arena", "arena", details={"models": ["sft", "aligned"], "wins": [[0, 15], [45, 0]], "games": 60}),
    ],
    "results": [
        row("answers", "unfinished", "sft", 0.1),
        row("answers", "unfinished", "aligned", 0.1),
        row("answers", "f1", "sft", 0.4),
        row("answers", "f1", "aligned", 0.7, verdict="better", differenceLow=0.2, differenceHigh=0.4),
        row("answers", "bleu", "sft", 30.0),
        row("answers", "bleu", "aligned", 20.0, verdict="worse", differenceLow=-12.0, differenceHigh=-8.0),
        row("arena", "elo", "sft", 900.0, low=850.0, high=950.0),
        row("arena", "elo", "aligned", 1100.0, low=1050.0, high=1150.0, verdict="indistinguishable"),
        row("answers", "leaked", "*", 2 / 60, low=0.01, high=0.11),
    ],
    "warnings": [HOSTILE],
    "seconds": {"sft": 61.0, "aligned": 4.5},
}
SAMPLES: dict[str, list[dict[str, Any]]] = {
    "answers": [
        sample(0, "中国的首都是哪里？", sft=("上海", 0.0), aligned=("北京", 1.0)),
        sample(1, HOSTILE, sft=(HOSTILE, 0.5), aligned=("", 0.0)),
        sample(2, "same", sft=("x" * 5000, 0.0), aligned=("y" * 5000, 0.0)),
        sample(3, "endless", sft=("好" * 5000, 0.2), aligned=("北京", 0.9)),
    ]
}


class Page(HTMLParser):
    """Tags that stay open, addresses that the page would load, and its text."""

    VOID = {"meta", "br"}

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.said = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")] + [tag] * (tag == "script")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element that closes itself, as SVG's do."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.said += data


def rendered(content: dict[str, Any] = CONTENT, samples: dict[str, list[dict[str, Any]]] = SAMPLES) -> Page:
    return Page(report_page(content, samples=samples, settings={"seed": 3, "leakCheck": {"ngram": 8}}))


def test_the_page_is_well_formed_and_loads_and_runs_nothing() -> None:
    page = rendered()

    assert page.open == []
    assert page.loaded == []
    assert page.said.count(HOSTILE) >= 3  # in a warning, a question, an answer: as text


@pytest.mark.parametrize(
    "shown",
    [
        "Evaluation team/kbqa",
        "1 model compared with sft, finished 2026-01-02 03:04 UTC",
        "aligned is ▲ better than sft by 1 of 3 metrics (answers.f1 +0.20 to +0.40), ▼ worse than sft by 1 of 3 "
        "metrics (answers.bleu −12.0 to −8.0), ≈ not to be told from it by 1.",
        "answers generation of pvc://data/test.json",
        "Leak check: 2 of 60 prompts (3.3%) stand in the training data, 1 of them word for word",
        "83% alike",
        "Samples by f1, aligned against sft: 2 better, 1 worse, 1 alike",
        "4,400 more signs",
        "Share of 60 prompts that the row wins against the column",
        "75%",
        "1 min 6 s",
        "leakCheck.ngram",
        "pvc://w/aligned/model",
    ],
)
def test_the_page_says(shown: str) -> None:
    assert shown in rendered().said


def test_what_went_wrong_stands_below_what_was_measured() -> None:
    said = rendered().said
    assert said.index("corpus BLEU") < said.index("share of answers that the limit cut off")


def test_the_best_value_of_a_metric_is_underlined_and_equal_ones_are_not() -> None:
    page = report_page(CONTENT, samples=SAMPLES, settings={})
    assert page.count("<u>") == 3
    for best in ("<u>0.70</u>", "<u>30.00</u>", "<u>1,100</u>"):
        assert best in page


def test_one_model_is_not_compared_and_its_first_answers_are_shown() -> None:
    alone = CONTENT | {
        "models": CONTENT["models"][:1],
        "suites": CONTENT["suites"][:1],
        "results": [one for one in CONTENT["results"] if one["model"] == "sft" and one["suite"] == "answers"],
    }
    only = {"answers": [{**one, "answers": {"sft": one["answers"]["sft"]}} for one in SAMPLES["answers"]]}
    said = rendered(alone, only).said

    assert "there is nothing to compare it with" in said
    assert "The first answers" in said
    assert "上海" in said
    assert "baseline" not in said.replace("(baseline)", "")


def test_an_evaluation_in_which_nothing_could_be_measured_has_a_page() -> None:
    said = rendered(CONTENT | {"results": [], "seconds": {}}, {}).said
    assert "No sample could be measured." in said
    assert "aligned has no verdict." in said


def test_the_report_is_written_from_the_files_of_the_output(tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    (tmp_path / "results.json").write_text(json.dumps(CONTENT))
    (tmp_path / "evaluation.json").write_text(json.dumps({"seed": 3, "models": []}))
    lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in SAMPLES["answers"])
    (tmp_path / "scores" / "answers.jsonl").write_text(lines)

    page = write_report(tmp_path)

    assert page == tmp_path / "report.html"
    assert page.read_text() == report_page(CONTENT, samples=SAMPLES, settings={"seed": 3})


def test_the_report_reads_what_suites_and_results_write(tmp_path: Path) -> None:
    names = ["sft", "aligned"]
    document = EvaluationDocument.model_validate(
        {
            "owner": CONTENT["owner"],
            "models": [{"name": name, "model": {"uri": f"file:///{name}"}} for name in names],
            "baseline": "sft",
            "suites": [
                {"type": "reward", "dataset": "file:///q.json", "function": "exact_match"},
                {"type": "arena", "dataset": "file:///q.json", "function": "exact_match"},
            ],
            "output": "file:///out",
        }
    )
    items = [Item(index, "", [{"role": "user", "content": f"{index}?"}], (str(index),)) for index in range(8)]
    answers = {
        name: [{"index": index, "text": f"{name} {index}", "finished": True, "tokens": 2} for index in range(8)]
        for name in names
    }
    rewards = {
        name: [{"index": index, "score": float(index % 2 + place)} for index in range(8)]
        for place, name in enumerate(names)
    }
    load = partial(programmed, RewardFunction.EXACT_MATCH)
    reward = RewardSuite(document.suites[0], items, seed=0, field="spec.suites[0]", load=load)
    arena = ArenaSuite(document.suites[1], items, seed=0, field="spec.suites[1]", load=load, baseline="sft")
    results, details, directions = [], {}, {}
    for suite in (reward, arena):
        rows = {one.key: answers for one in suite.collections()} | {one.key: rewards for one in suite.second()}
        found = suite.findings(rows, names)
        results += [
            one for each in found.measures for one in results_of(each, suite=suite.title, baseline="sft", seed=0)
        ]
        results += found.results
        details[suite.title] = found.details
        directions[suite.title] = {measure.metric: measure.direction for measure in found.measures}
        write_samples(tmp_path, suite.title, found.samples)
    outcome = Outcome(results, details, directions, seconds={"sft": 1.0, "aligned": 2.0})
    write_results(tmp_path, document, outcome, "2026-01-02T03:04:05+00:00")

    page = Page(write_report(tmp_path).read_text())

    assert "Samples by mean, aligned against sft: 8 better, 0 worse, 0 alike" in page.said
    assert "Samples by win_rate, aligned against sft: 8 better, 0 worse, 0 alike" in page.said
    assert "mean 0.5" in page.said  # of the histogram
    assert "100%" in page.said  # of the win matrix


def test_a_report_of_an_unfinished_folder_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"results\.json is missing"):
        write_report(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.25, "0.2 s"), (9.99, "10.0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (7860, "2 h 11 min")]
)
def test_durations_have_two_units_at_most(seconds: float, said: str) -> None:
    assert duration(seconds) == said
