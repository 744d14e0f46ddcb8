"""GPTQ, AWQ and FP8 by llm-compressor, saved as compressed-tensors: what vLLM and text-generation-inference load.

GPTQ: Frantar et al. 2022; AWQ: Lin et al. 2023; FP8 (E4M3): Micikevicius et al. 2022, one scale for each output channel
of a weight, activations scaled by token as they come.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alidade_crds.modelserve import QuantizationMethod
from alidade_engine.disk import new_folder
from alidade_engine.models import load_model, load_tokenizer
from alidade_trainer.quantizing.folders import (
    MODEL_FOLDER,
    folder_digest,
    folder_perplexities,
    require,
    served_dtype,
)
from alidade_trainer.quantizing.method import weights_size
from alidade_trainer.quantizing.perplexity import Measure

# The sizes that kernels for 4 bit weights have; the larger, the fewer scales there are.
_GROUP_SIZES = (128, 64, 32)
_BITS = 4
# The head is small beside the model and decides every token: it stays in 16 bit.
_KEPT = ("lm_head",)


@dataclass(frozen=True)
class CompressedFolder:
    """A `Quantizer`."""

    method: QuantizationMethod
    file_name: str = MODEL_FOLDER
    computed_in: str = "16 bit, as served"
    calibrates: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "calibrates", self.method != QuantizationMethod.FP8)

    def check(self) -> None:
        """As `Quantizer.check`."""
        require(self.method, "llmcompressor", "compressed_tensors")

    def write(self, source: Path, target: Path, texts: Sequence[Sequence[int]]) -> None:
        """As `Quantizer.write`; layers are moved to a GPU one by one, where there is one."""
        from llmcompressor import oneshot

        # What draws numbers in there must draw the same ones each time.
        torch.manual_seed(0)
        model = load_model(source, dtype=served_dtype(source))
        calibrating: dict[str, Any] = {}
        if self.calibrates:
            calibrating = {
                "dataset": _dataset(texts),
                "num_calibration_samples": len(texts),
                "max_seq_length": max(len(ids) for ids in texts),
                # Shuffled, the same texts give other weights each time.
                "shuffle_calibration_samples": False,
            }
        with _pinning_only_with_a_gpu():
            oneshot(model=model, recipe=recipe(self.method, model), **calibrating)
        with new_folder(target) as folder:
            model.save_pretrained(folder, save_compressed=True)
            load_tokenizer(source).save_pretrained(folder)

    def perplexities(
        self, source: Path, target: Path, measure: Measure, tokenizer: PreTrainedTokenizerBase
    ) -> tuple[float, float]:
        """As `Quantizer.perplexities`."""
        return folder_perplexities(source, target, measure, tokenizer)

    def digest(self, target: Path) -> str:
        """As `Quantizer.digest`."""
        return folder_digest(target)

    def size_bytes(self, target: Path) -> int:
        """As `Quantizer.size_bytes`."""
        return weights_size(target)


def group_size(model: nn.Module) -> int | None:
    """Inputs of a layer that share a scale: the most that divide every layer's inputs; None: all of a row's."""
    columns = [
        layer.in_features
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and not name.endswith(_KEPT)
    ]
    return next((size for size in _GROUP_SIZES if all(count % size == 0 for count in columns)), None)


def recipe(method: QuantizationMethod, model: PreTrainedModel) -> list[Any]:
    """What llm-compressor is told: every linear layer of the blocks, in the method's number format."""
    from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier

    kept = list(_KEPT)
    if method == QuantizationMethod.FP8:
        return [QuantizationModifier(targets=["Linear"], scheme="FP8_DYNAMIC", ignore=kept)]
    groups = {"group_0": _four_bits(group_size(model))}
    if method == QuantizationMethod.GPTQ:
        return [GPTQModifier(config_groups=groups, ignore=kept)]
    from llmcompressor.modifiers.transform.awq import AWQModifier

    return [AWQModifier(), QuantizationModifier(config_groups=groups, ignore=kept)]


def _four_bits(group: int | None) -> Any:
    """Whole numbers of 4 bits around zero: packed zero points are what transformers cannot load (5.23)."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    shape = {"strategy": "group", "group_size": group} if group is not None else {"strategy": "channel"}
    return QuantizationScheme(
        targets=["Linear"], weights=QuantizationArgs(num_bits=_BITS, type="int", symmetric=True, **shape)
    )


def _dataset(texts: Sequence[Sequence[int]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list([{"input_ids": list(ids), "attention_mask": [1] * len(ids)} for ids in texts])


@contextmanager
def _pinning_only_with_a_gpu() -> Iterator[None]:
    """AWQ pins what it keeps between layers, for faster copies to a GPU; without one, torch refuses to (0.14)."""
    from llmcompressor.pipelines.cache import IntermediatesCache

    own = IntermediatesCache.pin_memory
    if not torch.cuda.is_available():
        IntermediatesCache.pin_memory = lambda self, index: None  # noqa: ARG005
    try:
        yield
    finally:
        IntermediatesCache.pin_memory = own
