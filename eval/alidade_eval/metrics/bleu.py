"""BLEU (Papineni et al. 2002), by sacrebleu."""

from collections.abc import Sequence

import numpy as np
from sacrebleu.metrics.bleu import BLEU

from alidade_eval.measures import Statistics
from alidade_eval.metrics.words import is_chinese

ORDER = 4


def tokenizer_for(references: Sequence[Sequence[str]]) -> str:
    """sacrebleu's tokenizer: zh, which counts Chinese by sign, where the references are mostly Chinese, else 13a."""
    return "zh" if is_chinese([reference for own in references for reference in own]) else "13a"


def bleu_statistics(
    answers: Sequence[str], references: Sequence[Sequence[str]], *, tokenizer: str | None = None
) -> Statistics:
    """(answers, 10): lengths of answer and closest reference, then matching and all n-grams of orders 1 to 4.

    Summed over the answers, and given to `bleu`, they make corpus BLEU. tokenizer: one of sacrebleu's;
    `tokenizer_for` unless given.
    """
    # Which orders count decides a sentence's score only, which is not used; this spares a warning for each of them.
    metric = BLEU(tokenize=tokenizer or tokenizer_for(references), effective_order=True)
    scores = [metric.sentence_score(answer, list(own)) for answer, own in zip(answers, references, strict=True)]
    rows = [[score.sys_len, score.ref_len, *score.counts, *score.totals] for score in scores]
    return np.array(rows, dtype=np.float64).reshape(len(answers), 2 + 2 * ORDER)


def bleu(sums: Statistics, _samples: int) -> Statistics:
    """(...,) corpus BLEU from 0 to 100 of (..., 10) sums of statistics, smoothed as sacrebleu does by default.

    Where an order has no match at all, its precision is 1/(2^k n) for the k-th such order (smoothing "exp").
    """
    answer, reference = sums[..., 0], sums[..., 1]
    matches, counts = sums[..., 2 : 2 + ORDER], sums[..., 2 + ORDER :]
    unmatched = matches == 0
    smoothed = np.where(unmatched, 0.5 ** np.cumsum(unmatched, axis=-1), matches)
    precisions = smoothed / np.maximum(counts, 1)
    brevity = np.where(answer < reference, np.exp(1 - reference / np.maximum(answer, 1e-9)), 1.0)
    score = 100 * brevity * np.exp(np.log(precisions).mean(-1))
    # As the library: nothing matches, or no answer has four words, then nothing is scored.
    empty = (matches.sum(-1) == 0) | (counts == 0).any(-1) | (answer == 0)
    return np.asarray(np.where(empty, 0.0, score))
