"""Reward models: a language model's backbone with one linear head, stored as transformers' sequence classifiers."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure
from alidade_engine.models import check_weights, load_config
from alidade_engine.padding import pooled, positions_of

if TYPE_CHECKING:
    from peft import PeftModel  # seconds; who only reads rewards wraps nothing

HEAD = "score"
"""transformers' name of the head of causal models' sequence classifiers."""


class RewardNetwork(nn.Module):
    """Rewards of whole rows, read at their last real token.

    transformers' own pooling looks for the padding's id instead of the mask, and so reads the wrong token where padding
    and end-of-sequence share one.
    """

    def __init__(self, model: "PreTrainedModel | PeftModel") -> None:
        super().__init__()
        self.model = model

    @property
    def config(self) -> Any:
        """Of the model of transformers."""
        return self.model.config

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(rows,) float32 rewards of (rows, time) tokens, padded on either side."""
        inner = classifier(self.model)
        hidden = getattr(inner, inner.base_model_prefix)(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=positions_of(attention_mask),
            use_cache=False,
        ).last_hidden_state  # (rows, time, width)
        rewards: Tensor = getattr(inner, HEAD)(pooled(hidden, attention_mask))  # (rows, 1)
        return rewards.squeeze(-1).float()


def classifier(model: "PreTrainedModel | PeftModel") -> PreTrainedModel:
    """transformers' sequence classifier, which peft may have wrapped."""
    if isinstance(model, PreTrainedModel):
        return model
    inner: PreTrainedModel = model.get_base_model()
    return inner


def load_classifier(
    folder: Path,
    *,
    dtype: torch.dtype,
    trust_remote_code: bool = False,
    new_head: Callable[[nn.Linear], None] | None = None,
    **options: Any,
) -> PreTrainedModel:
    """The model of a folder with a head of one output, from safetensors only; options go to `from_pretrained`.

    new_head: draws the head that a language model without one gets; without it such a model is refused.
    Raises JobFailure: as `alidade_engine.models.load_config`; ModelInvalid when weights are missing.
    """
    config = load_config(folder, trust_remote_code=trust_remote_code)
    check_weights(folder)
    config.num_labels = 1
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise JobFailure(
            FailureReason.MODEL_INVALID,
            f"The model in {folder} cannot be loaded as a reward model: {str(error).strip().splitlines()[0]}",
        ) from error
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(f"{HEAD}."))
    if missing or not hasattr(model, HEAD):
        found = f"lacks {len(missing)} of its weights, such as {missing[0]}" if missing else f"has no head named {HEAD}"
        raise JobFailure(
            FailureReason.MODEL_INVALID,
            f"The model in {folder} {found}; a reward model stands on a causal language model.",
        )
    headless = any(name.startswith(f"{HEAD}.") for name in info["missing_keys"])
    if headless and new_head is None:
        raise JobFailure(
            FailureReason.MODEL_INVALID,
            f"The model in {folder} is a language model without a reward head; name a model that a RewardModel made.",
        )
    if headless and new_head is not None:
        new_head(getattr(model, HEAD))
    loaded: PreTrainedModel = model
    return loaded
