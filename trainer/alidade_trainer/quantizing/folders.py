"""Quantized models that are folders in Hugging Face format, for servers on GPUs: how they are loaded and measured."""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alidade_crds.reasons import FailureReason
from alidade_engine.digests import model_digest
from alidade_engine.models import load_model
from alidade_trainer.failures import JobFailure
from alidade_trainer.merge import stored_dtype
from alidade_trainer.quantizing.method import pad_id
from alidade_trainer.quantizing.perplexity import Measure

MODEL_FOLDER = "model"


def require(method: str, *packages: str) -> None:
    """Raises JobFailure ConfigInvalid when a package that the method needs is not in this image."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"spec.quantization.method is {method}, and this image has no {' and no '.join(missing)}. Build one that "
            "has it (docs/how-to/quantize.md), and name it as quantizationImage in the operator's configuration.",
        )


def served_dtype(source: Path) -> torch.dtype:
    """The 16 bit format in which a model is served on GPUs, which quantizing starts from: its own, or bfloat16."""
    return torch.float16 if stored_dtype(source) == torch.float16 else torch.bfloat16


def placed(source: Path, dtype: torch.dtype, **options: Any) -> PreTrainedModel:
    """A model for computing: over all GPUs there are, or on the CPU."""
    where: dict[str, Any] = {"device_map": "auto"} if torch.cuda.is_available() else {}
    return load_model(source, dtype=dtype, **where, **options).eval()


def folder_perplexities(
    source: Path, target: Path, measure: Measure, tokenizer: PreTrainedTokenizerBase
) -> tuple[float, float]:
    """Perplexity of the model as it is served unquantized, and of the one that was written, one at a time in memory."""
    dtype, pad = served_dtype(source), pad_id(tokenizer)
    before = measure.perplexity(placed(source, dtype), pad)
    return before, measure.perplexity(placed(target, dtype), pad)


def folder_digest(target: Path) -> str:
    """sha256 over the folder's files, in hexadecimal."""
    return model_digest(target).removeprefix("sha256:")
