"""What a training process is given beside its job."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alidade_engine.sources import Locations
from alidade_trainer.history import Track
from alidade_trainer.progress import Progress, StepMetrics
from alidade_trainer.stopping import StopWish


@dataclass(frozen=True)
class Surroundings:
    """What a training process is given beside its job."""

    locations: Locations
    output: Path
    """Local folder of the job's output."""
    run_folder: Path
    """Shared with the launcher and the other processes of this pod; gone afterwards."""
    progress: Progress
    observe_step: Callable[[StepMetrics], None]
    stop: StopWish
    say: Callable[[str], None]
    """Writes a line to the log; only the first process does."""
    track: Track
    """Sends metrics to the job's tracker; only the first process does."""
