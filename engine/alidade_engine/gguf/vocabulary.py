"""A tokenizer in Hugging Face format as llama.cpp stores it, refused where llama.cpp would split text differently."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from gguf import TokenType
from transformers import PreTrainedTokenizerBase

from alidade_crds.reasons import FailureReason
from alidade_engine.encoding import adds_bos
from alidade_engine.failures import JobFailure
from alidade_engine.templates import resolve_template

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_GENERATION_TAG = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")
# How a byte-level tokenizer cuts text before merging, by the regular expression it carries; the name is llama.cpp's.
# GPT-2's expression is not carried but built into the ByteLevel step.
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_SPLITS = {
    rf"{_WORDS}|\p{{N}}{{1,3}}{_REST}": "llama-bpe",
    rf"{_WORDS}|\p{{N}}{_REST}": "qwen2",
}


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says about a tokenizer; one entry per row of the embedding."""

    model: str
    """`gpt2` merges bytes, `llama` merges pieces as sentencepiece does."""
    pre: str
    tokens: list[str]
    types: list[TokenType]
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    add_bos: bool = False
    add_space_prefix: bool = False
    special: dict[str, int] = field(default_factory=dict)
    """Ids of bos, eos, eot, unk and pad, as far as there are such."""
    chat_template: str = ""
    hugging_face: str = ""
    """tokenizer.json, from which the same tokens come back in Python."""


def read_vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int, stop_ids: list[int]) -> Vocabulary:
    """The vocabulary for an embedding of so many rows.

    stop_ids: tokens that end an answer, besides the tokenizer's EOS (generation_config.eos_token_id).
    Raises JobFailure(ModelInvalid) when llama.cpp has no equal of the tokenizer, or the embedding is too small for it.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {}
    model = backend.get("model", {})
    if model.get("type") != "BPE":
        raise _refused(f"its kind is {model.get('type') or type(tokenizer).__name__}, and only BPE is written")
    if len(tokenizer) > rows:
        raise _refused(f"it has {len(tokenizer)} entries and the embedding {rows} rows; resize the embedding")
    tokens, types = _entries(tokenizer, model, rows)
    merges = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
    common: dict[str, Any] = {
        "tokens": tokens,
        "types": types,
        "add_bos": adds_bos(tokenizer),
        "special": _special(tokenizer, stop_ids),
        "chat_template": _plain_template(tokenizer),
        "hugging_face": json.dumps(backend, ensure_ascii=False, separators=(",", ":")),
    }
    if model.get("byte_fallback"):
        scores = _scores(model["vocab"], merges, rows)
        return Vocabulary("llama", "default", scores=scores, add_space_prefix=_prepends(backend), **common)
    return Vocabulary("gpt2", _split_name(backend), merges=[" ".join(pair) for pair in merges], **common)


def _refused(why: str) -> JobFailure:
    return JobFailure(
        FailureReason.MODEL_INVALID,
        f"The tokenizer cannot be written as GGUF: {why}. Serve the model with vLLM or text-generation-inference.",
    )


def _entries(tokenizer: PreTrainedTokenizerBase, model: dict[str, Any], rows: int) -> tuple[list[str], list[TokenType]]:
    """Text and kind of each entry; rows of the embedding that no text leads to are marked as unused."""
    tokens = [f"[PAD{number}]" for number in range(rows)]
    types = [TokenType.UNUSED] * rows
    for text, number in model["vocab"].items():
        tokens[number] = text
        is_byte = model.get("byte_fallback") and _BYTE.fullmatch(text)
        types[number] = TokenType.BYTE if is_byte else TokenType.NORMAL
    for number, added in tokenizer.added_tokens_decoder.items():
        tokens[number] = added.content
        types[number] = TokenType.CONTROL if added.special else TokenType.USER_DEFINED
    if tokenizer.unk_token_id is not None:
        types[tokenizer.unk_token_id] = TokenType.UNKNOWN
    return tokens, types


def _special(tokenizer: PreTrainedTokenizerBase, stop_ids: list[int]) -> dict[str, int]:
    found = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unk": tokenizer.unk_token_id,
        "pad": tokenizer.pad_token_id,
        "eot": next((number for number in stop_ids if number != tokenizer.eos_token_id), None),
    }
    return {name: number for name, number in found.items() if number is not None}


def _plain_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The chat template without the tag that marks answers for training, which only transformers knows."""
    return _GENERATION_TAG.sub("", resolve_template(tokenizer, "auto"))


def _steps(part: dict[str, Any] | None, several: str) -> list[dict[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, whether it is one or a sequence."""
    if part is None:
        return []
    return part[several] if part["type"] == "Sequence" else [part]


def _split_name(backend: dict[str, Any]) -> str:
    """llama.cpp's name for how text is cut before bytes are merged."""
    if backend.get("normalizer") and _steps(backend["normalizer"], "normalizers") != [{"type": "NFC"}]:
        raise _refused(f"it changes text before splitting it ({backend['normalizer']['type']})")
    steps = _steps(backend.get("pre_tokenizer"), "pretokenizers")
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"] and steps[0]["use_regex"] and not steps[0]["add_prefix_space"]:
        return "gpt-2"
    if kinds == ["Split", "ByteLevel"]:
        expression = steps[0]["pattern"].get("Regex", "")
        if expression in _SPLITS:
            return _SPLITS[expression]
    raise _refused("it splits text by rules that are neither GPT-2's, Llama 3's nor Qwen 2's")


def _prepends(backend: dict[str, Any]) -> bool:
    """Whether a space is put in front of every text, as sentencepiece does."""
    normalizers = [step["type"] for step in _steps(backend.get("normalizer"), "normalizers")]
    metaspace = [step for step in _steps(backend.get("pre_tokenizer"), "pretokenizers") if step["type"] == "Metaspace"]
    return "Prepend" in normalizers or any(step.get("prepend_scheme") != "never" for step in metaspace)


def _scores(vocab: dict[str, int], merges: list[tuple[str, ...]], rows: int) -> list[float]:
    """A score per entry, higher for what is merged earlier.

    llama.cpp joins any two neighbours whose text together is an entry, the highest score first; Hugging Face joins the
    listed pairs only. Both agree when every way to cut an entry into two entries is listed, as it is in what is
    converted from sentencepiece.
    """
    listed = set(merges)
    scores = [0.0] * rows
    for rank, (left, right) in reversed(list(enumerate(merges))):
        scores[vocab[left + right]] = -1.0 - rank
    for text in {left + right for left, right in merges}:
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in vocab and right in vocab and (left, right) not in listed:
                raise _refused(f"{text!r} may be joined from {left!r} and {right!r}, but that merge is not listed")
    return scores
