"""Which sequences each process reads in each step: a function of the step alone, so that resuming needs no memory "
"of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alidade_trainer.loss import IGNORED, count_learned

Item = Mapping[str, Any]


class Sequences(Protocol):
    """Tokenised sequences; each item has input_ids and labels of the same length, and its width where it is of several
    rows: the length of the longest, to which a batch is padded."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any: ...


Collate = Callable[[Sequence[Any]], dict[str, Tensor]]


@dataclass(frozen=True)
class MicroBatch:
    """What one process reads in one pass."""

    tensors: dict[str, Tensor]
    """Arguments of the model, and labels; (sequences, tokens) each."""
    tokens: int
    """Tokens that are not padding."""
    learned: int
    """Tokens that carry loss."""


class BatchStream:
    """The micro-batches of one process.

    The sequences stand in an endless row, shuffled anew for every epoch; step i reads those from i x globalBatchSize
    on, later by what is passed over, so every step has the same number of them and an epoch may end within a step.
    Within a step the sequences are sorted by length before they are dealt out: a micro-batch needs less padding and
    processes get equal work, while the step's gradient, normalised over the whole step, stays the same whatever the
    processes and micro-batches are.
    """

    def __init__(
        self,
        sequences: Sequences,
        collate: Collate,
        *,
        order: Callable[[int, int], NDArray[np.int64]],
        global_batch_size: int,
        micro_batch_size: int,
        rank: int,
        processes: int,
        passed_over: Callable[[int], int] = lambda _step: 0,
    ) -> None:
        """order: the order of the sequences in an epoch, of the epoch and the number of sequences alone.

        passed_over: steps' worth of sequences that are left out before a step.
        """
        self._passed_over = passed_over
        self._sequences = sequences
        self._collate = collate
        self._epoch_order = order
        self._global_batch_size = global_batch_size
        self._micro_batch_size = micro_batch_size
        self._rank = rank
        self._processes = processes
        self._order_epoch: int | None = None
        self._order: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def indices(self, step: int) -> list[int]:
        """The sequences of one step over all processes, in the order of the shuffled row; steps count from 0."""
        count = len(self._sequences)
        first = (step + self._passed_over(step)) * self._global_batch_size
        return [self._at(place // count, place % count) for place in range(first, first + self._global_batch_size)]

    def step(self, step: int) -> list[MicroBatch]:
        """What this process reads in one step."""
        items = sorted((self._sequences[index] for index in self.indices(step)), key=_width, reverse=True)
        return [collated(group, self._collate) for group in self._dealt(items)]

    def _at(self, epoch: int, place: int) -> int:
        if self._order_epoch != epoch:
            self._order = self._epoch_order(epoch, len(self._sequences))
            self._order_epoch = epoch
        return int(self._order[place])

    def _dealt(self, items: list[Item]) -> Iterator[list[Item]]:
        """This process's share of a step: neighbours in length go to all processes at once, one micro-batch each."""
        stride = self._micro_batch_size * self._processes
        for first in range(0, len(items), stride):
            start = first + self._rank * self._micro_batch_size
            yield items[start : start + self._micro_batch_size]


def evaluation_batches(
    sequences: Sequences, collate: Collate, *, micro_batch_size: int, rank: int, processes: int
) -> Iterator[MicroBatch]:
    """This process's share of one pass over held-out sequences.

    Every process gets as many batches, since under ZeRO-3 they compute together; one too many carries no loss.
    """
    stride = micro_batch_size * processes
    for first in range(0, len(sequences), stride):
        start = first + rank * micro_batch_size
        chosen = [sequences[index] for index in range(start, min(start + micro_batch_size, len(sequences)))]
        yield collated(chosen, collate) if chosen else _without_loss(collated([sequences[0]], collate))


def collated(items: Sequence[Item], collate: Collate) -> MicroBatch:
    """The items as one batch; where nothing says which tokens are learned, each item weighs one."""
    tensors = collate(items)
    learned = count_learned(tensors["labels"]) if "labels" in tensors else len(items)
    return MicroBatch(tensors, tokens=sum(map(_length, items)), learned=learned)


def _without_loss(batch: MicroBatch) -> MicroBatch:
    labels = torch.full_like(batch.tensors["labels"], IGNORED)
    return MicroBatch(batch.tensors | {"labels": labels}, tokens=0, learned=0)


def _width(item: Item) -> int:
    width: int = item.get("width", _length(item))
    return width


def _length(item: Item) -> int:
    return len(item["input_ids"])
