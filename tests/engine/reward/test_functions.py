"""Programmed rewards and the way several rewards become one."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from alidade_crds.blocks import RewardFunction
from alidade_crds.contract import JobReward
from alidade_engine.failures import JobFailure
from alidade_engine.reward.functions import program_of, programmed

PROMPT = [{"role": "user", "content": "What is the capital of France?"}]


def score(
    function: RewardFunction, answers: list[str], references: list[str | None], pattern: str | None = None
) -> list[float]:
    reward = programmed(function, pattern)
    found: list[float] = reward.score([PROMPT] * len(answers), answers, references).tolist()
    return found


def test_exact_match_forgives_case_space_and_outer_punctuation_only() -> None:
    answers = ["Paris", " paris. ", "Paris, France", "北京。", ""]
    assert score(RewardFunction.EXACT_MATCH, answers, ["Paris", "Paris", "Paris", "北京", None]) == [1, 1, 0, 1, 0]


def test_contains_finds_the_reference_in_the_answer() -> None:
    answers = ["It is PARIS.", "It is Rome.", "anything"]
    assert score(RewardFunction.CONTAINS, answers, ["Paris", "Paris", ""]) == [1, 0, 0]


def test_regex_searches_the_answer() -> None:
    assert score(RewardFunction.REGEX, ["a 42 b", "none"], [None, None], r"\b\d+\b") == [1, 0]


def test_length_counts_words_and_signs() -> None:
    assert score(RewardFunction.LENGTH, ["two words", "", "首都是 Paris"], [None] * 3) == [2, 0, 4]


@pytest.mark.parametrize(("pattern", "said"), [(None, "pattern is not set"), ("(", "no regular expression")])
def test_a_regex_without_a_usable_pattern_is_refused(pattern: str | None, said: str) -> None:
    with pytest.raises(JobFailure, match=said):
        programmed(RewardFunction.REGEX, pattern)


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_rewards.py").write_text(
        "def shout(prompts, answers, references):\n    return [float(a.isupper()) for a in answers]\n"
        "def short(prompts, answers, references):\n    return [1.0]\n"
        "def broken(prompts, answers, references):\n    raise KeyError('tone')\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_rewards", None)


def entry(name: str) -> JobReward:
    return JobReward(name="own", entry_point=f"own_rewards:{name}")


def test_an_entry_point_scores_whole_lists(own_module: None) -> None:
    reward = program_of(entry("shout"))
    assert reward is not None
    assert reward.score([PROMPT, PROMPT], ["YES", "no"], [None, None]).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("short", r"returned \(1,\) numbers for 2 answers"),
        ("broken", "raised KeyError: 'tone'"),
        ("missing", "rewardModels.entryPoint is own_rewards:missing"),
        ("number", "which is no function"),
    ],
)
def test_an_entry_point_that_does_not_do_is_said_in_a_sentence(own_module: None, name: str, said: str) -> None:
    with pytest.raises(JobFailure, match=said):
        program_of(entry(name)).score([PROMPT, PROMPT], ["YES", "no"], [None, None])  # type: ignore[union-attr]


def test_a_reward_model_is_no_program() -> None:
    assert program_of(JobReward(name="learned", uri="pvc://models/rm")) is None
