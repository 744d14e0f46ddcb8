"""A base tokenizer with the pieces that a job asks for, checked and accounted for."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from alidade_crds.blocks import VocabularySource
from alidade_crds.reasons import FailureReason
from alidade_engine.digests import file_digest
from alidade_engine.models import load_tokenizer
from alidade_engine.sources import Locations
from alidade_trainer.failures import JobFailure
from alidade_trainer.vocabulary.alphabets import Alphabet, ByteLevel, alphabet_of, normalized
from alidade_trainer.vocabulary.learning import learn_pieces
from alidade_trainer.vocabulary.measuring import measure
from alidade_trainer.vocabulary.merging import GrowingVocabulary, Growth
from alidade_trainer.vocabulary.pieces import FIELD, pieces_file, read_pieces

_NAMED = 5
"""Pieces that a message names."""


@dataclass(frozen=True)
class Pieces:
    """What is to be added. source: an address, or `dataset`; digest: sha256 of its file, None for what was learned."""

    contents: list[bytes]
    source: str
    digest: str | None = None


def extend_tokenizer(
    tokenizer: PreTrainedTokenizerBase,
    source: VocabularySource,
    texts: Callable[[], Iterable[str]],
    locations: Locations,
) -> tuple[PreTrainedTokenizerBase, dict[str, Any]]:
    """The tokenizer with new entries behind all that it had, and a report of them as JSON can hold it.

    texts: the dataset's texts, which may be asked for more than once. Raises JobFailure (VocabularyInvalid) for a kind
    of tokenizer that is not extended, for pieces that clash with its control tokens, for no new piece at all, and when
    a base entry, a piece or a text would be lost.
    """
    base = backend_of(tokenizer)
    state = json.loads(base.to_str())
    alphabet = alphabet_of(state)
    special = {token["content"] for token in state["added_tokens"]}
    pieces = _pieces(source, base, alphabet, texts, locations)
    if source.uri is not None:
        _refuse_clashes(pieces, special)
    kept, left_out = _writable(pieces.contents, base, alphabet, special)
    growing = GrowingVocabulary(state["model"], joins_any=alphabet.joins_any, most=source.size)
    growth = growing.add_all(alphabet.letters(content) for content in kept)
    if not growth.entries:
        raise JobFailure(
            FailureReason.VOCABULARY_INVALID,
            f"vocabulary adds nothing: of {len(pieces.contents)} pieces of {pieces.source} {growth.known} are entries "
            f"of the base's tokenizer already, and {len(left_out)} can never come out of it. Leave vocabulary out.",
        )
    extended = _written(tokenizer, state, growth.entries, growing.merges())
    _refuse_losses(base, backend_of(extended), growth)
    measured = measure(base, backend_of(extended), texts())
    report = {
        "source": pieces.source,
        "digest": pieces.digest,
        "entries_before": len(tokenizer),
        "entries": len(extended),
        "pieces": growth.pieces,
        "joints": len(growth.joints),
        "known": growth.known,
        "over": growth.over,
        "left_out": len(left_out),
        **asdict(measured),
    }
    return extended, report | {"warnings": _sentences(growth, left_out, pieces)}


def backend_of(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """The library's tokenizer inside. Raises JobFailure (VocabularyInvalid) for one that is Python alone."""
    if not tokenizer.is_fast:
        raise JobFailure(
            FailureReason.VOCABULARY_INVALID,
            f"vocabulary is set, but the base's tokenizer ({type(tokenizer).__name__}) has no tokenizer.json; convert "
            "it to a fast one, or leave vocabulary out.",
        )
    backend: Tokenizer = tokenizer.backend_tokenizer
    return backend


def _pieces(
    source: VocabularySource,
    base: Tokenizer,
    alphabet: Alphabet,
    texts: Callable[[], Iterable[str]],
    locations: Locations,
) -> Pieces:
    if source.uri is None:
        assert source.size is not None, "the schema asks for a size"
        return Pieces(learn_pieces(base, alphabet, texts(), source.size), "dataset")
    file = pieces_file(locations.resolve_vocabulary(source.uri, field=FIELD))
    return Pieces(read_pieces(file), source.uri, f"sha256:{file_digest(file)}")


