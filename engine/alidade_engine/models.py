"""Models: loaded from a folder in Hugging Face format, or made anew."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from alidade_crds.blocks import ModelInit
from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure
from alidade_engine.tokenization import load_tokenizer, train_tokenizer

PAD_TOKEN = "<|pad|>"
CHANGED_CONFIG = "model_config.json"
"""Beside an adapter: the configuration of its model, where training has made it another than its base's."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def load_config(path: Path, *, trust_remote_code: bool = False) -> PretrainedConfig:
    """The configuration in a model's folder.

    Raises JobFailure: ModelNotFound when there is no such folder or no config.json in it, ModelInvalid when it cannot
    be read, ModelUnsafe when the model brings code and trust_remote_code is off.
    """
    if not path.exists():
        raise JobFailure(FailureReason.MODEL_NOT_FOUND, f"{path} does not exist; check model.uri.")
    if not path.is_dir():
        raise JobFailure(
            FailureReason.MODEL_NOT_FOUND, f"{path} is a file; model.uri names the folder that holds config.json."
        )
    if not (path / "config.json").is_file():
        if (path / "adapter_config.json").is_file():
            raise JobFailure(
                FailureReason.MODEL_INVALID,
                f"{path} holds a LoRA adapter without its base model; merge the two, and name the merged folder.",
            )
        found = ", ".join(sorted(item.name for item in path.iterdir())[:8]) or "nothing"
        raise JobFailure(
            FailureReason.MODEL_NOT_FOUND,
            f"{path} has no config.json (it holds {found}); model.uri names a folder in Hugging Face format.",
        )
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            path, local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # whatever the library raises on a damaged or unknown configuration
        if "trust_remote_code" in str(error):
            raise JobFailure(
                FailureReason.MODEL_UNSAFE,
                f"The model in {path} brings code of its own; read it, then set model.trustRemoteCode: true.",
            ) from error
        raise JobFailure(
            FailureReason.MODEL_INVALID, f"config.json in {path} cannot be used: {_first_line(error)}"
        ) from error
    return config


def load_model(
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    trust_remote_code: bool = False,
    config: PretrainedConfig | None = None,
    **options: Any,
) -> PreTrainedModel:
    """The causal language model in a folder, from safetensors only; options go to `from_pretrained`.

    config: in place of the folder's own.
    Raises JobFailure: as `load_config`; ModelUnsafe when all its weights are pickles; ModelInvalid when a file is
    damaged or weights are missing.
    """
    config = config or load_config(path, trust_remote_code=trust_remote_code)
    check_weights(path)
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            path,
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
            FailureReason.MODEL_INVALID, f"The model in {path} cannot be loaded: {_first_line(error)}"
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise JobFailure(
            FailureReason.MODEL_INVALID,
            f"The model in {path} lacks {len(missing)} of its weights, such as {missing[0]}; it would start with "
            "random numbers there. Copy the folder again, or correct config.json.",
        )
    loaded: PreTrainedModel = model
    return loaded


def check_weights(path: Path) -> None:
    """Raises JobFailure unless the folder's weights are whole safetensors files."""
    files = sorted(path.glob("*.safetensors"))
    if not files:
        pickles = sorted(item.name for pattern in _PICKLES for item in path.glob(pattern))
        if pickles:
            raise JobFailure(
                FailureReason.MODEL_UNSAFE,
                f"{path} holds its weights only as pickles ({', '.join(pickles[:3])}), which can run any code when "
                "opened. Convert them where you trust them, AutoModelForCausalLM.from_pretrained(FOLDER)"
                ".save_pretrained(NEW_FOLDER), and name the new folder in model.uri.",
            )
        raise JobFailure(FailureReason.MODEL_NOT_FOUND, f"{path} has no weights (*.safetensors).")
    _refuse_missing_shards(path, {file.name for file in files})
    for file in files:
        try:
            with safe_open(str(file), framework="pt") as opened:
                opened.keys()
        except (SafetensorError, OSError) as error:
            raise JobFailure(
                FailureReason.MODEL_INVALID,
                f"{file} is damaged or incomplete ({_first_line(error)}); copy it again.",
            ) from error


