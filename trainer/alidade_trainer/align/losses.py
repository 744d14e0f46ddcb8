"""The losses of PPO and DPO, as sums over tokens so that micro-batches and processes weigh every token alike."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

VALUE_COEFFICIENT = 0.1
"""Weight of the critic's loss (Stiennon et al. 2020, table 5; Huang et al. 2024)."""


@dataclass(frozen=True)
class PolicyLoss:
    """Sums over the mask's tokens: the loss, and what is measured beside it."""

    loss: Tensor
    clipped: Tensor
    """Tokens for which the clipped term is the one that counts."""
    approx_kl: Tensor
    """Of the k2 estimate between the sampling policy and the present one."""
    ratio: Tensor


def policy_loss(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, clip: float) -> PolicyLoss:
    """PPO's clipped surrogate (Schulman et al. 2017, equation 7), summed; all arguments (answers, time).

    The pessimistic one of ratio x advantage and clip(ratio, 1 - clip, 1 + clip) x advantage, with the sign turned.
    """
    log_ratio = (logprobs.float() - old_logprobs.float()) * mask
    ratio = log_ratio.exp()
    plain = -advantages * ratio
    bounded = -advantages * ratio.clamp(1.0 - clip, 1.0 + clip)
    held = mask.float()
    return PolicyLoss(
        loss=(torch.maximum(plain, bounded) * held).sum(),
        clipped=((bounded > plain).float() * held).sum(),
        approx_kl=(0.5 * log_ratio.square() * held).sum(),
        ratio=(ratio * held).sum(),
    )


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip: float
) -> tuple[Tensor, Tensor]:
    """The critic's clipped loss, and the number of tokens where clipping counts, both summed over the mask.

    Half of the greater one of two squares: of the value's error, and of that of the value held within clip of the one
    at sampling time (OpenAI baselines; Huang et al. 2024, detail 16).
    """
    bounded = old_values + (values.float() - old_values).clamp(-clip, clip)
    plain_error, bounded_error = (values.float() - returns).square(), (bounded - returns).square()
    held = mask.float()
    loss = 0.5 * (torch.maximum(plain_error, bounded_error) * held).sum()
    return loss, ((bounded_error > plain_error).float() * held).sum()


def entropy(logits: Tensor) -> Tensor:
    """(...) entropy in nats of the distributions of (..., vocabulary) logits, in float32."""
    logprobs = functional.log_softmax(logits.float(), dim=-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over the mask: 1 for a perfect critic, 0 for a constant one."""
    kept = mask.bool()
    targets, errors = returns[kept].double(), (returns - values)[kept].double()
    variance = targets.var(unbiased=False)
    return float("nan") if variance == 0 else float(1.0 - errors.var(unbiased=False) / variance)


@dataclass(frozen=True)
class DpoLoss:
    """(pairs,) each."""

    loss: Tensor
    chosen_reward: Tensor
    rejected_reward: Tensor


def dpo_loss(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> DpoLoss:
    """DPO's loss of each pair (Rafailov et al. 2023, equation 7), with the implicit rewards it compares.

    All arguments (pairs,): log-probabilities of whole answers under the policy and the reference. The implicit reward
    of an answer is beta x (policy - reference).
    """
    chosen_reward = beta * (chosen.float() - ref_chosen.float())
    rejected_reward = beta * (rejected.float() - ref_rejected.float())
    return DpoLoss(-functional.logsigmoid(chosen_reward - rejected_reward), chosen_reward, rejected_reward)
