"""How many different things a set of answers says (the measures of LMFlow's table 5; Dong et al. 2023).

Words are those of `words`: Chinese counts by sign.
"""

from collections import Counter
from collections.abc import Sequence

from alidade_eval.metrics.words import words

SEGMENT = 100


def msttr(texts: Sequence[Sequence[str]], segment: int = SEGMENT) -> float:
    """Mean segmental type-token ratio (Johnson 1944): different words over words, mean over segments of equal length.

    texts: (words,) of each. The texts are read one after the other; what is left over after the last whole segment is
    not counted. Where there is no whole segment, the ratio of all words there are; 0 without any.
    """
    line = [word for text in texts for word in text]
    whole = [line[start : start + segment] for start in range(0, len(line) - segment + 1, segment)] or [line]
    ratios = [len(set(part)) / len(part) for part in whole if part]
    return sum(ratios) / len(ratios) if ratios else 0.0


def ngrams(texts: Sequence[Sequence[str]], n: int) -> Counter[tuple[str, ...]]:
    """How often each n-gram comes; none reaches from one text into the next."""
    return Counter(tuple(text[start : start + n]) for text in texts for start in range(len(text) - n + 1))


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Different n-grams over all n-grams (Li et al. 2016); 0 without any."""
    counts = ngrams(texts, n)
    return len(counts) / counts.total() if counts else 0.0


def unique(texts: Sequence[Sequence[str]], n: int) -> float:
    """Number of n-grams that come exactly once."""
    return float(sum(count == 1 for count in ngrams(texts, n).values()))


def lengths(texts: Sequence[Sequence[str]]) -> list[float]:
    """Words of each text."""
    return [float(len(text)) for text in texts]


__all__ = ["SEGMENT", "distinct", "lengths", "msttr", "ngrams", "unique", "words"]
