"""Pieces of a vocabulary that somebody else made: a sentencepiece model, or a tokenizer.json."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alidade_crds.reasons import FailureReason
from alidade_trainer.failures import JobFailure
from alidade_trainer.vocabulary.alphabets import Alphabet, ByteLevel, Spaced, is_byte_token

FIELD = "vocabulary.extendWith.uri"
_NAMES = ("tokenizer.json", "tokenizer.model", "*.model")


def pieces_file(path: Path) -> Path:
    """The file of a vocabulary, which may be named by its folder. Raises JobFailure (VocabularyInvalid) without any."""
    if path.is_file():
        return path
    found = [file for name in _NAMES for file in sorted(path.glob(name))]
    if not found:
        raise _refused(path, "it is a folder without tokenizer.json and without a sentencepiece model (*.model)")
    return found[0]


def read_pieces(path: Path) -> list[bytes]:
    """What the pieces of a file stand for, each once, the ones to be joined first at the front.

    Control tokens, the unknown token and tokens for single bytes are left out. Raises JobFailure (VocabularyInvalid).
    """
    pieces = _of_tokenizer(path) if path.suffix == ".json" else _of_sentencepiece(path)
    return list(dict.fromkeys(piece for piece in pieces if piece))


def _of_sentencepiece(path: Path) -> Iterator[bytes]:
    from sentencepiece import SentencePieceProcessor  # only jobs that name such a file pay for loading it

    # The kinds of sentencepiece order their pieces alike: BPE by merge, unigram by probability.
    try:
        processor = SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise _refused(path, "sentencepiece cannot read it") from error
    alphabet = Spaced()
    for number in range(processor.get_piece_size()):
        left_out = (processor.is_control, processor.is_unknown, processor.is_byte, processor.is_unused)
        if not any(test(number) for test in left_out):
            yield alphabet.content(processor.id_to_piece(number))


def _of_tokenizer(path: Path) -> Iterator[bytes]:
    try:
        state: dict[str, Any] = json.loads(path.read_text("utf-8"))
        model, kind = state["model"], state["model"]["type"]
    except (ValueError, KeyError, TypeError) as error:
        raise _refused(path, "it is not a tokenizer.json of the library tokenizers") from error
    if kind not in ("BPE", "Unigram") or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise _refused(path, f"its kind is {kind} with marks inside words; BPE and Unigram are read")
    alphabet: Alphabet = ByteLevel() if "ByteLevel" in json.dumps(state.get("pre_tokenizer")) else Spaced()
    special = {token["content"] for token in state.get("added_tokens") or []}
    if kind == "Unigram":
        entries = [text for number, (text, _) in enumerate(model["vocab"]) if number != model.get("unk_id")]
    else:
        entries = sorted(model["vocab"], key=model["vocab"].__getitem__)
    for entry in entries:
        if entry not in special and entry != model.get("unk_token") and not is_byte_token(entry):
            yield alphabet.content(entry)


def _refused(path: Path, why: str) -> JobFailure:
    return JobFailure(
        FailureReason.VOCABULARY_INVALID,
        f"{FIELD} leads to {path}, which cannot be used: {why}. Name a sentencepiece model (.model), a tokenizer.json "
        "of kind BPE or Unigram, or a folder with one of them.",
    )
