"""Weights that training leaves as they are, by patterns of their names."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from alidade_crds.reasons import FailureReason
from alidade_trainer.failures import JobFailure

_SHOWN = 12


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Takes the gradient off every weight that one of the patterns matches (`*`, `?` and `[...]`, as in a shell).

    Raises JobFailure (ConfigInvalid) for a pattern that matches nothing, or when nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
            raise JobFailure(
                FailureReason.CONFIG_INVALID,
                f"training.freeze has {pattern}, which no weight of the model is named like; its weights are {shown}.",
            )
    for name, weight in model.named_parameters():
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            weight.requires_grad_(False)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"training.freeze is {', '.join(patterns)}, which leaves no weight of the model to train; name fewer.",
        )
