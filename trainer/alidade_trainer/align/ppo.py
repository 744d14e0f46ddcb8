"""PPO: sample, score, estimate advantages, improve within a clip (Schulman et al. 2017; Huang et al. 2024)."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alidade_crds.alignmentrun import PpoStep
from alidade_trainer.align.advantages import generalized_advantages, masked_mean, masked_whitened, token_rewards
from alidade_trainer.align.answers import AnswerBatch, answer_batch
from alidade_trainer.align.divergence import KlCoefficient, token_divergence
from alidade_trainer.align.iterations import Iteration, IterationResult
from alidade_trainer.align.judging import judged, refuse_constant
from alidade_trainer.align.losses import VALUE_COEFFICIENT, explained_variance, policy_loss, value_loss
from alidade_trainer.align.policy import Policy, Row
from alidade_trainer.align.prompts import AskedPrompt, drawn_prompts
from alidade_trainer.align.sampling import DrawnAnswer
from alidade_trainer.dealing import Group
from alidade_trainer.progress import StepMetrics


@dataclass(frozen=True)
class Rollout:
    """The answers of one iteration, all processes' together and the same on each, so that whatever is averaged or
    whitened is so over all of them.

    rows: prompts with answers. Tensors are (answers, longest answer) on the CPU: what the policy that drew them, the
    start model and the critic said of each token. finished, scores, and levels, which are scores that compare between
    iterations, are (answers,).
    """

    rows: list[Row]
    finished: Tensor
    scores: Tensor
    levels: Tensor
    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    entropy: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Targets:
    """(answers, longest answer) each: what policy and critic learn from a rollout."""

    advantages: Tensor
    returns: Tensor


@dataclass
class Ppo:
    """One PPO step of an alignment; coefficient: of the divergence, part of a checkpoint."""

    spec: PpoStep
    policy: Policy
    prompts: Sequence[AskedPrompt]
    seed: int
    coefficient: KlCoefficient

    @property
    def iterations(self) -> int:
        """In all."""
        return self.spec.iterations

    @property
    def steps_per_iteration(self) -> int:
        """Optimizer steps of an iteration."""
        return self.spec.epochs * (self.spec.rollout_batch_size // self.spec.mini_batch_size)

    def state(self) -> dict[str, Any]:
        """For a checkpoint, beside the engine's weights."""
        return {"kl_coefficient": self.coefficient.value}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up what `state` gave."""
        self.coefficient.value = state["kl_coefficient"]

    def run(self, iteration: Iteration) -> IterationResult:
        """One iteration. Raises JobFailure for rewards that cannot be learned from."""
        iteration.enter("sampling")
        asked, drawn = self._drawn(iteration)
        iteration.enter("scoring")
        rollout = self._rollout(asked, drawn, iteration)
        divergence = token_divergence(rollout.logprobs, rollout.ref_logprobs, self.spec.kl.estimator)
        # The metric and the controller take k1, which is unbiased, whatever estimator the reward is charged by.
        nats = ((rollout.logprobs - rollout.ref_logprobs) * rollout.mask).sum(-1)
        rewards = self._token_rewards(rollout, divergence)
        targets = self._targets(rollout, rewards)
        iteration.enter("training")
        learned = self._improve(rollout, targets, iteration)
        mean_kl = float(nats.mean())
        metrics = {
            "reward": float(rollout.levels.mean()),
            "kl": mean_kl,
            "klCoefficient": self.coefficient.value,
            "penalisedReward": float((rewards * rollout.mask).sum(-1).mean()),
            "responseLength": float(rollout.mask.sum(-1).float().mean()),
            "eosRate": float(rollout.finished.float().mean()),
            "entropy": float(masked_mean(rollout.entropy, rollout.mask)),
            "valueMean": float(masked_mean(rollout.values, rollout.mask)),
            "explainedVariance": explained_variance(rollout.values, targets.returns, rollout.mask),
            **learned,
        }
        self.coefficient.update(mean_kl, len(rollout.rows))
        kept = {name: value for name, value in metrics.items() if math.isfinite(value)}
        return IterationResult(kept, self._stop(mean_kl))

    def _stop(self, mean_kl: float) -> str | None:
        limit = self.spec.stop_at_kl
        if limit is None or mean_kl <= limit:
            return None
        return f"the policy is {mean_kl:.2f} nats per answer from its start, ppo.stopAtKl is {limit:g}."

    def _drawn(self, iteration: Iteration) -> tuple[list[AskedPrompt], list[DrawnAnswer]]:
        places = drawn_prompts(len(self.prompts), self.spec.rollout_batch_size, iteration.number, self.seed)
        asked = [self.prompts[place] for place in places]
        drawn = self.policy.sampler.draw(
            asked,
            range(len(asked)),
            temperature=self.spec.temperature,
            samples=1,
            seed=iteration.seed(),
            name=f"{iteration.step_name}-{iteration.number}",
        )
        return asked, drawn

    def _rollout(self, asked: Sequence[AskedPrompt], drawn: Sequence[DrawnAnswer], iteration: Iteration) -> Rollout:
        peers = self.policy.peers
        share = math.ceil(len(drawn) / peers.count)
        mine = slice(peers.rank * share, (peers.rank + 1) * share)
        judgement = judged(self.policy.judge, asked[mine], [one.text for one in drawn[mine]], peers)
        scores = judgement.total
        if iteration.is_first_of_job:
            refuse_constant(scores, asked, [one.text for one in drawn])
        rows: list[Row] = [(prompt.prompt_ids, one.answer_ids) for prompt, one in zip(asked, drawn, strict=True)]
        width = max(1, max(len(answer) for _, answer in rows))
        found = self._statistics(rows, width)
        mask = torch.zeros((len(rows), width), dtype=torch.bool)
        for place, (_, answer) in enumerate(rows):
            mask[place, : len(answer)] = True
        return Rollout(rows, torch.tensor([one.finished for one in drawn]), scores, judgement.level, *found, mask)

    def _statistics(self, rows: Sequence[Row], width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Old log-probabilities, the reference's, values and entropy of all answers, each (answers, width).

        They are computed anew and not taken from the sampler, by the passes that training repeats: so the ratio is 1
        before the first update, whatever the sampler's kernels round.
        """
        self.policy.engine.eval()
        temperature = self.spec.temperature
        mine: dict[int, list[Any]] = {}
        for group in self.policy.groups(rows):
            batch = answer_batch(group.items, self.policy.pad_token_id, self.policy.peers.device)
            with torch.no_grad():
                own = self.policy.statistics(batch, temperature=temperature, with_entropy=True, with_values=True)
            reference = self.policy.reference_logprobs(batch, temperature=temperature)
            parts = (own["logprobs"], reference, own["values"], own["entropy"])
            together = torch.stack(parts, 1).cpu().numpy()  # (rows, 4, answer width)
            if not group.is_filler:
                mine |= {place: together[row] for row, place in enumerate(group.places)}
        found = {place: values for part in self.policy.peers.gather(mine) for place, values in part.items()}
        whole = np.zeros((4, len(rows), width), dtype=np.float32)
        for place, (_, answer) in enumerate(rows):
            whole[:, place, : len(answer)] = found[place][:, : len(answer)]
        logprobs, reference, values, entropy = torch.from_numpy(whole)
        return logprobs, reference, values, entropy

    def _token_rewards(self, rollout: Rollout, divergence: Tensor) -> Tensor:
        scores = rollout.scores - self.spec.missing_eos_penalty * (~rollout.finished).float()
        rewards = token_rewards(scores, divergence, rollout.mask, kl_coefficient=self.coefficient.value)
        if self.spec.whiten_rewards:
            # Without shifting the mean: its sign says whether an answer is worth going on with.
            rewards = masked_whitened(rewards, rollout.mask, shift_mean=False)
        return rewards

    def _targets(self, rollout: Rollout, rewards: Tensor) -> Targets:
        advantages, returns = generalized_advantages(
            rewards, rollout.values, rollout.mask, gamma=self.spec.gamma, lambda_=self.spec.lambda_
        )
        if self.spec.whiten_advantages:
            advantages = masked_whitened(advantages, rollout.mask)
        return Targets(advantages, returns)

    def _improve(self, rollout: Rollout, targets: Targets, iteration: Iteration) -> dict[str, float]:
        """epochs passes of mini-batches over the rollout. Returns the means over all of them, and of the first."""
        sums: list[dict[str, float]] = []
        for epoch in range(self.spec.epochs):
            order = np.random.default_rng(iteration.seed(10 + epoch)).permutation(len(rollout.rows))
            for first in range(0, len(order), self.spec.mini_batch_size):
                places = [int(place) for place in order[first : first + self.spec.mini_batch_size]]
                sums.append(self._step(rollout, targets, places, iteration))
        first_epoch = sums[: len(sums) // self.spec.epochs]
        means = {name: sum(one[name] for one in sums) / len(sums) for name in sums[0]}
        return means | {"firstRatio": sums[0]["ratio"], "firstEpochKl": _mean(first_epoch, "approxKl")}

    def _step(self, rollout: Rollout, targets: Targets, places: list[int], iteration: Iteration) -> dict[str, float]:
        started = time.monotonic()
        rows = [rollout.rows[place] for place in places]
        tokens = int(rollout.mask[places].sum())
        measured = dict.fromkeys(self._measured, 0.0)
        self.policy.engine.train()
        wanted = [self._policy_loss, self._value_loss] if self.policy.trains_apart else [self._joint_loss]
        losses = [partial(self._of_places, one, rollout, targets, places, measured) for one in wanted]
        loss, grad_norm = self.policy.update(
            self.policy.groups(rows),
            losses,
            divisor=tokens,
            learning_rate=iteration.learning_rate,
            step=iteration.optimizer_steps + 1,
        )
        summed = self.policy.peers.sums(list(measured.values()))
        done = iteration.optimizer_steps % self.steps_per_iteration + 1
        iteration.record(
            StepMetrics(
                step=iteration.optimizer_steps + 1,
                epoch=iteration.number + min(1.0, done / self.steps_per_iteration),
                loss=loss,
                learning_rate=iteration.learning_rate,
                grad_norm=grad_norm,
                tokens=sum(len(prompt) + len(answer) for prompt, answer in rows),
                seconds=time.monotonic() - started,
            )
        )
        return {name: value / tokens for name, value in zip(measured, summed, strict=True)}

    @property
    def _measured(self) -> list[str]:
        """What a step's losses measure beside themselves, as sums over tokens."""
        names = ["policyLoss", "valueLoss", "clipFraction", "valueClipFraction", "approxKl", "ratio"]
        return [*names, "trainEntropy"] if self.spec.entropy_coefficient else names

    def _of_places(
        self,
        loss: "Callable[[_Learned], tuple[Tensor, dict[str, Tensor]]]",
        rollout: Rollout,
        targets: Targets,
        places: list[int],
        measured: dict[str, float],
        group: Group[Any],
    ) -> Tensor:
        """A loss of a group as a sum over its tokens; adds what is measured beside it to `measured`."""
        batch = answer_batch(group.items, self.policy.pad_token_id, self.policy.peers.device)
        found, beside = loss(_Learned(rollout, targets, [places[one] for one in group.places], batch))
        if not group.is_filler:
            for name, value in beside.items():
                measured[name] += float(value.detach())
        return found

    def _policy_loss(self, learned: "_Learned") -> tuple[Tensor, dict[str, Tensor]]:
        return self._surrogate(learned, self._statistics_of(learned, with_values=False))

    def _value_loss(self, learned: "_Learned") -> tuple[Tensor, dict[str, Tensor]]:
        found = self.policy.statistics(learned.batch, with_logprobs=False, with_values=True)
        return self._critic(learned, found)

    def _joint_loss(self, learned: "_Learned") -> tuple[Tensor, dict[str, Tensor]]:
        found = self._statistics_of(learned, with_values=True)
        (surrogate, beside), (critic, more) = self._surrogate(learned, found), self._critic(learned, found)
        return surrogate + critic, beside | more

    def _statistics_of(self, learned: "_Learned", *, with_values: bool) -> dict[str, Tensor]:
        return self.policy.statistics(
            learned.batch,
            temperature=self.spec.temperature,
            with_entropy=self.spec.entropy_coefficient > 0,  # its softmax costs as much as the loss's
            with_values=with_values,
        )

    def _surrogate(self, learned: "_Learned", found: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        old, advantages = learned.of(learned.rollout.logprobs), learned.of(learned.targets.advantages)
        mask = learned.batch.answer_mask
        one = policy_loss(found["logprobs"], old, advantages, mask, clip=self.spec.clip)
        beside = {
            "policyLoss": one.loss,
            "clipFraction": one.clipped,
            "approxKl": one.approx_kl,
            "ratio": one.ratio,
        }
        if "entropy" not in found:
            return one.loss, beside
        bonus = (found["entropy"] * mask).sum()
        return one.loss - self.spec.entropy_coefficient * bonus, {**beside, "trainEntropy": bonus}

    def _critic(self, learned: "_Learned", found: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        old, returns = learned.of(learned.rollout.values), learned.of(learned.targets.returns)
        mask = learned.batch.answer_mask
        loss, clipped = value_loss(found["values"], old, returns, mask, clip=self.spec.value_clip)
        return VALUE_COEFFICIENT * loss, {"valueLoss": loss, "valueClipFraction": clipped}


@dataclass(frozen=True)
class _Learned:
    """Answers of a rollout, by their places there, as one batch."""

    rollout: Rollout
    targets: Targets
    places: list[int]
    batch: AnswerBatch

    def of(self, values: Tensor) -> Tensor:
        """(rows, answer width) of (answers of the rollout, longest answer)."""
        return values[self.places, : self.batch.answer_width].to(self.batch.input_ids.device)


def _mean(rows: Sequence[dict[str, float]], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)
