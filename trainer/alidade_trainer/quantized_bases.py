"""Base models whose linear layers are held in 4 bits while low-rank additions are trained on them.

QLoRA (Dettmers et al. 2023): NF4 with double quantization by bitsandbytes, 4.127 bits for each weight; every layer is
dequantized for the moment in which it is used.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel

from alidade_crds.blocks import AdapterType
from alidade_crds.reasons import FailureReason
from alidade_engine.models import load_config
from alidade_trainer.failures import JobFailure

QUANTIZATION_FILE = "base_quantization.json"
"""Beside an adapter: how the base was quantized that it was trained on, for whoever merges them."""


def nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    """How linear layers are quantized; dtype: in which they are computed."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        # The scales are quantized, too: 0.37 bits less for each weight.
        bnb_4bit_use_double_quant=True,
    )


def loading_options(folder: Path, settings: BitsAndBytesConfig) -> dict[str, Any]:
    """Options of `from_pretrained`: on this process's device, and quantized unless the folder's weights are already."""
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    is_stored = getattr(load_config(folder), "quantization_config", None) is not None
    return {"device_map": {"": device}} | ({} if is_stored else {"quantization_config": settings})


def keep_as_loaded(model: nn.Module) -> None:
    """Lets evaluation compute with the very weights of training.

    On CPUs with AVX512-BF16 bitsandbytes would pack them anew at the first pass without gradients, with scales of 16
    bits, for good; and fail where a layer's width is no multiple of 64.
    """
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]  # of bitsandbytes' Linear4bit


def refuse_quantized(config: PretrainedConfig, adapter: AdapterType) -> None:
    """Raises JobFailure (ModelInvalid) for a base that is stored quantized, unless it is trained as such.

    config: of the base. bitsandbytes' 4 bit weights can be; weights of other formats only be served.
    """
    settings = getattr(config, "quantization_config", None)
    if settings is None:
        return
    told = settings if isinstance(settings, dict) else settings.to_dict()
    method = str(getattr(told.get("quant_method"), "value", told.get("quant_method")))
    in_4_bits = method == "bitsandbytes" and told.get("load_in_4bit")
    if in_4_bits and adapter == AdapterType.QLORA:
        return
    advice = "set adapter.type: qlora, or n" if in_4_bits else "n"
    raise JobFailure(
        FailureReason.MODEL_INVALID,
        f"The model is stored quantized ({method}), and adapter.type is {adapter}, which needs whole weights; "
        f"{advice}ame the model that it was made from.",
    )


def write_quantization(model: nn.Module, folder: Path) -> None:
    """Notes beside an adapter how its base was quantized, when it was."""
    settings = getattr(getattr(model, "config", None), "quantization_config", None)
    if settings is not None:
        (folder / QUANTIZATION_FILE).write_text(json.dumps(settings.to_dict(), indent=2, default=str) + "\n")


def read_quantization(adapter: Path) -> BitsAndBytesConfig | None:
    """How the base of an adapter was quantized; None when it was not."""
    file = adapter / QUANTIZATION_FILE
    if not file.is_file():
        return None
    settings: BitsAndBytesConfig = BitsAndBytesConfig.from_dict(json.loads(file.read_text()))
    return settings


def dequantized(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The same function with whole weights, in which an adapter can be merged.

    They are the values that training computed with, not those from before quantization, which it never saw.
    """
    whole: PreTrainedModel = model.dequantize(dtype=dtype)
    # What turned stored weights into 4 bits has no way back, and saving would look for one.
    whole._weight_conversions = None
    return whole
