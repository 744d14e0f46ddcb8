"""What is served: a GGUF file, its tokenizer, and where both come from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFReader
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from alidade_crds.reasons import FailureReason
from alidade_engine.digests import model_digest
from alidade_engine.failures import JobFailure
from alidade_serving.conversion import convert_adapter, convert_model
from alidade_serving.settings import Settings

# Part of the name of a converted file: raise it when the writer changes what it writes.
_WRITER = 1


@dataclass(frozen=True)
class Model:
    """A model on the disk, ready to be loaded by the engine."""

    path: Path
    tokenizer: PreTrainedTokenizerBase
    digest: str
    """Of the folder, or of nothing for a file that came as GGUF."""
    context_length: int
    special_ids: frozenset[int]
    """Control tokens, which stand for no text."""
    longest_token: int
    """Characters of the longest entry of the vocabulary: a text of n characters has at least n / this tokens."""


def prepare_model(settings: Settings) -> Model:
    """Converts a folder unless the cache has it; reads the tokenizer. Raises JobFailure when it cannot be served."""
    if settings.model.is_file():
        model = _from_file(settings.model)
    else:
        model = _from_file(*_converted(settings.model, settings))
    if settings.max_total_tokens > model.context_length:
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"--max-total-tokens is {settings.max_total_tokens} (a ModelServe's limits.maxTotalTokens); the model was "
            f"made for {model.context_length}. Lower it, or scale the model's positions in training.",
        )
    limits = settings.within(model.context_length)
    if limits.max_input_tokens >= limits.max_total_tokens:
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"--max-input-tokens is {limits.max_input_tokens} (a ModelServe's limits.maxInputTokens); prompt and "
            f"answer together may have {limits.max_total_tokens}. Lower it.",
        )
    return model


def prepare_draft(settings: Settings) -> Path | None:
    """The draft model as a GGUF file; nothing when none is set."""
    draft = settings.draft_model
    if draft is None:
        return None
    return draft if draft.is_file() else _converted(draft, settings)[0]


def prepare_adapters(settings: Settings) -> dict[str, Path]:
    """Adapters by name, as GGUF files; kept in the cache as models are. Raises JobFailure for one that is none."""
    prepared = {}
    for name, folder in settings.adapters.items():
        base = model_digest(settings.model).removeprefix("sha256:")[:16]
        digest = model_digest(folder).removeprefix("sha256:")[:32] if folder.is_dir() else "none"
        path = settings.cache / f"{digest}-on-{base}-{_WRITER}.gguf"
        if not path.is_file():
            convert_adapter(folder, settings.model, path)
        prepared[name] = path
    return prepared


def _converted(folder: Path, settings: Settings) -> tuple[Path, str]:
    digest = model_digest(folder)
    name = f"{digest.removeprefix('sha256:')[:32]}-{settings.quantization}-{_WRITER}.gguf"
    path = settings.cache / name
    if not path.is_file():
        convert_model(folder, path, settings.quantization)
    return path, digest


def _from_file(path: Path, digest: str = "") -> Model:
    try:
        reader = GGUFReader(path)
    except (ValueError, OSError, IndexError) as error:
        raise JobFailure(FailureReason.MODEL_INVALID, f"{path} is not a GGUF file ({error}); copy it again.") from error
    architecture = _field(reader, "general.architecture", "")
    stored = _field(reader, "tokenizer.huggingface.json", "")
    if not stored:
        raise JobFailure(
            FailureReason.MODEL_INVALID,
            f"{path} does not hold its Hugging Face tokenizer, so that prompts could not be split as in training. "
            "Serve the folder that it was made of, or convert that folder again.",
        )
    tokenizer = _tokenizer(reader, stored)
    context = int(_field(reader, f"{architecture}.context_length", 0))
    return Model(path, tokenizer, digest, context, *_known(tokenizer))


def _field(reader: GGUFReader, name: str, default: Any) -> Any:
    found = reader.get_field(name)
    return default if found is None else found.contents()


def _tokenizer(reader: GGUFReader, stored: str) -> PreTrainedTokenizerFast:
    tokens = reader.get_field("tokenizer.ggml.tokens")
    named = {
        "bos_token": "tokenizer.ggml.bos_token_id",
        "eos_token": "tokenizer.ggml.eos_token_id",
        "unk_token": "tokenizer.ggml.unknown_token_id",
        "pad_token": "tokenizer.ggml.padding_token_id",
    }
    special = {
        name: tokens.contents(int(number))
        for name, field in named.items()
        if tokens is not None and (number := _field(reader, field, None)) is not None
    }
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(stored), clean_up_tokenization_spaces=False, **special
    )
    tokenizer.chat_template = _field(reader, "tokenizer.chat_template", None)
    return tokenizer


def _known(tokenizer: PreTrainedTokenizerBase) -> tuple[frozenset[int], int]:
    """What is asked of the tokenizer again and again, found once: control tokens, and the longest entry's length."""
    return frozenset(tokenizer.all_special_ids), max(len(text) for text in tokenizer.get_vocab())
