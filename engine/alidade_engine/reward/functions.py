"""Rewards that a program gives. All rewards, learned or programmed, are called alike (`Reward`)."""

import importlib
import inspect
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from alidade_crds.blocks import RewardFunction
from alidade_crds.contract import JobReward
from alidade_crds.reasons import FailureReason
from alidade_engine.data.formats import Messages
from alidade_engine.failures import JobFailure

_UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"  # kana, ideographs, hangul
_READ_UNIT = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")

Reference = str | None
"""The answer that a prompt has in the data; None where it has none."""


class Reward(Protocol):
    """Gives each answer a number; more is better."""

    def score(self, prompts: Sequence[Messages], answers: Sequence[str], references: Sequence[Reference]) -> Tensor:
        """(answers,) float32, in order; prompts and references are those of the answers, of the same number."""
        ...


class ProgrammedReward:
    """A function of one prompt, answer and reference, applied to each."""

    def __init__(self, function: Callable[[Messages, str, Reference], float]) -> None:
        self._function = function

    def score(self, prompts: Sequence[Messages], answers: Sequence[str], references: Sequence[Reference]) -> Tensor:
        """As `Reward`."""
        return torch.tensor(
            [self._function(*row) for row in zip(prompts, answers, references, strict=True)], dtype=torch.float32
        )


class EntryPointReward:
    """A function of the image, `function(prompts, answers, references) -> sequence of numbers`."""

    def __init__(self, entry_point: str) -> None:
        """Raises JobFailure (ConfigInvalid) when there is no such function."""
        self._name = entry_point
        self._function = _loaded(entry_point)

    def score(self, prompts: Sequence[Messages], answers: Sequence[str], references: Sequence[Reference]) -> Tensor:
        """As `Reward`. Raises JobFailure (RewardInvalid) when the function fails or answers no number for each."""
        try:
            values = self._function(list(prompts), list(answers), list(references))
            scores = torch.as_tensor(values, dtype=torch.float32)
        except Exception as error:  # the user's own code may raise anything
            raise JobFailure(
                FailureReason.REWARD_INVALID,
                f"The reward {self._name} raised {type(error).__name__}: {error}. It is called with lists of prompts "
                "(each a list of turns), answers and references, and returns one number for each answer.",
            ) from error
        if scores.shape != (len(answers),):
            raise JobFailure(
                FailureReason.REWARD_INVALID,
                f"The reward {self._name} returned {tuple(scores.shape)} numbers for {len(answers)} answers; it has to "
                "return one for each.",
            )
        return scores


def _loaded(entry_point: str) -> Callable[..., Any]:
    module_name, _, path = entry_point.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"rewardModels.entryPoint is {entry_point}: {error}. Put the module into the trainer's image, and name it "
            "as module:function.",
        ) from error
    if not callable(found):
        raise JobFailure(
            FailureReason.CONFIG_INVALID, f"rewardModels.entryPoint is {entry_point}, which is no function."
        )
    if inspect.isclass(found):
        found = found()
    loaded: Callable[..., Any] = found
    return loaded


def plain(text: str) -> str:
    """A text as answers are compared: compatibility forms and case folded, white space and outer punctuation left out.

    So `Paris.` is `paris`, and full-width signs are the usual ones.
    """
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.strip(" .,;:!?。、，；：！？\"'")


def exact_match(_prompt: Messages, answer: str, reference: Reference) -> float:
    """1 when answer and reference are the same as `plain` text, else 0."""
    return float(reference is not None and plain(answer) == plain(reference))


def contains(_prompt: Messages, answer: str, reference: Reference) -> float:
    """1 when the answer has the reference in it, both as `plain` text, else 0; an empty reference is in nothing."""
    wanted = plain(reference or "")
    return float(bool(wanted) and wanted in plain(answer))


def answer_length(_prompt: Messages, answer: str, _reference: Reference) -> float:
    """Words of the answer, and signs of scripts written without spaces: its length in what a reader counts."""
    return float(len(re.findall(_READ_UNIT, answer)))


def regex(pattern: str) -> Callable[[Messages, str, Reference], float]:
    """A reward of 1 where the pattern is found in the answer, else 0. Raises JobFailure for no regular expression."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise JobFailure(
            FailureReason.CONFIG_INVALID, f"rewardModels.pattern is {pattern!r}, no regular expression: {error}."
        ) from error
    return lambda _prompt, answer, _reference: float(compiled.search(answer) is not None)


NEEDS_REFERENCE = (RewardFunction.EXACT_MATCH, RewardFunction.CONTAINS)
"""Functions that compare with the answer in the data."""


def programmed(function: RewardFunction, pattern: str | None = None) -> ProgrammedReward:
    """The reward of that name. Raises JobFailure (ConfigInvalid) when regex has no pattern, or one that is none."""
    match function:
        case RewardFunction.EXACT_MATCH:
            return ProgrammedReward(exact_match)
        case RewardFunction.CONTAINS:
            return ProgrammedReward(contains)
        case RewardFunction.LENGTH:
            return ProgrammedReward(answer_length)
        case RewardFunction.REGEX:
            if pattern is None:
                raise JobFailure(
                    FailureReason.CONFIG_INVALID, "rewardModels.function is regex, but pattern is not set; set it."
                )
            return ProgrammedReward(regex(pattern))


def program_of(reward: JobReward) -> Reward | None:
    """The programmed reward that a job document names; None for a reward model."""
    if reward.function is not None:
        return programmed(reward.function, reward.pattern)
    if reward.entry_point is not None:
        return EntryPointReward(reward.entry_point)
    return None
