"""ROUGE (Lin 2004), by rouge-score with words of ours: the library's own tokenizer drops whatever is not ASCII."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from alidade_eval.metrics.words import words

KINDS = ("rouge1", "rouge2", "rougeL")


class Words:
    """Words, and single signs of scripts without spaces."""

    def tokenize(self, text: str) -> list[str]:
        """As the library's tokenizers do, by `words`."""
        return words(text)


def rouge_scores(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, NDArray[np.float64]]:
    """(answers,) F1 from 0 to 1 of rouge1, rouge2 and rougeL, each of the reference that fits best."""
    from rouge_score.rouge_scorer import RougeScorer  # most of a second, for the parts of nltk

    scorer = RougeScorer(list(KINDS), tokenizer=Words())
    rows = [scorer.score_multi(list(own), answer) for answer, own in zip(answers, references, strict=True)]
    return {kind: np.array([row[kind].fmeasure for row in rows], dtype=np.float64) for kind in KINDS}
