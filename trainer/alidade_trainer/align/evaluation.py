"""What a policy is worth on prompts that it is not trained on, measured after every iteration."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alidade_crds.blocks import RewardFunction
from alidade_engine.perplexity import perplexity_of
from alidade_engine.reward.functions import programmed
from alidade_trainer.align.answers import answer_batch
from alidade_trainer.align.divergence import token_divergence
from alidade_trainer.align.diversity import distinct_ngrams
from alidade_trainer.align.guardrails import Measures
from alidade_trainer.align.judging import judged
from alidade_trainer.align.policy import Policy
from alidade_trainer.align.prompts import AskedPrompt

MOST_PROMPTS = 256
"""Prompts of an evaluation: a share of one half is then known to ±0.06 (95 %), and it costs little beside sampling."""
SHOWN = 6
"""Prompts whose greedy answers the report shows."""


@dataclass(frozen=True)
class Evaluation:
    """metrics: for people and dashboards; measures: for the guard rails; answers: greedy, to the first prompts."""

    metrics: dict[str, float]
    measures: Measures
    answers: list[str]


@dataclass(frozen=True)
class Evaluator:
    """Measures a policy on always the same prompts with always the same random numbers.

    function: the score that is not trained on. are_held_out: whether the prompts are not among those trained on.
    """

    policy: Policy
    prompts: Sequence[AskedPrompt]
    are_held_out: bool
    function: RewardFunction | None
    temperature: float
    seed: int

    def measure(self) -> Evaluation:
        """Every process calls it and gets the same."""
        sampled = self.policy.sampler.draw(
            self.prompts, range(len(self.prompts)), temperature=self.temperature, samples=1, seed=self.seed
        )
        greedy = self.policy.sampler.draw(
            self.prompts, range(len(self.prompts)), temperature=0.0, samples=1, seed=self.seed
        )
        self.policy.engine.eval()
        own = slice(self.policy.peers.rank, None, self.policy.peers.count)
        answers = [answer.text for answer in sampled]
        reward: float | None = None
        parts: dict[str, float] = {}
        if not self.policy.judge.is_empty:
            judgement = judged(self.policy.judge, self.prompts[own], answers[own], self.policy.peers)
            reward = float(judgement.level.mean())
            parts = {name: float(scores.mean()) for name, scores in judgement.parts.items()}
        length = sum(len(answer.answer_ids) for answer in sampled) / len(sampled)
        distinct = distinct_ngrams([answer.answer_ids for answer in sampled])
        divergence = self._divergence([answer.answer_ids for answer in sampled])
        score = self._score([answer.text for answer in greedy])
        rewarded = "evalReward" if self.are_held_out else "promptReward"
        metrics = {
            "distinct2": distinct,
            "evalLength": length,
            "evalEosRate": sum(answer.finished for answer in sampled) / len(sampled),
        }
        perplexity = self._perplexity()
        for name, value in ((rewarded, reward), ("evalKl", divergence), ("heldOut", score), ("perplexity", perplexity)):
            if value is not None:
                metrics[name] = value
        if len(parts) > 1:
            metrics |= {f"{rewarded}:{name}": value for name, value in parts.items()}
        measures = Measures(reward or 0.0, length, distinct, divergence, score)
        return Evaluation(metrics, measures, [answer.text for answer in greedy[:SHOWN]])

    def _score(self, answers: Sequence[str]) -> float | None:
        if self.function is None:
            return None
        messages = [prompt.messages for prompt in self.prompts]
        references = [prompt.reference for prompt in self.prompts]
        return float(programmed(self.function).score(messages, list(answers), references).mean())

    def _divergence(self, answers: Sequence[list[int]]) -> float | None:
        """Nats per answer by k3, which is unbiased over answers that the policy drew, and never negative."""
        if not self.policy.has_reference:
            return None
        rows = [(prompt.prompt_ids, ids) for prompt, ids in zip(self.prompts, answers, strict=True)]
        total = 0.0
        for group in self.policy.groups(rows):
            batch = answer_batch(group.items, self.policy.pad_token_id, self.policy.peers.device)
            with torch.no_grad():
                own = self.policy.statistics(batch, temperature=self.temperature)["logprobs"]
                reference = self.policy.reference_logprobs(batch, temperature=self.temperature)
            if not group.is_filler:
                total += float((token_divergence(own, reference, "k3") * batch.answer_mask).sum())
        return self.policy.peers.sums([total])[0] / len(rows)

    def _perplexity(self) -> float | None:
        """Of the answers in the data; None when there are none, or the prompts are trained on."""
        rows = [(prompt.prompt_ids, prompt.reference_ids) for prompt in self.prompts if prompt.reference_ids]
        if not rows or not self.are_held_out:
            return None
        total = 0.0
        for group in self.policy.groups(rows):
            batch = answer_batch(group.items, self.policy.pad_token_id, self.policy.peers.device)
            with torch.no_grad():
                logprobs = self.policy.statistics(batch)["logprobs"]
            if not group.is_filler:
                total -= float((logprobs * batch.answer_mask).sum())
        tokens = sum(len(answer) for _, answer in rows)
        return perplexity_of(self.policy.peers.sums([total])[0] / tokens)
