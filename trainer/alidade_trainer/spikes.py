"""Loss spikes: noticed, and left behind by going back to a checkpoint and passing over the data around them.

The remedy is PaLM's (Chowdhery et al. 2022, section 5.1): the same data did no harm when it came at another point, so
that it is the state and the data together that make a spike.
"""

import json
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from alidade_crds.blocks import SpikeRecovery
from alidade_crds.reasons import FailureReason
from alidade_engine.disk import write_file
from alidade_trainer.failures import JobFailure

RECOVERY_FILE = "recovery.json"


class LossSpikeError(Exception):
    """A step whose loss is a spike; the message says which and why."""

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step
        """Optimizer steps done, this one included."""


@dataclass(frozen=True)
class Rewind:
    """One time that training went back."""

    spike: int
    """Step that was the spike."""
    to: int
    """Steps done in the checkpoint that training went on from."""
    passed_over: int
    """Steps whose data is left out from there."""
    why: str

    def __str__(self) -> str:
        return (
            f"{self.why} Training went back to the checkpoint of step {self.to} and passed over the data of "
            f"{self.passed_over} steps (training.spikeRecovery)."
        )


class SpikeWatch:
    """Compares every loss with the median of those before it. Equal on all processes, since losses are."""

    def __init__(self, recovery: SpikeRecovery, before: Iterable[float] = ()) -> None:
        """before: losses of the steps before, the newest last."""
        self._factor = recovery.factor
        self._last: deque[float] = deque(before, maxlen=recovery.window)

    def see(self, step: int, loss: float, grad_norm: float) -> None:
        """Takes up one more step. Raises LossSpikeError for a loss above the bound, and for what is no number."""
        for name, value in (("loss", loss), ("norm of the gradient", grad_norm)):
            if not math.isfinite(value):
                raise LossSpikeError(step, f"The {name} of step {step} is {value}.")
        if len(self._last) == self._last.maxlen and loss > (bound := self._factor * median(self._last)):
            raise LossSpikeError(
                step,
                f"The loss of step {step} is {loss:.4g}, above {bound:.4g}: {self._factor:g} times the median of the "
                f"{len(self._last)} steps before.",
            )
        self._last.append(loss)


def next_rewind(spike: LossSpikeError, to: int, before: Sequence[Rewind], recovery: SpikeRecovery) -> Rewind:
    """The way back from a spike to a checkpoint. Raises JobFailure (LossSpikes) when there were enough of them."""
    if len(before) >= recovery.max_rewinds:
        raise JobFailure(
            FailureReason.LOSS_SPIKES,
            f"{spike} Training has gone back {len(before)} times (training.spikeRecovery.maxRewinds) and spikes again: "
            "lower training.learningRate, raise training.warmupRatio, or look at the records around that step.",
        )
    return Rewind(spike.step, to, spike.step - to + recovery.skip_steps, str(spike))


def passed_over(rewinds: Sequence[Rewind], step: int) -> int:
    """Steps' worth of data that is left out before a step, counted from 0."""
    return sum(one.passed_over for one in rewinds if one.to <= step)


def read_rewinds(output: Path) -> list[Rewind]:
    """The rewinds of the attempts before."""
    file = output / RECOVERY_FILE
    return [Rewind(**one) for one in json.loads(file.read_text())] if file.is_file() else []


def write_rewinds(output: Path, rewinds: Sequence[Rewind]) -> None:
    """Notes the rewinds for the attempts that follow."""
    write_file(output / RECOVERY_FILE, json.dumps([asdict(one) for one in rewinds], indent=2) + "\n")
