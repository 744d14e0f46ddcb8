"""What answers are worth: every reward of a job, checked and made one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from alidade_crds.contract import JobAlignment, JobDocument
from alidade_crds.reasons import FailureReason
from alidade_engine.reward.functions import NEEDS_REFERENCE, Reward, program_of
from alidade_engine.reward.learned import LearnedReward
from alidade_engine.sources import Locations
from alidade_trainer.align.prompts import AskedPrompt
from alidade_trainer.failures import JobFailure
from alidade_trainer.peers import Peers
from alidade_trainer.precision import training_format
from alidade_trainer.reward.combination import gate, gated, weighted_sum


@dataclass(frozen=True)
class Judgement:
    """total: (answers,) the rewards as one. parts: (answers,) each reward by its name.

    level: (answers,) the rewards as one, comparable between batches: the total, but of gated rewards the score before
    it is whitened, since the mean of what is whitened is always 0.
    """

    total: Tensor
    level: Tensor
    parts: dict[str, Tensor]


class Judge:
    """All rewards of an alignment."""

    def __init__(
        self, rewards: dict[str, Reward], alignment: JobAlignment, folders: Mapping[str, Path] | None = None
    ) -> None:
        """folders: those of learned rewards, by name."""
        self._rewards = rewards
        self.folders = dict(folders or {})
        self._weights = [reward.weight for reward in alignment.rewards]
        self._is_gated = alignment.combine == "gated"

    @classmethod
    def load(cls, job: JobDocument, locations: Locations, device: torch.device) -> "Judge":
        """The rewards that a job names. Raises JobFailure for one that cannot be used."""
        assert job.alignment is not None
        dtype = training_format(job.training)
        rewards: dict[str, Reward] = {}
        folders: dict[str, Path] = {}
        for number, wanted in enumerate(job.alignment.rewards):
            field = f"rewardModels[{number}]"
            program = program_of(wanted)
            if program is None and wanted.uri is None:
                raise JobFailure(FailureReason.CONFIG_INVALID, f"{field} names no model, function or entryPoint.")
            if program is None:
                assert wanted.uri is not None
                folder = locations.resolve_model(wanted.uri, field=field)
                folders[wanted.name] = folder
                program = LearnedReward.load(folder, dtype=dtype, device=device, digest=wanted.digest, field=field)
            if wanted.name in rewards:
                raise JobFailure(FailureReason.CONFIG_INVALID, f"{field}.name is {wanted.name}, which is there twice.")
            rewards[wanted.name] = program
        return cls(rewards, job.alignment, folders)

    @property
    def is_empty(self) -> bool:
        """Whether there is no reward, as in a job of DPO alone."""
        return not self._rewards

    def judge_answers(self, prompts: Sequence[AskedPrompt], answers: Sequence[str]) -> dict[str, Tensor]:
        """Each reward's (answers,) scores by name. Raises JobFailure (RewardInvalid) for one that is no number."""
        messages = [prompt.messages for prompt in prompts]
        references = [prompt.reference for prompt in prompts]
        parts = {}
        for name, reward in self._rewards.items():
            scores = reward.score(messages, answers, references)
            wrong = (~scores.isfinite()).nonzero().flatten().tolist()
            if wrong:
                raise JobFailure(
                    FailureReason.REWARD_INVALID,
                    f"The reward {name} gives {float(scores[wrong[0]])} to the answer {_cut(answers[wrong[0]])} to "
                    f"{_cut(messages[wrong[0]][-1]['content'])}; a reward has to be a finite number.",
                )
            parts[name] = scores
        return parts

    def combined(self, parts: dict[str, Tensor], tagged: Tensor) -> Tensor:
        """The (answers,) rewards as one; gated ones are whitened over the answers, so those are of a whole batch.

        tagged: (answers,) bool, whether the prompt may elicit unsafe answers.
        """
        scores = list(parts.values())
        if self._is_gated:
            return gated(scores[0], scores[1], tagged)
        return weighted_sum(scores, self._weights)

    def level(self, parts: dict[str, Tensor], tagged: Tensor) -> Tensor:
        """As `combined`, but comparable between batches."""
        scores = list(parts.values())
        if self._is_gated:
            return gate(scores[0], scores[1], tagged)
        return weighted_sum(scores, self._weights)


def refuse_constant(scores: Tensor, prompts: Sequence[AskedPrompt], answers: Sequence[str]) -> None:
    """Raises JobFailure (RewardInvalid) when the first samples of a job all have one reward."""
    if len(scores) > 1 and bool((scores == scores[0]).all()):
        raise JobFailure(
            FailureReason.REWARD_INVALID,
            f"The reward is {float(scores[0]):g} for all {len(scores)} samples of the first iteration, such as "
            f"{_cut(answers[0])} as answer to {_cut(prompts[0].messages[-1]['content'])} (in the data: "
            f"{_cut(prompts[0].reference or '')}), so there is nothing to learn. Use a reward that tells answers "
            "apart, or start from a model that sometimes answers well.",
        )


def _cut(text: str) -> str:
    return repr(text if len(text) <= 120 else text[:117] + "...")


def check_rewards(job: JobDocument, prompts: Sequence[AskedPrompt], held_out: Sequence[AskedPrompt]) -> None:
    """Raises JobFailure (ConfigInvalid) when a reward or score compares with answers that the data does not have."""
    assert job.alignment is not None
    rule = job.alignment.guardrails.over_optimization
    if rule is not None and rule.function in NEEDS_REFERENCE and not any(prompt.reference for prompt in held_out):
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"guardrails.overOptimization.function is {rule.function}, but no held-out prompt has an answer to compare "
            "with; add the answers to the records of prompts.validation.",
        )
    for number, reward in enumerate(job.alignment.rewards):
        if reward.function in NEEDS_REFERENCE and not any(prompt.reference for prompt in prompts):
            raise JobFailure(
                FailureReason.CONFIG_INVALID,
                f"rewardModels[{number}].function is {reward.function}, but no prompt has an answer to compare with; "
                "add the answers to the prompts' records, such as input and output.",
            )


def judged(judge: Judge, prompts: Sequence[AskedPrompt], answers: Sequence[str], peers: Peers) -> Judgement:
    """The rewards of all processes' answers, in order of rank, on every process.

    prompts, answers: this process's own.
    """
    mine = peers.agree(lambda: judge.judge_answers(prompts, answers))
    parts = peers.gather({name: scores.tolist() for name, scores in mine.items()})
    risky = [is_risky for part in peers.gather([prompt.is_risky for prompt in prompts]) for is_risky in part]
    tagged = torch.tensor(risky)
    together = {name: torch.tensor([value for part in parts for value in part[name]]) for name in parts[0]}
    return Judgement(judge.combined(together, tagged), judge.level(together, tagged), together)
