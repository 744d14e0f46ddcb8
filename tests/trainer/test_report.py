"""The report: whole without a network, safe with any text, and never broken by odd numbers."""

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from alidade_engine.pages.charts import Line, line_chart, smoothed, thinned, ticks
from alidade_trainer.report import ReportError, report_page, write_report

LINEAGE: dict[str, Any] = {
    "model": {"uri": "pvc://w/m/model", "digest": "sha256:aa", "parameters": 1000, "trainableParameters": 10},
    "owner": {"kind": "FineTuneJob", "namespace": "team", "name": "kbqa"},
    "stage": "sft",
    "base": {"uri": None, "digest": None},
    "data": [{"uri": "pvc://d/train.json", "digest": "sha256:bb"}],
    "job": {"training": {"seed": 3}, "dataset": {"template": "{{ <script>alert(1)</script> }}"}},
    "steps": 2,
    "metrics": {"train_loss": 1.5, "tokens": 200.0, "tokens_per_second": 100.0},
    "versions": {"torch": "2"},
    "createdAt": "2026-01-02T03:04:05+00:00",
}
SPLIT = {
    "samples": 4,
    "sequences": 2,
    "tokens": 100,
    "answer_tokens": 10,
    "longest_sample": 30,
    "mean_sample": 25.0,
    "packing_efficiency": 0.5,
}
PIECES: dict[str, Any] = {
    "data": {
        "sources": [{"uri": "pvc://d/train.json", "kept": 4, "records": 5, "shape": "text2text"}],
        "train": SPLIT,
        "validation": None,
        "packing": True,
        "max_length": 64,
        "warnings": ["1 of 5 records is left out"],
    },
    "samples": [{"prompt": "<b>Q</b>", "reference": "中国", "answer": "", "held_out": True}],
}
STEPS = [
    {"step": n, "loss": 5.0 / n, "learning_rate": 1e-5, "grad_norm": 1.0, "tokens_per_second": 100.0}
    for n in range(1, 20)
]


class Outline(HTMLParser):
    """Tags that stay open, and addresses the page would load."""

    VOID = {"meta", "br"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")] + [tag] * (tag == "script")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element that closes itself, as SVG's do."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_loads_nothing_and_escapes_what_it_shows() -> None:
    page = report_page(lineage=LINEAGE, pieces=PIECES, lines=[*STEPS, {"step": 19, "eval_loss": 1.0}])

    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert outline.loaded == []
    assert "url(" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;Q&lt;/b&gt;" in page
    for shown in ("FineTuneJob team/kbqa", "中国", "pvc://d/train.json", "sha256:bb", "training.seed", "50.0% filled"):
        assert shown in page


def test_losses_of_mixed_datasets_have_charts_of_three_lines() -> None:
    names = ["a & b", "c", "d", "e"]
    steps = [step | {"losses": {name: 1.0 for name in names[: 4 if step["step"] % 2 else 3]}} for step in STEPS]
    evaluation = {"step": 19, "eval_loss": 1.0, "eval_losses": {"c": 1.0, "d": 1.0}}
    page = report_page(lineage=LINEAGE, pieces=PIECES, lines=[*steps, evaluation])
    assert page.count("Loss of each dataset") == 2
    assert page.count("Loss on what is held out of each dataset") == 1
    assert "a &amp; b" in page
    plain = report_page(lineage=LINEAGE, pieces=PIECES, lines=STEPS)
    assert "of each dataset" not in plain


def test_a_report_of_an_unfinished_folder_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"lineage\.json is missing"):
        write_report(tmp_path)


def test_a_report_is_written_from_the_files_of_the_output(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "lineage.json").write_text(json.dumps(LINEAGE))
    (tmp_path / "report.json").write_text(json.dumps(PIECES))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in STEPS))

    assert write_report(tmp_path).read_text().count("<svg") == 4


@pytest.mark.parametrize(
    "points",
    [
        [(1.0, 2.0)],
        [(1.0, 2.0), (2.0, 2.0)],
        [(1.0, 0.0), (2.0, 0.0)],
        [(1.0, 1e-9), (5.0, 3e12)],
        [(1.0, 2.0), (2.0, math.nan), (3.0, math.inf)],
    ],
)
def test_a_chart_of_odd_numbers_is_valid_and_within_its_frame(points: list[tuple[float, float]]) -> None:
    chart = line_chart([Line("one", points, dots=True)], x_name="step", y_name="loss")

    ElementTree.fromstring(chart)
    assert "nan" not in chart
    places = [float(value) for value in re.findall(r'c[xy]="([-0-9.]+)"', chart)]
    assert places
    assert all(0 <= value <= 640 for value in places)


def test_a_chart_without_points_says_so() -> None:
    assert "No values" in line_chart([Line("one", [])], x_name="step", y_name="loss")


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (3.2, 7.9), (1e-6, 2e-5), (0.0, 31000.0), (-4.0, 4.0)])
def test_axis_marks_are_round_and_enclose_the_values(low: float, high: float) -> None:
    marks = ticks(low, high)

    assert marks[0] <= low
    assert marks[-1] >= high * (1 - 1e-9)
    assert 4 <= len(marks) <= 8


def test_smoothing_starts_at_the_first_value_keeps_a_constant_and_leaves_short_curves_alone() -> None:
    constant = [(float(n), 4.0) for n in range(100)]
    assert [y for _, y in smoothed(constant)] == pytest.approx([4.0] * 100)
    falling = [(0.0, 10.0), *((float(n), 0.0) for n in range(1, 100))]
    assert smoothed(falling)[1][1] == pytest.approx(0.9 * 0.1 * 10 / 0.19)
    assert [y for _, y in smoothed(falling[:10])] == [y for _, y in falling[:10]]


def test_long_curves_are_thinned_and_keep_their_last_point() -> None:
    kept = thinned([(float(n), 0.0) for n in range(10_001)])

    assert len(kept) <= 602
    assert kept[-1] == (10_000.0, 0.0)