def _refuse_missing_shards(path: Path, present: set[str]) -> None:
    """Raises JobFailure when the index of a model in several files names one that is not there."""
    index = path / "model.safetensors.index.json"
    if not index.is_file():
        return
    try:
        named = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError) as error:
        raise JobFailure(
            FailureReason.MODEL_INVALID, f"{index} is damaged ({_first_line(error)}); copy it again."
        ) from error
    absent = sorted(named - present)
    if absent:
        raise JobFailure(
            FailureReason.MODEL_INVALID,
            f"{path} lacks {len(absent)} of the {len(named)} files its index names, such as {absent[0]}; copy it "
            "again.",
        )


def init_model(
    init: ModelInit, tokenizer: PreTrainedTokenizerBase, *, dtype: torch.dtype = torch.float32, **options: Any
) -> PreTrainedModel:
    """A Llama with random weights, drawn by torch's generator, and an embedding for each entry of the tokenizer.

    options: of `from_config`.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=init.hidden_size,
        intermediate_size=init.intermediate_size or _multiple_of_8(init.hidden_size * 8 / 3),
        num_hidden_layers=init.layers,
        num_attention_heads=init.heads,
        num_key_value_heads=init.kv_heads or init.heads,
        max_position_embeddings=init.context_length,
        tie_word_embeddings=init.tie_embeddings,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    # Not cast when made: that would round the frequencies of rotary positions, too, which are loaded in float32.
    made: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, **options)
    return made


def _multiple_of_8(width: float) -> int:
    """Rounded up, since matrix units want it."""
    return math.ceil(width / 8) * 8


def check_sizes(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig, path: Path) -> None:
    """Raises JobFailure(ModelInvalid) when the tokenizer of a folder has entries that its model has no embedding for.

    The pad token may be one of them: nothing is learned of it, and `ensure_pad_token` gives it a row.
    """
    rows = config.get_text_config().vocab_size
    numbered = sorted((number, entry) for entry, number in tokenizer.get_vocab().items() if number >= rows)
    beyond = [entry for _, entry in numbered if entry != tokenizer.pad_token]
    if beyond:
        raise JobFailure(
            FailureReason.MODEL_INVALID,
            f"The tokenizer in {path} has {len(tokenizer)} entries and the model's embedding {rows} rows: "
            f"{len(beyond)} entries, such as {beyond[0]!r}, have none. Use the tokenizer that the model was trained "
            "with; a job's vocabulary field adds pieces to that one.",
        )


def ensure_pad_token(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel | None = None) -> bool:
    """Sees to a pad token that is not EOS, in tokenizer, configuration and embeddings; tells whether one was added.

    With pad = EOS the end token would be masked out of the loss, and a reward model would read the token before it.
    An unused entry of the tokenizer is taken where there is one, so that embeddings need not grow.
    """
    added = False
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        vocabulary = tokenizer.get_vocab()
        spare = [name for name in ("<|pad|>", "<pad>", "<|finetune_right_pad_id|>", "[PAD]") if name in vocabulary]
        added = not spare
        tokenizer.add_special_tokens({"pad_token": spare[0] if spare else PAD_TOKEN})
    if model is not None:
        # Not the weight's own shape, which under ZeRO-3 is that of its local part.
        if len(tokenizer) > model.config.get_text_config().vocab_size:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        model.config.pad_token_id = tokenizer.pad_token_id
        if getattr(model, "generation_config", None) is not None:  # a reward model has none
            model.generation_config.pad_token_id = tokenizer.pad_token_id
    return added


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


__all__ = [
    "CHANGED_CONFIG",
    "check_sizes",
    "check_weights",
    "ensure_pad_token",
    "init_model",
    "load_config",
    "load_model",
    "load_tokenizer",
    "train_tokenizer",
]
