"""Quantization into one GGUF file, for the embedded server."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from alidade_engine.digests import file_digest
from alidade_engine.gguf.reading import load_decoded
from alidade_engine.gguf.writing import write_gguf
from alidade_engine.models import load_model
from alidade_trainer.quantizing.method import pad_id
from alidade_trainer.quantizing.perplexity import Measure


@dataclass(frozen=True)
class GgufFile:
    """Weights of one of llama.cpp's types. A `Quantizer`."""

    type: str
    file_name: str = "model.gguf"
    calibrates: bool = False
    computed_in: str = "fp32"

    def check(self) -> None:
        """As `Quantizer.check`; the encoder comes with the trainer, and needs no GPU."""

    def write(self, source: Path, target: Path, texts: Sequence[Sequence[int]]) -> None:  # noqa: ARG002
        """As `Quantizer.write`."""
        write_gguf(source, target, self.type)

    def perplexities(
        self, source: Path, target: Path, measure: Measure, tokenizer: PreTrainedTokenizerBase
    ) -> tuple[float, float]:
        """As `Quantizer.perplexities`: one model in memory, with its own weights and then the file's."""
        model = load_model(source, dtype=torch.float32).eval()
        before = measure.perplexity(model, pad_id(tokenizer))
        load_decoded(model, target)
        return before, measure.perplexity(model, pad_id(tokenizer))

    def digest(self, target: Path) -> str:
        """As `Quantizer.digest`."""
        return file_digest(target).removeprefix("sha256:")

    def size_bytes(self, target: Path) -> int:
        """As `Quantizer.size_bytes`."""
        return target.stat().st_size
