"""NF4 by bitsandbytes: 4 bit values that lie as the quantiles of a normal distribution (Dettmers et al. 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from alidade_crds.modelserve import QuantizationMethod
from alidade_engine.disk import new_folder
from alidade_engine.models import load_tokenizer
from alidade_trainer.quantized_bases import nf4
from alidade_trainer.quantizing.folders import (
    MODEL_FOLDER,
    folder_digest,
    folder_perplexities,
    placed,
    require,
    served_dtype,
)
from alidade_trainer.quantizing.method import weights_size
from alidade_trainer.quantizing.perplexity import Measure


@dataclass(frozen=True)
class NormalFloatFolder:
    """A `Quantizer`."""

    file_name: str = MODEL_FOLDER
    calibrates: bool = False
    computed_in: str = "16 bit, as served"

    def check(self) -> None:
        """As `Quantizer.check`."""
        require(QuantizationMethod.NF4, "bitsandbytes")

    def write(self, source: Path, target: Path, texts: Sequence[Sequence[int]]) -> None:  # noqa: ARG002
        """As `Quantizer.write`."""
        dtype = served_dtype(source)
        model = placed(source, dtype, quantization_config=nf4(dtype))
        with new_folder(target) as folder:
            model.save_pretrained(folder)
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
