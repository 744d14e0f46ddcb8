"""The loss a reward model learns preferences with."""

from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional


def ranking_loss(chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """Pairwise ranking loss of a reward model, one value per pair: -log sigmoid(chosen - rejected - margin).

    chosen, rejected: (pairs,) scalar rewards of the preferred and the other answer.
    margin: (pairs,) or a number; how far apart the two should be (Llama 2, section 3.2.2, equation 2).
    Returns (pairs,) float32, unreduced, so that a prompt with K answers weighs as one example (InstructGPT, eq. 1).
    """
    return -functional.logsigmoid(chosen.float() - rejected.float() - margin)


def centring_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """(pairs,) float32: (chosen + rejected)², which keeps rewards around 0 (Eisenstein et al. 2023, section 2).

    The ranking loss knows differences only, so without it rewards of two models cannot be compared or added.
    """
    return (chosen.float() + rejected.float()).square()


def ranked_pairs(scores: list[float]) -> list[tuple[int, int]]:
    """Places (better, worse) of all pairs of answers to one prompt; answers with equal scores make none.

    K answers without ties give the K(K-1)/2 comparisons of InstructGPT, section 3.5.
    """
    pairs = []
    for one, other in combinations(range(len(scores)), 2):
        if scores[one] > scores[other]:
            pairs.append((one, other))
        elif scores[other] > scores[one]:
            pairs.append((other, one))
    return pairs


def pair_strength(scores: list[float], pair: tuple[int, int], strength: float | None) -> float | None:
    """How strongly the better answer of a pair is preferred; None when the data does not say.

    Of two answers it is the record's own strength. Of several ranked ones it is their distance over that of the best
    from the worst, from 0 to 1, as Llama 2's margins are (table 27).
    """
    if strength is not None or len(scores) == 2:
        return strength
    better, worse = pair
    return (scores[better] - scores[worse]) / (max(scores) - min(scores))


def prompt_losses(rewards: Tensor, pairs: Tensor, prompts: Tensor, margins: Tensor, *, center: float) -> Tensor:
    """The loss of each prompt of a batch, (prompts,) float32: the mean over its pairs (InstructGPT, equation 1).

    rewards: (answers,) of all prompts of the batch. pairs: (pairs, 2) places (better, worse) among them. prompts:
    (pairs,) which prompt a pair belongs to. margins: (pairs,). center: weight of `centring_loss`.
    """
    chosen, rejected = rewards[pairs[:, 0]], rewards[pairs[:, 1]]
    losses = ranking_loss(chosen, rejected, margins)
    if center:
        losses = losses + center * centring_loss(chosen, rejected)
    counts = torch.bincount(prompts)
    return losses.new_zeros(len(counts)).index_add(0, prompts, losses) / counts
