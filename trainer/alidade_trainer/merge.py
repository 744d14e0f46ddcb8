"""A LoRA adapter folded into its base model."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from alidade_crds.reasons import FailureReason
from alidade_engine.disk import new_folder
from alidade_engine.models import CHANGED_CONFIG, load_model, load_tokenizer
from alidade_trainer.failures import JobFailure
from alidade_trainer.quantized_bases import dequantized, loading_options, read_quantization


def merge_adapter(base: Path, adapter: Path, output: Path) -> None:
    """Writes the merged model, with the adapter's tokenizer where it has one, to a folder that is not there yet.

    Raises JobFailure when base or adapter cannot be read, or output exists.
    """
    if output.exists():
        raise JobFailure(FailureReason.CONFIG_INVALID, f"{output} exists; name a folder that does not.")
    if not (adapter / "adapter_config.json").is_file():
        raise JobFailure(
            FailureReason.MODEL_NOT_FOUND,
            f"{adapter} has no adapter_config.json; name the folder of a LoRA adapter in peft's format.",
        )
    with new_folder(output) as folder:
        write_merged(base, adapter, folder, dtype=None)


def write_merged(
    base: Path, adapter: Path, folder: Path, *, dtype: torch.dtype | None, trust_remote_code: bool = False
) -> None:
    """Puts the merged model and its tokenizer into an existing folder.

    The sum base + adapter is taken in fp32 and rounded once, to dtype, or to the base's own when that is None. A base
    that was quantized in training is so here, too: the adapter belongs to those values.
    """
    tokenizer_folder = adapter if (adapter / "tokenizer_config.json").is_file() else base
    tokenizer = load_tokenizer(tokenizer_folder, trust_remote_code=trust_remote_code)
    model = _base_model(base, adapter, trust_remote_code=trust_remote_code)
    own_dtype = stored_dtype(base)
    changed = _changed_config(adapter, model.config)
    rows = max(len(tokenizer), changed.get_text_config().vocab_size)
    if rows > model.config.get_text_config().vocab_size:
        model.resize_token_embeddings(rows, mean_resizing=False)
    if tokenizer.pad_token_id is not None:
        model.config.pad_token_id = tokenizer.pad_token_id
    from peft import PeftModel  # a second; who quantizes needs this module, too

    try:
        merged = PeftModel.from_pretrained(model, str(adapter), autocast_adapter_dtype=False).merge_and_unload()
    except (RuntimeError, ValueError) as error:
        raise JobFailure(
            FailureReason.MODEL_INVALID,
            f"The adapter in {adapter} does not fit the model in {base}: {str(error).strip().splitlines()[0]}",
        ) from error
    if changed is not model.config:
        merged.config = changed
    merged.to(dtype or own_dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _changed_config(adapter: Path, own: PretrainedConfig) -> PretrainedConfig:
    """The base's configuration with what an adapter changes in it: its vocabulary's size, its rotary positions."""
    file = adapter / CHANGED_CONFIG
    return type(own).from_json_file(file) if file.is_file() else own


def _base_model(base: Path, adapter: Path, *, trust_remote_code: bool) -> PreTrainedModel:
    """The base in fp32: a reward model for an adapter of one, else a language model."""
    quantization = read_quantization(adapter)
    dtype = torch.float32 if quantization is None else quantization.bnb_4bit_compute_dtype
    options = {} if quantization is None else loading_options(base, quantization)
    model = _load_base(base, adapter, dtype=dtype, trust_remote_code=trust_remote_code, **options)
    return model if quantization is None else dequantized(model, torch.float32).to("cpu", torch.float32)


def _load_base(base: Path, adapter: Path, **options: Any) -> PreTrainedModel:
    if json.loads((adapter / "adapter_config.json").read_text()).get("task_type") == "SEQ_CLS":
        from alidade_engine.reward.network import load_classifier
        from alidade_trainer.reward.heads import init_head

        return load_classifier(base, new_head=init_head, **options)
    return load_model(base, **options)


def stored_dtype(folder: Path) -> torch.dtype:
    """The number format a model's weights are stored in."""
    from alidade_engine.models import load_config

    dtype = load_config(folder).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32
