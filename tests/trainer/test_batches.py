"""Which process reads which sequences."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alidade_trainer.batches import BatchStream, evaluation_batches
from alidade_trainer.data.dataset import Collator, epoch_order
from alidade_trainer.loss import IGNORED, count_learned
from alidade_trainer.reward.comparisons import Comparison, ComparisonCollator, Comparisons


def sequences(count: int) -> list[dict[str, Any]]:
    """Sequence i has i + 2 tokens, all of them i."""
    return [
        {"input_ids": ids, "labels": ids, "position_ids": torch.arange(number + 2).numpy()}
        for number in range(count)
        for ids in [torch.full((number + 2,), number).numpy()]
    ]


def stream(
    count: int,
    batch: int,
    micro: int,
    *,
    rank: int = 0,
    processes: int = 1,
    passed_over: Callable[[int], int] = lambda _step: 0,
) -> BatchStream:
    return BatchStream(
        sequences(count),
        Collator(99, packed=False),
        order=partial(epoch_order, 5),
        global_batch_size=batch,
        micro_batch_size=micro,
        rank=rank,
        processes=processes,
        passed_over=passed_over,
    )


def test_every_sequence_is_read_once_in_each_epoch_also_when_an_epoch_ends_within_a_step() -> None:
    read = [index for step in range(5) for index in stream(10, 4, 4).indices(step)]

    assert sorted(read[:10]) == sorted(read[10:]) == list(range(10))
    assert read[:10] == list(epoch_order(5, 0, 10))
    assert read[:10] != read[10:]


@pytest.mark.parametrize(("micro", "processes"), [(1, 1), (2, 2), (1, 4), (4, 2)])
def test_processes_share_a_step_without_overlap_and_with_equal_work(micro: int, processes: int) -> None:
    shares = [stream(16, 8, micro, rank=rank, processes=processes).step(1) for rank in range(processes)]

    read = [int(row[0]) for share in shares for batch in share for row in batch.tensors["input_ids"]]
    assert sorted(read) == sorted(stream(16, 8, 8).indices(1))
    assert {len(share) for share in shares} == {8 // micro // processes}


@given(
    count=st.integers(1, 60),
    batch=st.sampled_from([4, 8]),
    world=st.sampled_from([(1, 4), (1, 1), (2, 2), (4, 1), (2, 1)]),
    start=st.integers(0, 40),
    passed=st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_any_number_of_processes_reads_the_same_from_any_step_on(
    count: int, batch: int, world: tuple[int, int], start: int, passed: int
) -> None:
    """A run that goes on with other processes from a step reads what the run before would have read."""
    processes, micro = world
    whole = stream(count, batch, batch, passed_over=lambda _step: passed)
    for step in (start, start + 1):
        read = [
            int(row[0])
            for rank in range(processes)
            for micro_batch in stream(
                count, batch, micro, rank=rank, processes=processes, passed_over=lambda _step: passed
            ).step(step)
            for row in micro_batch.tensors["input_ids"]
        ]
        assert sorted(read) == sorted(whole.indices(step))
    row = [index for step in range(start + 2) for index in stream(count, batch, batch).indices(step)]
    expected = [int(index) for epoch in range(-(-len(row) // count)) for index in epoch_order(5, epoch, count)]
    assert row == expected[: len(row)]


def test_neighbours_in_length_share_a_batch_so_that_little_is_padding() -> None:
    batches = stream(64, 64, 8).step(0)

    padded = sum(batch.tensors["input_ids"].numel() for batch in batches)
    tokens = sum(batch.tokens for batch in batches)
    assert padded / tokens < 1.13  # as they come, batches of 8 out of lengths 2 to 65 would be near 1.7


def test_comparisons_share_a_batch_with_those_whose_longest_answer_is_as_long() -> None:
    lengths = [(10, 1), (6, 6), (6, 4), (10, 3)]  # by their sums a long one would stand beside each short one
    made = [Comparison([[1] * one, [2] * other], [(0, 1)], [None], key=0) for one, other in lengths]
    stream = BatchStream(
        Comparisons(made),
        ComparisonCollator(0, use_margin=False),
        order=partial(epoch_order, 5),
        global_batch_size=4,
        micro_batch_size=2,
        rank=0,
        processes=1,
    )
    assert [batch.tensors["input_ids"].shape for batch in stream.step(0)] == [(4, 10), (4, 6)]


def test_held_out_sequences_are_each_measured_once_and_processes_get_equally_many_batches() -> None:
    shares = [
        list(evaluation_batches(sequences(5), Collator(99, packed=False), micro_batch_size=2, rank=rank, processes=2))
        for rank in range(2)
    ]

    assert [len(share) for share in shares] == [2, 2]
    # Sequence i has i + 1 tokens that something stands before.
    assert sum(batch.learned for share in shares for batch in share) == 1 + 2 + 3 + 4 + 5
    filler = shares[1][1]
    assert (filler.tokens, filler.learned) == (0, 0)
    assert bool((filler.tensors["labels"] == IGNORED).all())


def test_the_first_token_of_a_row_is_not_learned() -> None:
    assert count_learned(torch.tensor([[7, 8, IGNORED], [IGNORED, 8, 9]])) == 3