def _refuse_clashes(pieces: Pieces, special: set[str]) -> None:
    """A piece that is written like a control token would let plain text end a turn."""
    clashing = sorted({content.decode(errors="replace") for content in pieces.contents} & special)
    if clashing:
        raise JobFailure(
            FailureReason.VOCABULARY_INVALID,
            f"{FIELD} is {pieces.source}, of whose pieces {len(clashing)} clash with tokens that the base's tokenizer "
            f"keeps apart from text: {_names(clashing)}. Take them out of the vocabulary.",
        )


def _writable(
    contents: list[bytes], base: Tokenizer, alphabet: Alphabet, special: set[str]
) -> tuple[list[bytes], list[str]]:
    """Pieces that the base can write, and those that its normalization and splitting never leave in one word."""
    kept: list[bytes] = []
    left_out: list[str] = []
    for content in contents:
        entry = alphabet.entry(content)
        if entry is None or entry in special:
            continue
        if _stays_whole(entry, content, base, alphabet):
            kept.append(content)
        else:
            left_out.append(content.decode(errors="replace"))
    return kept, left_out


def _stays_whole(entry: str, content: bytes, base: Tokenizer, alphabet: Alphabet) -> bool:
    try:
        text = normalized(base, content.decode())
    except UnicodeDecodeError:  # a part of a letter, which nothing splits
        return isinstance(alphabet, ByteLevel)
    if base.pre_tokenizer is None:
        return text.endswith(entry)
    words = base.pre_tokenizer.pre_tokenize_str(text)
    return len(words) == 1 and words[0][0].endswith(entry)  # a space may have been put in front


def _written(
    tokenizer: PreTrainedTokenizerBase, state: dict[str, Any], entries: list[str], merges: list[list[str]]
) -> PreTrainedTokenizerBase:
    """The tokenizer with a longer tokenizer.json, read back from a folder as everybody will read it."""
    vocab = state["model"]["vocab"]
    # Without the added tokens among them the ids would have gaps, into which later tokens would be put again.
    vocab |= {token["content"]: token["id"] for token in state["added_tokens"]}
    first = max(vocab.values()) + 1
    vocab |= {entry: first + number for number, entry in enumerate(entries)}
    state["model"]["merges"] = merges
    with TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save_pretrained(folder)
        (folder / "tokenizer.json").write_text(json.dumps(state, ensure_ascii=False), "utf-8")
        return load_tokenizer(folder)


def _refuse_losses(base: Tokenizer, extended: Tokenizer, growth: Growth) -> None:
    """Raises JobFailure unless old entries have their ids and tokens, and each new one is a token of its own."""
    before, after = base.get_vocab(), extended.get_vocab()
    moved = [entry for entry, number in before.items() if after.get(entry) != number]
    entries = sorted(after, key=lambda entry: after[entry])
    doubled = [one for one, other in pairwise(entries) if after[one] == after[other]]
    plain = before.keys() - {token.content for token in base.get_added_tokens_decoder().values()}
    # An entry that its own text does not lead to, such as <0x0A>, may well be cut otherwise.
    recut = [entry for entry in plain if _ids(base, entry) == [before[entry]] != _ids(extended, entry)]
    lost = [entry for entry in growth.entries if _ids(extended, entry) != [after.get(entry)]]
    for what, found in (("moved", moved), ("doubled", doubled), ("cut otherwise", recut), ("never reached", lost)):
        if found:
            raise JobFailure(
                FailureReason.VOCABULARY_INVALID,
                f"vocabulary cannot be merged into the base's tokenizer: {len(found)} entries would be {what}, such "
                f"as {_names(found)}. Take pieces with these letters out of the vocabulary.",
            )


def _ids(tokenizer: Tokenizer, entry: str) -> list[int]:
    return [token.id for token in tokenizer.model.tokenize(entry)]


def _sentences(growth: Growth, left_out: list[str], pieces: Pieces) -> list[str]:
    """What a person should know of a vocabulary that was given; of what was learned more candidates are left out."""
    if pieces.digest is None:
        return []
    said = []
    if left_out:
        said.append(
            f"{len(left_out)} pieces of {pieces.source} are left out, since the base's tokenizer changes or splits "
            f"them: {_names(left_out)}."
        )
    if growth.over:
        said.append(f"{growth.over} pieces of {pieces.source} are left out: vocabulary.extendWith.size has no room.")
    return said


def _names(pieces: list[str]) -> str:
    return ", ".join(repr(piece) for piece in pieces[:_NAMED]) + (", …" if len(pieces) > _NAMED else "")
