"""A LoRA adapter in PEFT's format as a GGUF file, which llama.cpp adds to its base model request by request."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGUFType, GGUFWriter
from safetensors.torch import load_file

from alidade_crds.reasons import FailureReason
from alidade_engine.disk import sync
from alidade_engine.failures import JobFailure
from alidade_engine.gguf.writing import LAYER_NAMES, halves_interleaved
from alidade_engine.models import CHANGED_CONFIG, load_config

_WEIGHT = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.(.+)\.lora_([AB])\.weight")


def write_adapter(folder: Path, base: Path, path: Path) -> Path:
    """Writes the adapter in a folder for the model in another; the same adapter gives the same bytes.

    Raises JobFailure: ModelNotFound when the folder holds no adapter, ModelInvalid when it is none that llama.cpp adds.
    """
    settings = _settings(folder)
    config = load_config(base)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    writer = GGUFWriter(path.with_name(f".{path.name}.part"), "llama")
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", _alpha(settings))
    for name, role, values in _weights(folder):
        turned = heads.get(role, 0) if name.endswith("lora_b") else 0
        writer.add_tensor(name, halves_interleaved(values, turned) if turned else values)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
    partial = path.with_name(f".{path.name}.part")
    sync(partial)
    partial.rename(path)
    return path


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / "adapter_config.json"
    if not file.is_file() or not (folder / "adapter_model.safetensors").is_file():
        raise JobFailure(
            FailureReason.MODEL_NOT_FOUND,
            f"{folder} holds no LoRA adapter (adapter_config.json and adapter_model.safetensors).",
        )
    settings: dict[str, Any] = json.loads(file.read_text("utf-8"))
    unserved = [name for name in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern") if settings.get(name)]
    if (folder / CHANGED_CONFIG).is_file():
        unserved.append("another vocabulary or context than its base has")
    if settings.get("peft_type") != "LORA" or unserved:
        what = ", ".join(unserved) or f"peft_type {settings.get('peft_type')}"
        raise JobFailure(
            FailureReason.MODEL_INVALID,
            f"The adapter in {folder} uses {what}, which cannot be added while serving; merge it into its base model.",
        )
    return settings


def _alpha(settings: dict[str, Any]) -> float:
    """llama.cpp scales by alpha / rank; rank-stabilised LoRA (Kalajdzievski 2023) by alpha / sqrt(rank)."""
    alpha = float(settings["lora_alpha"])
    return alpha * math.sqrt(settings["r"]) if settings.get("use_rslora") else alpha


def _weights(folder: Path) -> Iterator[tuple[str, str, npt.NDArray[np.float32]]]:
    """Name in the file, role of the matrix, and values: (rank, in) of A and (out, rank) of B."""
    for source, tensor in sorted(load_file(folder / "adapter_model.safetensors").items()):
        matched = _WEIGHT.fullmatch(source)
        role = LAYER_NAMES.get(matched[2]) if matched else None
        if matched is None or role is None:
            raise JobFailure(
                FailureReason.MODEL_INVALID,
                f"The adapter in {folder} changes {source}, which is no matrix of a layer; merge it into its base "
                "model.",
            )
        yield f"blk.{matched[1]}.{role}.weight.lora_{matched[3].lower()}", role, tensor.to(torch.float32).numpy()
