"""How far a policy has gone from its reference, per token, and the coefficient that holds it back."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Estimator = Literal["k1", "k2", "k3"]
ADAPTATION_BOUND = 0.2
"""Most that one update's relative error may count (Ziegler et al. 2019, section 2.2)."""
ADAPTATION_HORIZON = 10_000
"""Answers over which the coefficient follows a constant error by that bound (Ziegler et al. 2019, 1/K_beta)."""


def token_divergence(logprobs: Tensor, ref_logprobs: Tensor, estimator: Estimator = "k1") -> Tensor:
    """Estimate of KL(policy | reference) at each sampled token, in nats (Schulman 2020, "Approximating KL divergence").

    logprobs, ref_logprobs: (...) of the tokens the policy drew. k1 = log ratio, unbiased; k2 = half its square, biased
    but of low variance; k3 = ratio' - 1 + log ratio with ratio' = reference / policy, unbiased and never negative.
    """
    log_ratio = logprobs.float() - ref_logprobs.float()
    match estimator:
        case "k1":
            return log_ratio
        case "k2":
            return 0.5 * log_ratio.square()
        case "k3":
            return torch.expm1(-log_ratio) + log_ratio


@dataclass
class KlCoefficient:
    """The weight of the divergence in the reward: fixed, or following a target (Ziegler et al. 2019, section 2.2)."""

    value: float
    target: float | None = None
    """Divergence in nats per answer that an adaptive weight aims at; None keeps the weight."""
    horizon: int = ADAPTATION_HORIZON

    def update(self, divergence: float, answers: int) -> None:
        """Takes up the mean divergence per answer of a batch of so many answers."""
        if self.target is None:
            return
        error = min(max(divergence / self.target - 1.0, -ADAPTATION_BOUND), ADAPTATION_BOUND)
        self.value *= 1.0 + error * answers / self.horizon
