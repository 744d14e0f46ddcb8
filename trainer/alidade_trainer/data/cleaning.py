"""Filters and deduplication of records that are held as they are: preferences and prompts."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from alidade_crds.text_dataset import CleanDataset, Deduplication, DeduplicationMethod
from alidade_engine.data.records import Position
from alidade_trainer.data.encoding import fault_of_language, fault_of_length
from alidade_trainer.data.likeness import PERMUTATIONS, signature
from alidade_trainer.data.report import SourceReport
from alidade_trainer.data.selection import find_repetitions

T = TypeVar("T")


@dataclass(frozen=True)
class CleanRecords(Generic[T]):
    """Records of an address that filters let through.

    keys: (records,) uint64, equal for equal records. signatures: (records, PERMUTATIONS), see `likeness`; without rows
    where only equal records repeat one another.
    """

    records: list[T]
    keys: NDArray[np.uint64]
    signatures: NDArray[np.uint32]
    report: SourceReport


class RecordCollector(Generic[T]):
    """Takes records one after the other; those that are left out are told in the report."""

    def __init__(self, data: CleanDataset, report: SourceReport, *, is_held_out: bool) -> None:
        """is_held_out: what is measured stays what it is, and no filter holds for it."""
        self._filters = None if is_held_out else data.filters
        self._with_signatures = is_near(data.deduplication)
        self._records: list[T] = []
        self._keys = array("Q")
        self._signatures = array("I")
        self._report = report

    def add(self, record: T, position: Position, *, key: int, words: str, lengths: Sequence[int]) -> None:
        """One more. words: what it says, for its language and for likeness; lengths: in tokens, of each sequence."""
        fault = fault_of_length(self._filters, min(lengths), max(lengths)) or fault_of_language(self._filters, words)
        if fault:
            self._report.drop(fault, position)
            return
        self._report.kept += 1
        self._records.append(record)
        self._keys.append(key)
        if self._with_signatures:
            self._signatures.extend(signature(words))

    def done(self) -> CleanRecords[T]:
        """All that was let through."""
        signatures = np.array(self._signatures, dtype=np.uint32).reshape(-1, PERMUTATIONS)
        return CleanRecords(self._records, np.array(self._keys, dtype=np.uint64), signatures, self._report)


def is_near(deduplication: Deduplication | None) -> bool:
    """Whether records are compared by what they say."""
    return deduplication is not None and deduplication.method == DeduplicationMethod.NEAR


def without_repetitions(
    trained: Sequence[CleanRecords[T]], held_out: CleanRecords[T] | None, deduplication: Deduplication | None
) -> tuple[list[list[T]], int]:
    """For each dataset that is trained on, the records that repeat no earlier one; and the number of near leaks."""
    every = [*trained, *([held_out] if held_out is not None else [])]
    signatures = np.concatenate([one.signatures for one in every])
    found = find_repetitions(trained, held_out, deduplication, signatures)
    kept = [
        [record for record, repeats in zip(one.records, part, strict=True) if not repeats]
        for one, part in zip(trained, found.repeats, strict=True)
    ]
    return kept, found.near_leaks
