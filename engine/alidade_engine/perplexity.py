"""Perplexity: e to the mean surprise of a token."""

import math

MOST_NATS = 700.0
"""e to it is about the most a float can hold."""


def perplexity_of(nats: float) -> float:
    """Of a mean surprise in nats per token; of more than MOST_NATS as of these."""
    return math.exp(min(nats, MOST_NATS))
