"""Whether an answer is the expected one, and how many of its words are."""

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from alidade_engine.reward.functions import plain
from alidade_eval.metrics.words import words


def exact_match(answers: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """(answers,) 1 where the answer is one of its references as plain text (case, width, outer signs aside), else 0."""
    return _best(answers, references, lambda answer, reference: float(plain(answer) == plain(reference)))


def token_f1(answers: Sequence[str], references: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """(answers,) harmonic mean of precision and recall of the answer's words, as of SQuAD, but Chinese by sign."""
    return _best(answers, references, _f1)


def matches(answers: Sequence[str], expected: Sequence[Sequence[str]], kinds: Sequence[str]) -> NDArray[np.float64]:
    """(answers,) 1 where one of the expected answers fits in its way: exact, contains or regex."""
    found = [
        any(_FITS[kind](answer, one) for one in own) for answer, own, kind in zip(answers, expected, kinds, strict=True)
    ]
    return np.array(found, dtype=np.float64)


def _contains(answer: str, expected: str) -> bool:
    wanted = plain(expected)
    return bool(wanted) and wanted in plain(answer)


_FITS: dict[str, Callable[[str, str], bool]] = {
    "exact": lambda answer, expected: plain(answer) == plain(expected),
    "contains": _contains,
    "regex": lambda answer, expected: re.search(expected, answer) is not None,
}


def _best(
    answers: Sequence[str], references: Sequence[Sequence[str]], score: Callable[[str, str], float]
) -> NDArray[np.float64]:
    best = [max(score(answer, one) for one in own) for answer, own in zip(answers, references, strict=True)]
    return np.array(best, dtype=np.float64)


def _f1(answer: str, reference: str) -> float:
    said, wanted = words(answer), words(reference)
    if not said or not wanted:
        return float(said == wanted)
    common = sum((Counter(said) & Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted))
