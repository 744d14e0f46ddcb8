"""What a longer vocabulary does to texts: fewer tokens, and not a letter lost."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from tokenizers import Tokenizer

from alidade_crds.reasons import FailureReason
from alidade_trainer.failures import JobFailure

_BATCH = 1000
"""Texts that are held at once."""
_SHOWN = 60
"""Letters of a text in an error."""


@dataclass
class Measure:
    """Texts in two tokenizers, one of which extends the other. exact: texts that come back as they were."""

    texts: int = 0
    characters: int = 0
    tokens_before: int = 0
    tokens_after: int = 0
    exact_before: int = 0
    exact_after: int = 0


def measure(before: Tokenizer, after: Tokenizer, texts: Iterable[str]) -> Measure:
    """Counts over all texts, control tokens that a tokenizer puts around them not counted.

    Raises JobFailure (VocabularyInvalid) when a text comes back changed that came back as it was before.
    """
    found = Measure()
    left = iter(texts)
    while group := list(islice(left, _BATCH)):
        old, old_texts = _there_and_back(before, group)
        new, new_texts = _there_and_back(after, group)
        for text, one, other in zip(group, old_texts, new_texts, strict=True):
            found.exact_before += one == text
            found.exact_after += other == text
            if one == text != other:
                raise JobFailure(
                    FailureReason.VOCABULARY_INVALID,
                    f"The longer vocabulary changes the text {text[:_SHOWN]!r}, which comes back from its tokens as "
                    f"{other[:_SHOWN]!r}. Leave out the pieces it consists of.",
                )
        found.texts += len(group)
        found.characters += sum(map(len, group))
        found.tokens_before += old
        found.tokens_after += new
    return found


def _there_and_back(tokenizer: Tokenizer, texts: list[str]) -> tuple[int, list[str]]:
    """Tokens of the texts, and what they are read back as."""
    encoded = [one.ids for one in tokenizer.encode_batch(texts, add_special_tokens=False)]
    return sum(map(len, encoded)), list(tokenizer.decode_batch(encoded, skip_special_tokens=False))
