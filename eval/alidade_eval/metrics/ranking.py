"""How high right answers stand in a ranking (Voorhees 1999; Manning et al. 2008, section 8.4)."""

from collections.abc import Sequence


def ranks(scores: Sequence[float], relevant: Sequence[bool]) -> list[int]:
    """Places of the relevant candidates from 1, best first; among equal scores a relevant one stands last.

    A model that gives all candidates the same score has not told them apart, and shall not be rewarded for their order.
    """
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], relevant[place]))
    return [rank for rank, place in enumerate(order, 1) if relevant[place]]


def reciprocal_rank(scores: Sequence[float], relevant: Sequence[bool]) -> float:
    """One over the rank of the first relevant candidate; at least one is relevant."""
    return 1.0 / ranks(scores, relevant)[0]


def average_precision(scores: Sequence[float], relevant: Sequence[bool]) -> float:
    """Mean of the precision at each relevant candidate's rank."""
    found = ranks(scores, relevant)
    return sum(number / rank for number, rank in enumerate(found, 1)) / len(found)


def first_is_relevant(scores: Sequence[float], relevant: Sequence[bool]) -> float:
    """1 where the best candidate is relevant, else 0."""
    return float(ranks(scores, relevant)[0] == 1)
