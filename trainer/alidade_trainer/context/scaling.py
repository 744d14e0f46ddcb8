"""Rotary positions (RoPE, Su et al. 2021) stretched for a longer context.

With base b and d rotated dimensions, pair i turns by m·b^(-2i/d) at position m. Over a factor s
- linear interpolation turns by (m/s)·b^(-2i/d) (Chen et al. 2023, section 3.2);
- NTK-aware scaling puts b·s^(d/(d-2)) in place of b: the slowest pair is stretched by s, the fastest not at all
  (bloc97 2023; Peng et al. 2023, section 3.1);
- YaRN interpolates pairs that turn less than once in the old context, leaves those that turn more than 32 times, goes
  over between them, and multiplies queries and keys by 0.1·ln s + 1 (Peng et al. 2023, sections 3.2 to 3.4).
"""

import copy
import math
from typing import Any

from transformers import PretrainedConfig

from alidade_crds.blocks import Context, ContextScaling
from alidade_crds.reasons import FailureReason
from alidade_trainer.failures import JobFailure

# As far as the papers went: 2,048 to 32,768 tokens (Chen et al. 2023), 4,096 to 131,072 (Peng et al. 2023), and the
# factor that NTK-aware scaling was proposed with, which reaches less far than it says (Peng et al. 2023, section 3.1).
SHOWN_TO_HOLD = {ContextScaling.LINEAR: 16.0, ContextScaling.NTK: 8.0, ContextScaling.YARN: 32.0}


def scaled_config(config: PretrainedConfig, context: Context) -> PretrainedConfig:
    """A model's configuration with its positions stretched as asked, for model, file and whoever serves it.

    Raises JobFailure (ConfigInvalid) for a model without rotary positions, with several or already stretched ones, and
    for a length that is not longer than the model's own or beyond what the scaling can hold.
    """
    rotation = _rotation(config)
    original = int(config.max_position_embeddings)
    factor = _factor(context, original)
    scaled = copy.deepcopy(config)
    scaled.rope_parameters = rotation | _stretched(context.scaling, factor, rotation, config)
    scaled.max_position_embeddings = context.length
    return scaled


def _rotation(config: PretrainedConfig) -> dict[str, Any]:
    """The parameters of a model's plain rotary positions."""
    name, found = config.model_type, getattr(config, "rope_parameters", None)
    if not found or not hasattr(config, "max_position_embeddings"):
        raise _refused(
            f"the model is a {name}, which has no rotary positions to stretch. Leave context out, or start from a "
            "model that has them, such as Llama, Qwen, Mistral or Pythia"
        )
    if any(isinstance(value, dict) for value in found.values()):
        raise _refused(f"the layers of the model ({name}) have rotary positions of different kinds. Leave context out")
    kind = found.get("rope_type", "default")
    if kind != "default":
        raise _refused(
            f"the model's positions are stretched already ({kind}, to {config.max_position_embeddings} tokens). Leave "
            "context out, or start from the model that this one was made of"
        )
    return dict(found)


def _factor(context: Context, original: int) -> float:
    if context.length <= original:
        raise _refused(
            f"the model's context is {original} tokens already. Leave context out, or ask for more",
            field=f"context.length is {context.length}",
        )
    needed = context.length / original
    if context.factor is not None:
        if context.factor < needed:
            reach = math.floor(context.factor * original)
            raise _refused(
                f"a factor of {context.factor:g} stretches the model's {original} tokens to {reach}. Set "
                f"context.factor to {needed:g} or more, or context.length to {reach} or less"
            )
        return context.factor
    most = SHOWN_TO_HOLD[context.scaling]
    if needed > most:
        others = [scaling for scaling, limit in SHOWN_TO_HOLD.items() if limit >= needed]
        instead = f"scaling {others[0]}, " if others else ""
        raise _refused(
            f"that is {needed:g} times the model's {original} tokens, and scaling {context.scaling} has been shown to "
            f"hold {most:g} times. Use {instead}a length of {math.floor(most * original)} or less, or set "
            f"context.factor to {needed:g} to try it all the same",
            field=f"context.length is {context.length}",
        )
    return needed


def _stretched(
    scaling: ContextScaling, factor: float, rotation: dict[str, Any], config: PretrainedConfig
) -> dict[str, Any]:
    """What changes among the parameters, in the words of transformers."""
    if scaling == ContextScaling.LINEAR:
        return {"rope_type": "linear", "factor": factor}
    if scaling == ContextScaling.YARN:
        original = config.max_position_embeddings
        return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    size = rotated_size(rotation, config)
    return {"rope_theta": rotation["rope_theta"] * factor ** (size / (size - 2))}


def rotated_size(rotation: dict[str, Any], config: PretrainedConfig) -> int:
    """Dimensions of a head that are rotated."""
    head: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(head * rotation.get("partial_rotary_factor", 1.0))


def _refused(why: str, *, field: str = "context is set") -> JobFailure:
    return JobFailure(FailureReason.CONFIG_INVALID, f"{field}; {why}.")
