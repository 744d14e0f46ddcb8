"""Text as tokens: in pieces that are told apart, and with what users wrote never taken for a control token."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from transformers import PreTrainedTokenizerBase

from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure

Piece = tuple[str, bool]
"""A part of a text, and whether the model is to produce it."""

# A private-use sign that splits what a user wrote like a control token, so that it is encoded as the plain text it is.
_BREAK = "\U000f0000"


@dataclass(frozen=True)
class Rendered:
    """A text as tokens.

    input_ids: (tokens,) ids.
    answer_mask: (tokens,) True where the model is to produce the token: answers and the token that ends each of them.
    """

    input_ids: list[int]
    answer_mask: list[bool]


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """A pattern of the tokenizer's special tokens, the longest first."""
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return _pattern(tuple(sorted({*special, *tokenizer.all_special_tokens}, key=lambda token: (-len(token), token))))


@lru_cache(maxsize=16)
def _pattern(tokens: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, tokens)) or "(?!)")


def shield(text: str, controls: re.Pattern[str]) -> str:
    """The text with a break inside each control token in it: `</s>` written by a user must not end a sequence.

    A control token of one character cannot be broken and stays one.
    """
    if _BREAK in text:
        text = text.replace(_BREAK, "")
    return controls.sub(lambda match: match[0][0] + _BREAK + match[0][1:], text)


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer itself puts its BOS token before a text."""
    if tokenizer.bos_token_id is None:
        return False
    ids: list[int] = tokenizer("a")["input_ids"]
    return bool(ids) and ids[0] == tokenizer.bos_token_id


def eos_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id of the end-of-sequence token. Raises JobFailure(ModelInvalid) when the tokenizer has none."""
    if tokenizer.eos_token_id is None:
        raise JobFailure(
            FailureReason.MODEL_INVALID,
            "The tokenizer has no end-of-sequence token, so the model could not learn to stop; set eos_token in its "
            "tokenizer_config.json.",
        )
    return int(tokenizer.eos_token_id)


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Documents as tokens: BOS where the tokenizer puts one, the text, EOS."""
    begin = [int(tokenizer.bos_token_id)] if adds_bos(tokenizer) else []
    end = [eos_id(tokenizer)]
    controls = control_tokens(tokenizer)
    encoded = encode_pieces(tokenizer, [[(shield(text, controls), True)] for text in texts])
    return [begin + document.input_ids + end for document in encoded]


def encode_pieces(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Sequence[Piece]]) -> list[Rendered]:
    """Each text's pieces as tokens one after the other, so that a text's first pieces have the tokens they have alone.

    Where a word's tokens do not depend on what stands before it (byte-level BPE), pieces are encoded apart. Otherwise
    (SentencePiece puts a space in front of every text) they are encoded together.
    """
    if not texts:
        return []
    parts = [[(part, answer) for piece, answer in pieces for part in piece.split(_BREAK)] for pieces in texts]
    return (_encode_apart if _starts_alike(tokenizer) else _encode_together)(tokenizer, parts)


def _starts_alike(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a word has the same tokens at the start of a text as behind a line break."""
    alone, behind = _ids(tokenizer, ["word", "\nword"])
    return behind[-len(alone) :] == alone


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    encoded: list[list[int]] = tokenizer(
        list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False
    )["input_ids"]
    return encoded


def _encode_apart(tokenizer: PreTrainedTokenizerBase, texts: list[list[Piece]]) -> list[Rendered]:
    encoded = iter(_ids(tokenizer, [part for pieces in texts for part, _ in pieces] or [""]))
    rendered = []
    for pieces in texts:
        ids: list[int] = []
        mask: list[bool] = []
        for _, answer in pieces:
            new = next(encoded)
            ids += new
            mask += [answer] * len(new)
        rendered.append(Rendered(ids, mask))
    return rendered


def _encode_together(tokenizer: PreTrainedTokenizerBase, texts: list[list[Piece]]) -> list[Rendered]:
    """Each text as a whole; where the tokens so far are not how the whole begins, the next piece comes behind them."""
    prefixes = iter(_ids(tokenizer, [prefix for pieces in texts for prefix in accumulate(part for part, _ in pieces)]))
    rendered = []
    for pieces in texts:
        ids: list[int] = []
        mask: list[bool] = []
        for part, answer in pieces:
            whole = next(prefixes)
            new = whole[len(ids) :] if whole[: len(ids)] == ids else _behind(tokenizer, part)
            ids += new
            mask += [answer] * len(new)
        rendered.append(Rendered(ids, mask))
    return rendered


def _behind(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The tokens of a text that does not stand at the start: those behind a line break, without the line break's."""
    before, whole = _ids(tokenizer, ["\n", "\n" + text])
    return whole[len(before) :] if whole[: len(before)] == before else _ids(tokenizer, [text])[0]
