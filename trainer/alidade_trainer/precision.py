"""The number format that a job's models compute in."""

import torch

from alidade_crds.blocks import Precision, Training


def training_format(training: Training) -> torch.dtype:
    """Of what is trained, and of what is held beside it."""
    return torch.bfloat16 if training.precision == Precision.BF16 else torch.float32


def asking_format(training: Training, device: torch.device) -> torch.dtype:
    """Of a start model that is only asked, before training."""
    return training_format(training) if device.type == "cuda" else torch.float32
