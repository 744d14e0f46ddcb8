"""RAFT: sample, score, rank, fine-tune (Dong et al. 2023, algorithm 1)."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from alidade_crds.alignmentrun import RaftStep
from alidade_crds.reasons import FailureReason
from alidade_trainer.align.acceptance import Sample, accepted_count, best_of_all, best_of_each, pool_with, replayed
from alidade_trainer.align.answers import answer_batch
from alidade_trainer.align.iterations import Iteration, IterationResult
from alidade_trainer.align.judging import judged, refuse_constant
from alidade_trainer.align.policy import Policy, Row
from alidade_trainer.align.prompts import AskedPrompt, drawn_prompts
from alidade_trainer.dealing import Group
from alidade_trainer.failures import JobFailure
from alidade_trainer.loop import step_seed
from alidade_trainer.progress import StepMetrics


def most_accepted(spec: RaftStep) -> int:
    """Samples that an iteration accepts when enough of them end by themselves."""
    if spec.acceptance == "bestOfK":
        return spec.prompts_per_iteration
    return accepted_count(spec.prompts_per_iteration * spec.samples_per_prompt, spec.acceptance_ratio)


@dataclass
class Raft:
    """One RAFT step of an alignment; pool: accepted samples of earlier iterations, part of a checkpoint."""

    spec: RaftStep
    policy: Policy
    prompts: Sequence[AskedPrompt]
    global_batch_size: int
    seed: int
    pool: list[Sample]

    @property
    def iterations(self) -> int:
        """In all."""
        return self.spec.iterations

    @property
    def temperature(self) -> float:
        """Of sampling."""
        return self.spec.temperature

    @property
    def steps_per_iteration(self) -> int:
        """Optimizer steps of an iteration, as planned: cut-off answers may make it fewer, replay makes it more."""
        accepted = most_accepted(self.spec)
        return max(1, math.ceil(self.spec.epochs_per_iteration * accepted / self.global_batch_size))

    def state(self) -> dict[str, Any]:
        """For a checkpoint, beside the engine's weights."""
        return {"pool": [asdict(sample) for sample in self.pool]}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up what `state` gave."""
        self.pool = [Sample(**one) for one in state["pool"]]

    def run(self, iteration: Iteration) -> IterationResult:
        """One iteration. Raises JobFailure when nothing can be learned from the samples."""
        iteration.enter("sampling")
        samples = self._samples(iteration)
        accepted = self._accepted(samples)
        earlier = replayed(self.pool, accepted) if self.spec.replay_previous_iterations else []
        learned = [*accepted, *earlier]
        self.pool = pool_with(self.pool, accepted, most=self.spec.prompts_per_iteration)
        iteration.enter("training")
        losses = self._fine_tune(learned, iteration)
        finished = sum(sample.finished for sample in samples)
        metrics = {
            "reward": _mean([sample.score for sample in samples]),
            "acceptance": len(accepted) / len(samples),
            "acceptedReward": _mean([sample.score for sample in accepted]),
            "replayed": float(len(earlier)),
            "responseLength": _mean([float(len(sample.answer_ids)) for sample in samples]),
            "eosRate": finished / len(samples),
            "loss": _mean(losses),
        }
        if self.spec.kl_coefficient:
            metrics["kl"] = _mean([sample.divergence for sample in samples])
        return IterationResult(metrics)

    def _samples(self, iteration: Iteration) -> list[Sample]:
        """Samples of this iteration's prompts, scored, the same list on every process."""
        places = drawn_prompts(len(self.prompts), self.spec.prompts_per_iteration, iteration.number, self.seed)
        asked = [self.prompts[place] for place in places]
        drawn = self.policy.sampler.draw(
            asked,
            range(len(asked)),
            temperature=self.spec.temperature,
            samples=self.spec.samples_per_prompt,
            seed=iteration.seed(),
            name=f"{iteration.step_name}-{iteration.number}",
        )
        iteration.enter("scoring")
        peers = self.policy.peers
        share = math.ceil(len(drawn) / peers.count)
        mine = drawn[peers.rank * share : (peers.rank + 1) * share]
        judgement = judged(self.policy.judge, [asked[one.place] for one in mine], [one.text for one in mine], peers)
        scores = judgement.total
        if iteration.is_first_of_job:
            refuse_constant(scores, [asked[one.place] for one in drawn], [one.text for one in drawn])
        rows = [(asked[one.place].prompt_ids, one.answer_ids) for one in drawn]
        coefficient = self.spec.kl_coefficient
        divergences = self._divergences(rows) if coefficient else torch.zeros(len(rows))
        return [
            Sample(
                prompt=places[one.place],
                prompt_ids=asked[one.place].prompt_ids,
                answer_ids=one.answer_ids,
                text=one.text,
                finished=one.finished,
                reward=float(score - coefficient * divergence),
                score=float(level),
                divergence=float(divergence),
            )
            for one, score, level, divergence in zip(drawn, scores, judgement.level, divergences, strict=True)
        ]

    def _divergences(self, rows: Sequence[Row]) -> Tensor:
        """(rows,) nats of each answer between policy and start model: log of the ratio of their probabilities."""
        mine: dict[int, float] = {}
        self.policy.engine.eval()
        for group in self.policy.groups(rows):
            batch = answer_batch(group.items, self.policy.pad_token_id, self.policy.peers.device)
            with torch.no_grad():
                own = self.policy.statistics(batch, temperature=self.spec.temperature)["logprobs"]
            reference = self.policy.reference_logprobs(batch, temperature=self.spec.temperature)
            sums = ((own - reference) * batch.answer_mask).sum(-1).tolist()
            mine |= {} if group.is_filler else dict(zip(group.places, sums, strict=True))
        together = {place: value for part in self.policy.peers.gather(mine) for place, value in part.items()}
        return torch.tensor([together[place] for place in range(len(rows))])

    def _accepted(self, samples: Sequence[Sample]) -> list[Sample]:
        if self.spec.acceptance == "bestOfK":
            accepted = best_of_each(samples)
        else:
            accepted = best_of_all(samples, self.spec.acceptance_ratio)
        if not accepted:
            raise JobFailure(
                FailureReason.CONFIG_INVALID,
                f"None of {len(samples)} samples ended by itself, so there is nothing to learn from. Raise "
                "generation.maxNewTokens, or start from a model that was fine-tuned to end its answers.",
            )
        if len(accepted) < self.policy.peers.count:
            raise JobFailure(
                FailureReason.CONFIG_INVALID,
                f"{len(accepted)} of {len(samples)} samples are accepted, fewer than the {self.policy.peers.count} "
                "training processes. Raise raft.acceptanceRatio, promptsPerIteration or samplesPerPrompt.",
            )
        return accepted

    def _fine_tune(self, learned: Sequence[Sample], iteration: Iteration) -> list[float]:
        """Cross-entropy of the accepted answers, their end included, over epochsPerIteration passes."""
        rows: list[Row] = [(sample.prompt_ids, sample.answer_ids) for sample in learned]
        steps = max(1, math.ceil(self.spec.epochs_per_iteration * len(rows) / self.global_batch_size))
        losses = []
        for number in range(steps):
            started = time.monotonic()
            places = drawn_prompts(len(rows), min(self.global_batch_size, len(rows)), number, iteration.seed(1))
            chosen = [rows[place] for place in places]
            tokens = sum(len(answer) for _, answer in chosen)
            torch.manual_seed(step_seed(self.seed, iteration.optimizer_steps, self.policy.peers.rank))
            self.policy.engine.train()
            loss, grad_norm = self.policy.update(
                self.policy.groups(chosen),
                [self._summed_loss],
                divisor=tokens,
                learning_rate=iteration.learning_rate,
                step=iteration.optimizer_steps + 1,
            )
            losses.append(loss)
            iteration.record(
                StepMetrics(
                    step=iteration.optimizer_steps + 1,
                    epoch=iteration.number + (number + 1) / steps,
                    loss=loss,
                    learning_rate=iteration.learning_rate,
                    grad_norm=grad_norm,
                    tokens=sum(len(prompt) + len(answer) for prompt, answer in chosen),
                    seconds=time.monotonic() - started,
                )
            )
        return losses

    def _summed_loss(self, group: Group[Row]) -> Tensor:
        batch = answer_batch(group.items, self.policy.pad_token_id, self.policy.peers.device)
        return -(self.policy.statistics(batch)["logprobs"] * batch.answer_mask).sum()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
