"""What an algorithm is told in one iteration, and what it answers."""

from collections.abc import Callable
from dataclasses import dataclass

from alidade_trainer.align.sampling import seeds
from alidade_trainer.progress import StepMetrics


@dataclass
class Iteration:
    """One iteration of one step. number: from 0. optimizer_steps: done so far over the whole job."""

    step_index: int
    step_name: str
    number: int
    optimizer_steps: int
    learning_rate: float
    """Of all its optimizer steps: the schedule runs over iterations, whose number of steps need not be known."""
    job_seed: int
    enter: Callable[[str], None]
    """Says what is being done: sampling, scoring, training or evaluating."""
    observe: Callable[[StepMetrics], None]

    @property
    def is_first_of_job(self) -> bool:
        """Whether nothing has been learned yet."""
        return self.step_index == 0 and self.number == 0

    def seed(self, purpose: int = 0) -> int:
        """Of this iteration's random numbers for one purpose."""
        return seeds(self.job_seed, self.step_index, self.number, purpose)

    def record(self, metrics: StepMetrics) -> None:
        """Takes up one more optimizer step."""
        self.optimizer_steps = metrics.step
        self.observe(metrics)


@dataclass(frozen=True)
class IterationResult:
    """metrics: of the samples and the training. stop: why the step ends here."""

    metrics: dict[str, float]
    stop: str | None = None
