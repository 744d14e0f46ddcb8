"""What the training processes of a job tell one another."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import distributed

from alidade_trainer.failures import JobFailure

T = TypeVar("T")


@dataclass(frozen=True)
class Peers:
    """This process among all of them. Every method is called by all processes, in the same order."""

    rank: int
    count: int
    """Processes of the job."""
    local_rank: int
    local_count: int
    """Processes of this pod."""
    device: torch.device

    @classmethod
    def from_environment(cls, *, on_gpu: bool) -> "Peers":
        """As torch elastic or the launcher has numbered the processes."""
        local_rank = int(os.environ["LOCAL_RANK"])
        return cls(
            rank=int(os.environ["RANK"]),
            count=int(os.environ["WORLD_SIZE"]),
            local_rank=local_rank,
            local_count=int(os.environ["LOCAL_WORLD_SIZE"]),
            device=torch.device("cuda", local_rank) if on_gpu else torch.device("cpu"),
        )

    @property
    def is_first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each number summed over the processes."""
        totals = torch.tensor(values, dtype=torch.float64, device=self.device)
        if self.count > 1:
            distributed.all_reduce(totals)
        return [float(total) for total in totals.tolist()]

    def gather(self, value: Any) -> list[Any]:
        """The value of each process, in order of rank, on every process."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def from_first(self, value: Any) -> Any:
        """The value of the first process, on every process."""
        if self.count == 1:
            return value
        holder = [value]
        distributed.broadcast_object_list(holder, src=0)
        return holder[0]

    def agree(self, work: Callable[[], T]) -> T:
        """The result of each process's own work, once all have done theirs.

        A JobFailure of one becomes that of all, so that every pod can say why the job ended.
        """
        failure: JobFailure | None = None
        result: T | None = None
        try:
            result = work()
        except JobFailure as error:
            failure = error
        failures = [one for one in self.gather(failure) if one is not None]
        if failures:
            raise failures[0]
        return cast(T, result)

    def wait(self) -> None:
        """Goes on when all processes have come here."""
        if self.count > 1:
            distributed.barrier()
