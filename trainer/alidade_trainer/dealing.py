"""Work dealt out to the processes in groups of like length."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Group(Generic[T]):
    """What one process computes in one pass.

    places: of the items among all. is_filler: whether it only keeps this process in step with the others, which under
    ZeRO-3 compute together; its results count for nothing.
    """

    items: list[T]
    places: list[int]
    is_filler: bool = False


def dealt(
    items: Sequence[T], length: Callable[[T], int], *, group_size: int, rank: int, processes: int
) -> list[Group[T]]:
    """This process's groups of at most group_size items, the longest first; every process has as many groups.

    Neighbours in length go to all processes at once, so that passes need little padding and take equally long.
    """
    order = sorted(range(len(items)), key=lambda place: -length(items[place]))
    groups = []
    for first in range(rank * group_size, len(order) + rank * group_size, group_size * processes):
        places = order[first : first + group_size]
        if places:
            groups.append(Group([items[place] for place in places], places))
        elif first - rank * group_size < len(order):
            groups.append(Group([items[order[-1]]], [order[-1]], is_filler=True))
    return groups
