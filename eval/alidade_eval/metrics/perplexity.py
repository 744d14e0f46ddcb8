"""How surprised a model is by texts."""

import math
from collections.abc import Sequence

import numpy as np

from alidade_engine.perplexity import MOST_NATS
from alidade_eval.measures import Statistics


def perplexity_statistics(nats: Sequence[float], tokens: Sequence[int], texts: Sequence[str]) -> Statistics:
    """(texts, 3): negated log-likelihood in nats, tokens, and UTF-8 bytes of each text."""
    return np.array([nats, tokens, [len(text.encode()) for text in texts]], dtype=np.float64).T


def perplexity(sums: Statistics, _samples: int) -> Statistics:
    """(...,) e to the mean surprise of a token, of (..., 3) sums."""
    return np.asarray(np.exp(np.minimum(sums[..., 0] / sums[..., 1], MOST_NATS)))


def bits_per_byte(sums: Statistics, _samples: int) -> Statistics:
    """(...,) bits of surprise per byte of text, of (..., 3) sums: comparable between tokenizers."""
    return np.asarray(sums[..., 0] / (sums[..., 2] * math.log(2)))
