"""The reward suite: what a reward model, or a program, gives the answers."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from alidade_crds.contract import JobReward, JobSuite
from alidade_crds.evaluation import SUITE_METRICS
from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure
from alidade_engine.reward.functions import NEEDS_REFERENCE, Reward, program_of
from alidade_engine.reward.learned import LearnedReward
from alidade_engine.sources import Locations
from alidade_eval.asked import CHUNK, Answers, Collection, Keep, Rows, key_of
from alidade_eval.items import Item
from alidade_eval.samples import FAILURE, INDEX
from alidade_eval.suites.answering import indices_of, mean_measure, samples, texts, troubles
from alidade_eval.suites.base import Findings, SecondCollection, Suite, check_metrics, whole


class RewardScores:
    """The reward of each answer. Rows: index, score, or the failure of the answer."""

    def __init__(self, spec: JobSuite, answers: Answers, load: Callable[[], Reward]) -> None:
        source = spec.reward.to_dict() if spec.reward is not None else [spec.function, spec.pattern]
        self.key = key_of("rewards", answers.key, source, [item.references for item in answers.items])
        self.needs = answers.key
        self._answers = answers
        self._load = load
        self._reward: Reward | None = None

    @property
    def size(self) -> int:
        """Rows of each model."""
        return self._answers.size

    def prepare(self) -> None:
        """Loads the reward."""
        self._reward = self._load()

    def release(self) -> None:
        """Frees it."""
        self._reward = None

    def subjects(self, models: Sequence[str]) -> Sequence[str]:
        """Every model's answers are scored."""
        return models

    def collect(self, subject: str, indices: Sequence[int], rows: Rows, keep: Keep) -> None:
        """As `SecondCollection.collect`. Raises JobFailure (RewardInvalid) for a reward that is no number."""
        assert self._reward is not None, "prepare comes first"
        answered = {row[INDEX]: row for row in rows[self.needs][subject]}
        for index in indices:
            if FAILURE in answered[index]:
                keep({INDEX: index, FAILURE: answered[index][FAILURE]})
        good = [index for index in indices if FAILURE not in answered[index]]
        for start in range(0, len(good), CHUNK):
            chunk = good[start : start + CHUNK]
            items = [self._answers.items[index] for index in chunk]
            said = [answered[index]["text"] for index in chunk]
            references = [item.references[0] if item.references else None for item in items]
            scores = self._reward.score([item.messages for item in items], said, references)
            for index, score, answer in zip(chunk, scores.tolist(), said, strict=True):
                keep({INDEX: index, "score": _finite(score, answer)})


def _finite(score: float, answer: str) -> float:
    if not np.isfinite(score):
        raise JobFailure(
            FailureReason.REWARD_INVALID,
            f"The reward of the answer {answer[:120]!r} is {score}; a reward has to be a finite number.",
        )
    return score


def reward_loader(spec: JobSuite, locations: Locations, *, field: str) -> Callable[[], Reward]:
    """What loads the reward of a suite: now, when it is a program, else when it is called."""
    program = program_of(JobReward(name=spec.title, function=spec.function, pattern=spec.pattern))
    if program is not None:
        return lambda: program
    assert spec.reward is not None, "the schema asks for a reward"
    source = spec.reward
    assert source.uri is not None, "a reward model has an address"
    folder: Path = locations.resolve_model(source.uri, field=f"{field}.rewardModel")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    return lambda: LearnedReward.load(
        folder, dtype=dtype, device=device, digest=source.digest, field=f"{field}.rewardModel"
    )


def check_reference(spec: JobSuite, items: Sequence[Item], field: str) -> None:
    """Raises JobFailure (ConfigInvalid) when the reward compares with answers that the data does not have."""
    if spec.function in NEEDS_REFERENCE and not any(item.references for item in items):
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"{field}.function is {spec.function}, but no record of {spec.dataset} has an answer to compare with; add "
            "the answers, such as input and output.",
        )


class RewardSuite(Suite):
    """Mean reward of the answers."""

    def __init__(
        self, spec: JobSuite, items: Sequence[Item], *, seed: int, field: str, load: Callable[[], Reward]
    ) -> None:
        check_metrics(spec, SUITE_METRICS[spec.type], field)
        check_reference(spec, items, field)
        super().__init__(spec, items)
        self._answers = Answers.of(spec, items, seed)
        self._scores = RewardScores(spec, self._answers, load)

    def collections(self) -> Sequence[Collection]:
        """Answers."""
        return [self._answers]

    def second(self) -> Sequence[SecondCollection]:
        """Their rewards."""
        return [self._scores]

    def findings(self, rows: Rows, models: Sequence[str]) -> Findings:
        """As `Suite.findings`."""
        scored = whole(rows, self._scores.key, models)
        indices = indices_of(scored)
        answers = texts(whole(rows, self._answers.key, models, indices=indices))
        rewards = {model: np.array([row["score"] for row in own]) for model, own in scored.items()}
        return Findings(
            measures=[mean_measure("mean", rewards), *troubles(rows, self._answers, models)],
            samples=samples(self.items, indices, answers, {"mean": rewards}),
        )
