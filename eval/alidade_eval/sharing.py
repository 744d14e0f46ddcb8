"""How processes share the samples of an evaluation: by their place, and through the output folder."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from alidade_crds.contract import WORKER_INDEX_ENV
from alidade_eval.places import PROCESS_ENV

POLL_S = 0.5
SAID_EVERY_S = 60.0


@dataclass(frozen=True)
class Share:
    """The part of a process: every count-th sample, beginning with the number-th."""

    number: int
    count: int

    @classmethod
    def of_environment(cls, *, workers: int, processes: int, environment: Mapping[str, str] = os.environ) -> "Share":
        """By the pod's place in its Job, and the process's in its pod."""
        worker = int(environment.get(WORKER_INDEX_ENV, "0"))
        return cls(worker * processes + int(environment.get(PROCESS_ENV, "0")), workers * processes)

    @property
    def is_first(self) -> bool:
        """Whether this process brings the results together."""
        return self.number == 0

    def part(self, places: Sequence[int]) -> list[int]:
        """Those of the places that are this process's."""
        return [place for place in places if place % self.count == self.number]


def wait_for(missing: Callable[[], int], *, check: Callable[[], None], say: Callable[[str], None]) -> None:
    """Waits until other processes have written what is missing. check: raises when this process is to stop.

    It waits for as long as it takes: when another pod fails, its Job ends this one.
    """
    said = time.monotonic()
    while (count := missing()) > 0:
        check()
        if time.monotonic() - said > SAID_EVERY_S:
            say(f"Waiting for {count} samples of the other workers.")
            said = time.monotonic()
        time.sleep(POLL_S)
