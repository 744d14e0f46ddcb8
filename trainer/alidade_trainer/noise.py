"""The gradient noise scale: about how many sequences a batch can have before more of them teach little more.

McCandlish et al. 2018, "An Empirical Model of Large-Batch Training": the simple noise scale of equation 2.9, estimated
from gradients of two batch sizes as in appendix A.1. The small batches are the passes that a step consists of anyway.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

WINDOW = 50
"""Steps whose estimates are averaged: one alone is mostly noise, and the scale grows slowly while loss falls."""


class PassNorms:
    """The norm of what each pass adds to this process's gradient, taken while it is made."""

    def __init__(self, module: nn.Module) -> None:
        self._norms: list[Tensor] = []
        for weight in module.parameters():
            if weight.requires_grad:
                weight.register_hook(self._see)  # type: ignore[no-untyped-call]

    def _see(self, gradient: Tensor) -> None:
        self._norms.append(torch.linalg.vector_norm(gradient, dtype=torch.float32))

    def squared(self) -> Tensor:
        """Squared norm of the gradient of the pass that has just ended, a scalar."""
        total = torch.stack(self._norms).square().sum()
        self._norms.clear()
        return total


def noise_estimates(
    *, weighted_norms: float, passes: int, learned: float, grad_norm: float, global_batch_size: int
) -> tuple[float, float] | None:
    """Unbiased estimates of tr(Σ), of the gradient of a sequence, and |G|², of the true gradient; None for one pass.

    weighted_norms: squared norms of the mean gradients of passes, each times its learned tokens. passes: with learned
    tokens, over all processes. learned: tokens of the step. grad_norm: of the step's mean gradient, before clipping.
    With n tokens in a pass E|g|² = |G|² + tr(Σ)/n (equation A.1), Σ being that of a token; weighting by n makes passes
    of unequal size count right. A sequence's variance is a token's divided by its mean number of them.
    """
    if passes < 2:
        return None
    small, big = weighted_norms / learned, grad_norm**2
    variance = (small - big) * learned / (passes - 1)
    return variance * global_batch_size / learned, big - variance / learned


def noise_scale(steps: Sequence[Mapping[str, Any]]) -> float | None:
    """tr(Σ) / |G|² in sequences, each averaged over the last steps (lines of metrics.jsonl); None while it is hidden.

    The ratio of averages, and not the average of ratios, whose expectation would not be that of either.
    """
    known = [step for step in steps[-WINDOW:] if "gradient_signal" in step]
    variance = sum(step["gradient_variance"] for step in known)
    signal = sum(step["gradient_signal"] for step in known)
    return float(variance / signal) if signal > 0 and variance > 0 else None
