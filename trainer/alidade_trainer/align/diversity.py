"""How many different things a set of answers says."""

from collections.abc import Sequence


def distinct_ngrams(answers: Sequence[Sequence[int]], n: int = 2) -> float:
    """Different n-grams over all n-grams of the answers' tokens (Li et al. 2016): 1 when none comes twice.

    answers: token ids. 0 when no answer has n tokens.
    """
    grams = [tuple(answer[start : start + n]) for answer in answers for start in range(len(answer) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0
