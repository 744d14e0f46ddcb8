"""The weights of a GGUF file put back into the model that the file was made of, to measure what encoding them cost."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGUFReader, dequantize
from transformers import PreTrainedModel

from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure
from alidade_engine.gguf.writing import LAYER_NAMES, OUTER_NAMES


@torch.no_grad()
def load_decoded(model: PreTrainedModel, path: Path) -> None:
    """Replaces the weights of a model, in its own number format, by what a file of the same model decodes to.

    One weight is decoded at a time. Raises JobFailure (ModelInvalid) when the file lacks a weight or has it in another
    shape.
    """
    config = model.config
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    tensors = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    for name, parameter in model.named_parameters():
        stored = _stored_name(name)
        tensor = tensors.get(stored)
        if tensor is None:
            raise JobFailure(FailureReason.MODEL_INVALID, f"{path} lacks the weight {stored}; convert the model again.")
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        role = stored.split(".")[-2]
        if values.size != parameter.numel():
            raise JobFailure(
                FailureReason.MODEL_INVALID,
                f"{path} holds {stored} of another shape than the model's {name}; convert the model again.",
            )
        values = values.reshape(parameter.shape)
        if role in heads:
            values = _halves_apart(values, heads[role])
        parameter.copy_(torch.from_numpy(np.ascontiguousarray(values)))


def _stored_name(name: str) -> str:
    """What a weight of Hugging Face's llama is called in a GGUF file."""
    module, _, part = name.rpartition(".")
    if module in OUTER_NAMES:
        return f"{OUTER_NAMES[module]}.{part}"
    layer, _, inside = module.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{LAYER_NAMES.get(inside, inside)}.{part}"


def _halves_apart(values: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Rows of each head in Hugging Face's order again: the writer interleaves the two halves that turn together."""
    shape = values.shape
    return values.reshape(heads, shape[0] // heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
