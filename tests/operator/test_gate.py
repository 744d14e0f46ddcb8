"""The gate: rules and measured numbers -> verdict, reason and exact message."""

from __future__ import annotations

from typing import Any

import pytest

from alidade_crds.alignmentrun import GateRule
from alidade_crds.evaluation import EvaluationResult
from alidade_operator.reconcile.gate import judge


def measured(**values: float) -> list[EvaluationResult]:
    """Results by `model__suite__metric`."""
    results = []
    for name, value in values.items():
        model, suite, metric = name.split("__")
        results.append(EvaluationResult(suite=suite, metric=metric, model=model, value=value, n=100))
    return results


RESULTS = measured(
    sft__reward__mean=0.5123456, aligned__reward__mean=0.7, base__reward__mean=0.25,
    sft__held__perplexity=10.0, aligned__held__perplexity=11.5,
)  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "passed", "reason", "message"),
    [
        (
            {"metric": "reward_mean", "atLeast": {"value": 0.7}},
            True,
            "Completed",
            "reward_mean is 0.7 and passes: it has to be at least 0.7.",
        ),
        (
            {"metric": "reward_mean", "atLeast": {"value": 0.71}},
            False,
            "MetricOutOfBounds",
            "reward_mean is 0.7 and does not pass: it has to be at least 0.71.",
        ),
        (
            {"metric": "mean", "atLeast": {"baseline": "sft"}},
            True,
            "Completed",
            "mean is 0.7 and passes: it has to be at least 0.5123 (sft 0.5123).",
        ),
        (
            {"metric": "reward.mean", "atLeast": {"baseline": "sft", "plus": 0.1}},
            True,
            "Completed",
            "reward.mean is 0.7 and passes: it has to be at least 0.6123 (sft 0.5123 + 0.1).",
        ),
        (
            {"metric": "reward_mean", "atLeast": {"baseline": "base", "times": 3, "plus": -0.01}},
            False,
            "MetricOutOfBounds",
            "reward_mean is 0.7 and does not pass: it has to be at least 0.74 (base 0.25 x 3 - 0.01).",
        ),
        (
            {"metric": "perplexity", "atMost": {"baseline": "sft", "times": 1.2}},
            True,
            "Completed",
            "perplexity is 11.5 and passes: it has to be at most 12 (sft 10 x 1.2).",
        ),
        (
            {"metric": "perplexity", "atLeast": {"value": 1}, "atMost": {"value": 11}},
            False,
            "MetricOutOfBounds",
            "perplexity is 11.5 and does not pass: it has to be at least 1 and at most 11.",
        ),
        (
            {"metric": "perplexity", "atLeast": {"value": 12}, "atMost": {"value": 13}},
            False,
            "MetricOutOfBounds",
            "perplexity is 11.5 and does not pass: it has to be at least 12 and at most 13.",
        ),
        (
            {"metric": "bleu", "atLeast": {"value": 1}},
            False,
            "MetricMissing",
            "The gate names bleu of model aligned, which the evaluation does not have; measured were held_perplexity, "
            "reward_mean.",
        ),
        (
            {"metric": "perplexity", "atMost": {"baseline": "base"}},
            False,
            "MetricMissing",
            "The gate names perplexity of model base, which the evaluation does not have; measured were reward_mean.",
        ),
        (
            {"metric": "perplexity", "atMost": {"baseline": "other"}},
            False,
            "MetricMissing",
            "The gate names perplexity of model other, which the evaluation does not have; nothing was measured of it.",
        ),
    ],
)
def test_a_rule_has_this_verdict(rule: dict[str, Any], passed: bool, reason: str, message: str) -> None:
    verdict = judge([GateRule.model_validate(rule)], RESULTS)
    assert (verdict.passed, verdict.reason, verdict.message) == (passed, reason, message)


def test_every_rule_is_told_and_the_first_that_does_not_pass_gives_the_reason() -> None:
    rules = [
        {"metric": "reward_mean", "atLeast": {"value": 0.1}},
        {"metric": "bleu", "atLeast": {"value": 0.1}},
        {"metric": "perplexity", "atMost": {"value": 1}},
    ]
    verdict = judge([GateRule.model_validate(rule) for rule in rules], RESULTS)
    assert (verdict.passed, verdict.reason) == (False, "MetricMissing")
    assert verdict.message.startswith("reward_mean is 0.7 and passes: it has to be at least 0.1. The gate names bleu")
    assert verdict.message.endswith("perplexity is 11.5 and does not pass: it has to be at most 1.")


@pytest.mark.parametrize("bound", ["atLeast", "atMost"])
def test_what_is_no_number_does_not_pass(bound: str) -> None:
    broken = measured(aligned__a__b=float("nan"))
    assert not judge([GateRule.model_validate({"metric": "a_b", bound: {"value": 0}})], broken).passed


def test_a_metric_that_several_suites_measure_is_told_apart_by_its_suite() -> None:
    both = measured(aligned__small__accuracy=0.9, aligned__large__accuracy=0.1)
    for suite, passed in (("small", True), ("large", False)):
        rule = GateRule.model_validate({"metric": f"{suite}_accuracy", "atLeast": {"value": 0.5}})
        assert judge([rule], both).passed is passed
