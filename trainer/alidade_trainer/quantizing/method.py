"""What a method of quantization is: writes a model once, and says what that cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from alidade_trainer.quantizing.perplexity import Measure


class Quantizer(Protocol):
    """A way to make the weights of a model smaller."""

    @property
    def file_name(self) -> str:
        """Of the file or folder that it writes, below the output."""
        ...

    @property
    def calibrates(self) -> bool:
        """Whether it looks at texts."""
        ...

    @property
    def computed_in(self) -> str:
        """The number format in which perplexity is computed."""
        ...

    def check(self) -> None:
        """Raises JobFailure when it cannot be done in this image, or on this machine."""
        ...

    def write(self, source: Path, target: Path, texts: Sequence[Sequence[int]]) -> None:
        """Writes the quantized model; texts: token ids to calibrate on, empty where it does not."""
        ...

    def perplexities(
        self, source: Path, target: Path, measure: Measure, tokenizer: PreTrainedTokenizerBase
    ) -> tuple[float, float]:
        """Perplexity of the model as it came and of the one that was written."""
        ...

    def digest(self, target: Path) -> str:
        """sha256 of what was written, in hexadecimal."""
        ...

    def size_bytes(self, target: Path) -> int:
        """Size of the weights that were written."""
        ...


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """A token to fill batches with; what stands there is never looked at."""
    return int(tokenizer.pad_token_id) if tokenizer.pad_token_id is not None else 0


def weights_size(folder: Path) -> int:
    """Size of the weights in a folder in Hugging Face format, in bytes."""
    return sum(one.stat().st_size for one in folder.glob("*.safetensors"))
