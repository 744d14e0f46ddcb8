"""How the heads of reward models and critics start."""

import deepspeed
import torch
from torch import nn


def zero_head(head: nn.Linear) -> None:
    """Makes every value 0 at first.

    For a critic that nothing has taught yet: its advantages are then those of a policy gradient without a critic. Drawn
    weights would add values of deviation 1 to rewards of a like size, which the value clip lets go only slowly.
    """
    weights = [weight for weight in (head.weight, head.bias) if weight is not None]
    with deepspeed.zero.GatheredParameters(weights, modifier_rank=0, enabled=hasattr(head.weight, "ds_id")):
        for weight in weights:
            nn.init.zeros_(weight)


def init_head(head: nn.Linear) -> None:
    """Draws a head's weights from N(0, 1/(width + 1)) (Huang et al. 2024, detail 10); the bias becomes 0.

    Small, so that first rewards lie around 0 and the first steps do not shake the backbone. They depend on the seed
    that torch was given last, and not on what was drawn since, which differs between ZeRO's stages.
    """
    generator = torch.Generator().manual_seed(torch.initial_seed())
    weights = [head.weight] if head.bias is None else [head.weight, head.bias]
    with deepspeed.zero.GatheredParameters(weights, modifier_rank=0, enabled=hasattr(head.weight, "ds_id")):
        if head.weight.numel():  # under ZeRO-3 only the first process holds it here
            drawn = torch.randn(1, head.in_features, generator=generator) * (head.in_features + 1) ** -0.5
            head.weight.data.copy_(drawn)
        if head.bias is not None:
            nn.init.zeros_(head.bias)
