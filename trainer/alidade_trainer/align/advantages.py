"""From rewards to advantages: what each token did better than the critic expected."""

import torch
from torch import Tensor

WHITENING_EPSILON = 1e-8


def token_rewards(scores: Tensor, divergence: Tensor, mask: Tensor, *, kl_coefficient: float) -> Tensor:
    """(answers, time) reward of each token: less the penalty everywhere, plus the score at the answer's last token.

    scores: (answers,). divergence: (answers, time) per token. mask: (answers, time), true for the answer's tokens, the
    one that ends it included (Stiennon et al. 2020, section 3.3; Huang et al. 2024, detail 12).
    """
    rewards = -kl_coefficient * divergence.float() * mask
    last = (mask.long() * torch.arange(mask.size(1), device=mask.device)).argmax(dim=1)
    rows = torch.arange(mask.size(0), device=mask.device)
    rewards[rows, last] += scores.float() * mask[rows, last]
    return rewards


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lambda_: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, (answers, time) each (Schulman et al. 2016, equation 16); 0 outside of the mask.

    delta_t = r_t + gamma V_(t+1) - V_t and A_t = delta_t + gamma lambda A_(t+1), with V = A = 0 behind the last token.
    An answer's tokens stand together in the mask. Returns are advantages + values, so that what the critic learns does
    not depend on a later whitening.
    """
    rewards, values = rewards.float() * mask, values.float() * mask
    advantages = torch.zeros_like(rewards)
    next_value = torch.zeros_like(rewards[:, 0])
    next_advantage = torch.zeros_like(rewards[:, 0])
    for place in range(rewards.size(1) - 1, -1, -1):
        inside = mask[:, place].float()
        delta = rewards[:, place] + gamma * next_value - values[:, place]
        next_advantage = (delta + gamma * lambda_ * next_advantage) * inside
        next_value = values[:, place] * inside
        advantages[:, place] = next_advantage
    return advantages, (advantages + values) * mask


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the places that the mask holds, a scalar; 0 where it holds none."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def masked_whitened(values: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Values with variance 1 over the mask's places, and mean 0 unless shift_mean is off; 0 outside of the mask.

    values, mask: of all processes together; whitened apart, each process would have a scale of its own.
    """
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean).square(), mask)
    scaled = (values - mean) * torch.rsqrt(variance + WHITENING_EPSILON)
    return (scaled if shift_mean else scaled + mean) * mask
