"""Best-fit packing, against its rules and against a plain search."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alidade_trainer.data.packing import best_fit


def by_search(lengths: list[int], capacity: int) -> list[int]:
    """Sums of the bins that a search through all bins for the fullest with room gives."""
    sums: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [place for place, used in enumerate(sums) if used + length <= capacity]
        if fitting:
            sums[max(fitting, key=lambda place: sums[place])] += length
        else:
            sums.append(length)
    return sums


def packed(lengths: list[int], capacity: int) -> list[list[int]]:
    """The bins, each a list of indices."""
    order, bounds = best_fit(np.array(lengths, dtype=np.int64), capacity)
    return [order[start:end].tolist() for start, end in pairwise(bounds)]


@given(st.lists(st.integers(1, 64), max_size=200), st.integers(64, 200))
def test_every_sample_is_in_one_bin_and_none_overflows(lengths: list[int], capacity: int) -> None:
    bins = packed(lengths, capacity)
    assert sorted(index for group in bins for index in group) == list(range(len(lengths)))
    sums = [sum(lengths[index] for index in group) for group in bins]
    assert all(used <= capacity for used in sums)
    assert sorted(sums) == sorted(by_search(lengths, capacity))


def test_a_hand_worked_case() -> None:
    # 9 alone leaves 1; 6 leaves 4, which 4 fills; 5 leaves 5: 3 and 2 fill it.
    assert packed([4, 9, 5, 6, 3, 2], 10) == [[1], [3, 0], [2, 4, 5]]


def test_a_sample_longer_than_a_bin_is_refused() -> None:
    with pytest.raises(ValueError, match="a length of 11 does not fit into 10"):
        best_fit(np.array([3, 11]), 10)


def test_short_samples_are_packed_almost_without_gaps() -> None:
    lengths = np.random.default_rng(0).integers(5, 120, 5000)
    _, bounds = best_fit(lengths, 1024)
    assert lengths.sum() / ((len(bounds) - 1) * 1024) > 0.995
