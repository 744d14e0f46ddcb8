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
            "The gate names bleu of model aligned, which the evaluation does not have; measured were held.perplexity, "
            "reward.mean.",
        ),
        (
            {"metric": "perplexity", "atMost": {"baseline": "base"}},
            False,
            "MetricMissing",
            "The gate names perplexity of model base, which the evaluation does not have; measured were reward.mean.",
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
    # None is read from a pod; the gate does not rely on it.
    broken = [one.model_copy(update={"value": float("nan")}) for one in measured(aligned__a__b=0.0)]
    assert not judge([GateRule.model_validate({"metric": "a_b", bound: {"value": 0}})], broken).passed


def test_a_metric_that_several_suites_measure_is_told_apart_by_its_suite() -> None:
    both = measured(aligned__small__accuracy=0.9, aligned__large__accuracy=0.1)
    for suite, passed in (("small", True), ("large", False)):
        rule = GateRule.model_validate({"metric": f"{suite}_accuracy", "atLeast": {"value": 0.5}})
        assert judge([rule], both).passed is passed


@pytest.mark.parametrize(
    ("bound", "passed", "message"),
    [
        (
            {"atLeast": {"baseline": "sft", "plus": 0}},
            True,
            "f1 is 0.7 and passes: it has to be at least 0.5 (sft 0.5) with its interval, and the difference is 0.1 to "
            "0.3.",
        ),
        (
            {"atLeast": {"baseline": "sft", "plus": 0.15}},
            False,
            "f1 is 0.7 and does not pass: it has to be at least 0.65 (sft 0.5 + 0.15) with its interval, and the "
            "difference is 0.1 to 0.3.",
        ),
        (
            {"atLeast": {"value": 0.65}},
            False,
            "f1 is 0.7 and does not pass: it has to be at least 0.65 with its interval, and that is 0.6 to 0.8.",
        ),
        (
            {"atMost": {"value": 0.8}},
            True,
            "f1 is 0.7 and passes: it has to be at most 0.8 with its interval, and that is 0.6 to 0.8.",
        ),
        (
            {"atLeast": {"baseline": "sft", "times": 1.3}},
            False,
            "f1 is 0.7 and does not pass: it has to be at least 0.65 (sft 0.5 x 1.3) with its interval, and that is "
            "0.6 to 0.8.",
        ),
    ],
)
def test_a_significant_bound_has_to_hold_the_whole_interval(bound: dict[str, Any], passed: bool, message: str) -> None:
    known = {"suite": "generation", "metric": "f1", "n": 100}
    results = [
        EvaluationResult(**known, model="sft", value=0.5, low=0.4, high=0.6),
        EvaluationResult(
            **known, model="aligned", value=0.7, low=0.6, high=0.8, difference_low=0.1, difference_high=0.3
        ),
    ]
    verdict = judge([GateRule.model_validate({"metric": "generation.f1", "significant": True} | bound)], results)
    assert (verdict.passed, verdict.message) == (passed, f"generation.{message}")


def test_a_significant_bound_does_not_pass_without_an_interval() -> None:
    rule = GateRule.model_validate({"metric": "reward.mean", "significant": True, "atLeast": {"value": 0}})
    verdict = judge([rule], RESULTS)
    assert not verdict.passed
    assert verdict.message.endswith("and there is none of so few samples.")


def test_leaks_which_belong_to_no_model_stop_a_gate() -> None:
    leaked = EvaluationResult(suite="questions", metric="leaked", model="*", value=0.1, n=100)
    rule = GateRule.model_validate({"metric": "questions.leaked", "atMost": {"value": 0}})
    assert not judge([rule], [leaked]).passed
    assert judge([rule], [leaked.model_copy(update={"value": 0.0})]).passed
