"""Which samples changed most, and which way is better."""

from typing import Any

import pytest

from alidade_eval.changes import SHOWN, changes_of, telling_score


def samples(metric: str, before: list[float], after: list[float]) -> list[dict[str, Any]]:
    return [
        {"index": index, "scores": {metric: {"base": one, "tuned": other}}}
        for index, (one, other) in enumerate(zip(before, after, strict=True))
    ]


def test_gains_and_losses_come_by_size_and_then_in_the_order_of_the_data() -> None:
    found = changes_of(
        samples("f1", [0.0, 0.5, 0.5, 1.0, 0.2, 0.0, 0.0], [0.5, 0.5, 0.0, 0.9, 0.2, 0.5, 1.0]),
        metric="f1",
        model="tuned",
        baseline="base",
    )

    assert [change.sample["index"] for change in found.gains] == [6, 0, 5]
    assert [change.sample["index"] for change in found.losses] == [2, 3]
    assert (found.better, found.worse, found.same) == (3, 2, 2)
    assert (found.gains[0].before, found.gains[0].after) == (0.0, 1.0)


def test_what_is_better_the_lower_gains_by_falling() -> None:
    found = changes_of(
        samples("perplexity", [9.0, 3.0], [4.0, 5.0]),
        metric="perplexity",
        model="tuned",
        baseline="base",
        lower_is_better=True,
    )

    assert [change.sample["index"] for change in found.gains] == [0]
    assert [change.sample["index"] for change in found.losses] == [1]


def test_few_samples_are_shown_and_all_are_counted() -> None:
    found = changes_of(samples("f1", [0.0] * 50, [1.0] * 50), metric="f1", model="tuned", baseline="base")

    assert len(found.gains) == SHOWN
    assert found.better == 50


@pytest.mark.parametrize(
    ("suite_type", "scores", "metric"),
    [
        ("generation", ["exact_match", "f1", "rougeL"], "f1"),
        ("generation", ["exact_match"], "exact_match"),
        ("ranking", ["map", "mrr"], "mrr"),
        ("reward", ["mean"], "mean"),
        ("custom", ["politeness", "brevity"], "politeness"),
        ("harness", [], None),
    ],
)
def test_samples_are_compared_by_the_score_that_tells_them_apart_best(
    suite_type: str, scores: list[str], metric: str | None
) -> None:
    assert telling_score(suite_type, [{"scores": {name: {"base": 1.0} for name in scores}}]) == metric


def test_without_samples_there_is_no_score() -> None:
    assert telling_score("generation", []) is None
