"""What stops an alignment step before it spoils the model. Pure: measures go in, a verdict comes out."""

from dataclasses import dataclass

from alidade_crds.alignmentrun import Guardrails
from alidade_crds.reasons import FailureReason


@dataclass(frozen=True)
class Measures:
    """Of the model after one iteration, on prompts that are not trained on.

    reward: mean of the reward trained on. length: mean tokens of an answer. distinct2: of sampled answers
    (alidade_trainer.align.diversity). kl: nats per answer from the start model; None where it is not known. score: of
    guardrails.overOptimization; None without.
    """

    reward: float
    length: float
    distinct2: float
    kl: float | None = None
    score: float | None = None


@dataclass(frozen=True)
class Trip:
    """Why a step stops."""

    reason: FailureReason
    message: str


@dataclass
class Watch:
    """What the guard rails remember; all of it goes into a checkpoint."""

    first: Measures | None = None
    """Of the model that the step starts from."""
    best_score: float | None = None
    reward_at_best: float = 0.0
    falling: int = 0
    """Iterations in a row in which the reward was above, and the score below, what they were at the best score."""
    sound_iteration: int = 0
    """Newest iteration at which nothing was wrong; 0 is the model that the step starts from."""

    def look(self, rails: Guardrails, measures: Measures, iteration: int) -> Trip | None:
        """Takes up the measures of one more iteration; a Trip when the step has to stop."""
        if self.first is None:
            self.first = measures
            self.best_score, self.reward_at_best = measures.score, measures.reward
            return None
        trip = (
            _too_far(rails, measures)
            or _collapsed(rails, self.first, measures)
            or self._over_optimized(rails, measures)
        )
        if trip is None and self.falling == 0:
            self.sound_iteration = iteration
        return trip

    def _over_optimized(self, rails: Guardrails, measures: Measures) -> Trip | None:
        """Gao et al. 2022: past some point the reward that is trained on rises while the one that is meant falls."""
        rule = rails.over_optimization
        if rule is None or measures.score is None:
            return None
        if self.best_score is None or measures.score >= self.best_score:
            self.best_score, self.reward_at_best, self.falling = measures.score, measures.reward, 0
            return None
        is_falling = measures.score < self.best_score - rule.tolerance and measures.reward > self.reward_at_best
        self.falling = self.falling + 1 if is_falling else 0
        if self.falling < rule.patience:
            return None
        return Trip(
            FailureReason.REWARD_OVER_OPTIMIZED,
            f"The reward rose from {self.reward_at_best:.3f} to {measures.reward:.3f}, while {rule.function} on "
            f"held-out prompts fell from {self.best_score:.3f} to {measures.score:.3f} over {self.falling} iterations "
            f"(guardrails.overOptimization allows {rule.tolerance:g}): the policy exploits the reward. Train a better "
            "reward model, raise the KL coefficient, or take fewer iterations.",
        )


def _too_far(rails: Guardrails, measures: Measures) -> Trip | None:
    if rails.kl_ceiling is None or measures.kl is None or measures.kl <= rails.kl_ceiling:
        return None
    return Trip(
        FailureReason.KL_CEILING,
        f"The policy is {measures.kl:.2f} nats per answer from the model it started from; guardrails.klCeiling is "
        f"{rails.kl_ceiling:g}. Raise the KL coefficient, lower training.learningRate, or raise the ceiling.",
    )


def _collapsed(rails: Guardrails, first: Measures, now: Measures) -> Trip | None:
    if now.length < rails.min_length_ratio * first.length:
        return Trip(
            FailureReason.LENGTH_COLLAPSED,
            f"Answers are {now.length:.1f} tokens long on average, at first {first.length:.1f}; "
            f"guardrails.minLengthRatio is {rails.min_length_ratio:g}. The reward may favour short answers; look at "
            "the samples in the report.",
        )
    if now.distinct2 < rails.min_diversity_ratio * first.distinct2:
        return Trip(
            FailureReason.DIVERSITY_COLLAPSED,
            f"Of the answers' bigrams {now.distinct2:.1%} are different ones, at first {first.distinct2:.1%}; "
            f"guardrails.minDiversityRatio is {rails.min_diversity_ratio:g}. Raise the KL coefficient or the "
            "temperature, or take fewer iterations.",
        )
    return None
