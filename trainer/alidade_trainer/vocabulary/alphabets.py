"""How a BPE tokenizer writes bytes as entries of its vocabulary.

Pieces are compared as the bytes that they stand for, since a piece of one kind of tokenizer is added to another.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any
from unicodedata import category

from tokenizers import Regex, Tokenizer, pre_tokenizers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from alidade_crds.reasons import FailureReason
from alidade_trainer.failures import JobFailure

SPACE = "▁"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
# Where sentencepiece cuts text before it learns pieces: at spaces, between scripts, around each digit.
_EAST_ASIAN = r"[\p{Han}\p{Hiragana}\p{Katakana}ー]"
_WORDS = (
    rf" ?{_EAST_ASIAN}+| ?(?:(?!{_EAST_ASIAN})[\p{{L}}\p{{M}}])+| ?\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+|\s+(?!\S)|\s+"
)


class Alphabet(ABC):
    """One way of writing."""

    joins_any: bool
    """Whether any two neighbours that make an entry are joined, as sentencepiece does, or listed pairs only."""

    @abstractmethod
    def entry(self, content: bytes) -> str | None:
        """The entry that stands for some bytes; None where no single entry could."""

    @abstractmethod
    def content(self, entry: str) -> bytes:
        """The bytes that an entry stands for."""

    def letters(self, content: bytes) -> list[str]:
        """Some bytes as entries for one letter each; parts of letters by the byte."""
        try:
            parts = [letter.encode() for letter in content.decode()]
        except UnicodeDecodeError:
            parts = [bytes([byte]) for byte in content]
        return [entry for part in parts if (entry := self.entry(part)) is not None]

    @abstractmethod
    def words(self, backend: Tokenizer, text: str) -> Iterator[str]:
        """A text cut into the words that pieces are learned within, in the entries' writing."""


class ByteLevel(Alphabet):
    """Each byte is a letter of its own (GPT-2, Llama 3, Qwen)."""

    joins_any = False

    def __init__(self) -> None:
        self._letters: dict[int, str] = bytes_to_unicode()
        self._bytes = {letter: byte for byte, letter in self._letters.items()}

    def entry(self, content: bytes) -> str | None:
        return "".join(self._letters[byte] for byte in content)

    def content(self, entry: str) -> bytes:
        if all(letter in self._bytes for letter in entry):
            return bytes(self._bytes[letter] for letter in entry)
        return entry.encode()  # an added token, which is written as it is

    def words(self, backend: Tokenizer, text: str) -> Iterator[str]:
        return (word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normalized(backend, text)))


class Spaced(Alphabet):
    """Letters as they are, spaces as ▁, and tokens such as <0xE5> for what no entry has (sentencepiece, Llama 2)."""

    joins_any = True

    def __init__(self) -> None:
        self._split = pre_tokenizers.Split(Regex(_WORDS), "isolated")

    def entry(self, content: bytes) -> str | None:
        try:
            text = content.decode()
        except UnicodeDecodeError:  # a part of a letter
            return None
        # A line break and its like stay tokens for bytes, as models of this kind know them.
        return None if any(category(letter) == "Cc" for letter in text) else text.replace(" ", SPACE)

    def content(self, entry: str) -> bytes:
        byte = _BYTE.fullmatch(entry)
        return bytes.fromhex(byte[1]) if byte else entry.replace(SPACE, " ").encode()

    def words(self, backend: Tokenizer, text: str) -> Iterator[str]:
        del backend  # which takes a whole text as one word
        return (word.replace(" ", SPACE) for word, _ in self._split.pre_tokenize_str(text))


def is_byte_token(entry: str) -> bool:
    """Whether an entry is one of sentencepiece's tokens for single bytes."""
    return _BYTE.fullmatch(entry) is not None


def normalized(backend: Tokenizer, text: str) -> str:
    """What a tokenizer makes of a text before it splits it."""
    return str(backend.normalizer.normalize_str(text)) if backend.normalizer is not None else text


def alphabet_of(state: dict[str, Any]) -> Alphabet:
    """The way a tokenizer.json writes. Raises JobFailure (VocabularyInvalid) for kinds that are not extended."""
    model = state["model"]
    kind = model.get("type")
    plain = not any(model.get(name) for name in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"))
    if kind == "BPE" and plain:
        if any(step["type"] == "ByteLevel" for step in _steps(state.get("pre_tokenizer"))):
            return ByteLevel()
        if model.get("byte_fallback"):
            return Spaced()
    raise JobFailure(
        FailureReason.VOCABULARY_INVALID,
        f"vocabulary is set, but the base's tokenizer is of kind {kind or 'unknown'}; extended are byte-level BPE (as "
        "GPT-2, Llama 3, Qwen) and sentencepiece's BPE with byte fallback (as Llama 2, Mistral). Leave vocabulary out.",
    )


def _steps(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    if part is None:
        return []
    return list(part["pretokenizers"]) if part["type"] == "Sequence" else [part]
