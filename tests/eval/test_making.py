"""What can be wrong with a suite is said before a model is loaded: field, what was found, what to do."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure
from alidade_engine.sources import Locations
from alidade_eval.making import make_suites
from tests.eval.conftest import Evaluate, write_lines

PROMPTS = [{"input": "What is tin ?", "output": "a metal"}]
BARE = [{"prompt": "What is tin ?"}]
CANDIDATES = [{"input": "What is tin ?", "output": [{"score": 1, "text": "metal"}, {"score": 1, "text": "a metal"}]}]


def said(evaluate: Evaluate, suite: dict[str, Any]) -> JobFailure:
    with pytest.raises(JobFailure) as failure:
        make_suites(evaluate(suite), Locations.from_environment())
    return failure.value


@pytest.mark.parametrize(
    ("suite", "records", "reason", "message"),
    [
        (
            {"type": "generation", "metrics": ["rogue1"]},
            PROMPTS,
            FailureReason.CONFIG_INVALID,
            "spec.suites[0].metrics names rogue1, which a suite of type generation does not have. Did you mean rouge1",
        ),
        (
            {"type": "ranking", "metrics": ["ndcg"]},
            CANDIDATES,
            FailureReason.CONFIG_INVALID,
            "spec.suites[0].metrics names ndcg, which a suite of type ranking does not have. Did you mean mrr or map",
        ),
        (
            {"type": "generation"},
            BARE,
            FailureReason.DATA_MALFORMED,
            "The record cannot be measured, the first at data.jsonl, line 1: there is no answer to compare with.",
        ),
        (
            {"type": "ranking"},
            PROMPTS,
            FailureReason.DATA_MALFORMED,
            "it has no candidate answers of which some are right and some are not (output: [{score, text}]).",
        ),
        (
            {"type": "ranking"},
            CANDIDATES,
            FailureReason.DATA_MALFORMED,
            "it has no candidate answers of which some are right and some are not (output: [{score, text}]).",
        ),
        (
            {"type": "perplexity"},
            BARE,
            FailureReason.DATA_MALFORMED,
            "it has neither a text nor an answer.",
        ),
        (
            {"type": "reward", "function": "exact_match"},
            BARE,
            FailureReason.CONFIG_INVALID,
            "spec.suites[0].function is exact_match, but no record of",
        ),
        (
            {"type": "custom", "entryPoint": "no_such_module:score"},
            PROMPTS,
            FailureReason.ENTRY_POINT_FAILED,
            "spec.suites[0].entryPoint is no_such_module:score: No module named 'no_such_module'. Put the module into",
        ),
        (
            {"type": "custom", "entryPoint": "json:scores"},
            PROMPTS,
            FailureReason.ENTRY_POINT_FAILED,
            "spec.suites[0].entryPoint is json:scores: module 'json' has no attribute 'scores'.",
        ),
        (
            {"type": "custom", "entryPoint": "json:__name__"},
            PROMPTS,
            FailureReason.ENTRY_POINT_FAILED,
            "spec.suites[0].entryPoint is json:__name__, which is no function.",
        ),
        ({"type": "generation"}, [], FailureReason.DATA_EMPTY, "spec.suites[0].dataset is"),
        ({"type": "generation"}, [{"text": 3}], FailureReason.DATA_MALFORMED, "data.jsonl, line 1"),
    ],
)
def test_a_suite_says_what_it_lacks(
    evaluate: Evaluate,
    tmp_path: Path,
    suite: dict[str, Any],
    records: list[dict[str, Any]],
    reason: FailureReason,
    message: str,
) -> None:
    data = write_lines(tmp_path / "data.jsonl", records)
    failure = said(evaluate, {**suite, "dataset": f"file://{data}"})
    assert message in failure.message
    assert (failure.reason, failure.retryable) == (reason, False)


def test_a_line_that_is_no_json_is_named(evaluate: Evaluate, tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(json.dumps(PROMPTS[0]) + '\n{"input": "What\n')
    failure = said(evaluate, {"type": "generation", "dataset": f"file://{tmp_path}/data.jsonl"})
    assert failure.reason is FailureReason.DATA_MALFORMED
    assert re.search(r"spec\.suites\[0\]\.dataset is file://.*data\.jsonl, line 2", failure.message)


def test_a_dataset_that_is_not_there_is_named(evaluate: Evaluate, tmp_path: Path) -> None:
    failure = said(evaluate, {"type": "generation", "dataset": f"file://{tmp_path}/none.jsonl"})
    assert failure.reason is FailureReason.DATA_NOT_FOUND
    assert failure.message.startswith("spec.suites[0].dataset is")


def test_a_reward_model_that_is_not_there_is_named(evaluate: Evaluate, tmp_path: Path) -> None:
    failure = said(evaluate, {"type": "reward", "reward": {"uri": f"file://{tmp_path}/none"}})
    assert failure.reason is FailureReason.MODEL_NOT_FOUND
    assert failure.message.startswith("spec.suites[0].rewardModel is")


def test_only_the_first_records_are_measured_where_there_is_a_limit(evaluate: Evaluate) -> None:
    (suite,) = make_suites(evaluate({"type": "generation", "limit": 3}), Locations.from_environment())
    assert [item.index for item in suite.items] == [0, 1, 2]
