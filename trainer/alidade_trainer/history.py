"""metrics.jsonl: one line per optimizer step and per evaluation, without gaps or repetitions over all attempts."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alidade_engine.disk import write_file
from alidade_trainer.progress import StepMetrics

METRICS_FILE = "metrics.jsonl"
_OF_DATASETS = {"losses": "loss", "eval_losses": "eval_loss"}
"""Entries that have a loss for each dataset, and what they are parts of."""

Track = Callable[[int, Mapping[str, float]], None]
"""Takes the metrics of a step: optimizer steps done, and values by name."""


def track_nothing(_step: int, _metrics: Mapping[str, float]) -> None:
    """Where no tracker is asked for, and in processes other than the first."""


class History:
    """The metrics of a training, kept in memory and appended to a file."""

    def __init__(self, path: Path, *, up_to_step: int, track: Track = track_nothing) -> None:
        """Takes up the lines that path has up to a step; later ones, which an attempt wrote that was lost, are removed.

        track: is told every line that is added.
        """
        self._path = path
        self._track = track
        lines = [line for line in read_lines(path) if line["step"] <= up_to_step]
        self.steps: list[dict[str, Any]] = [line for line in lines if "loss" in line]
        self.iterations: list[dict[str, Any]] = [line for line in lines if "iteration" in line]
        self.evaluations: list[dict[str, Any]] = [line for line in lines if "eval_loss" in line]
        write_file(path, "".join(json.dumps(line) + "\n" for line in lines))
        self._file = path.open("a")

    def add_step(self, metrics: StepMetrics) -> None:
        """Appends a step."""
        known = {name: value for name, value in asdict(metrics).items() if value is not None and value != {}}
        line = known | {"tokens_per_second": round(metrics.tokens_per_second, 1)}
        self.steps.append(line)
        self._append(line)

    def add_evaluation(self, step: int, loss: float, losses: Mapping[str, float]) -> None:
        """Appends a loss on held-out data, and that of each dataset where several are told apart."""
        line: dict[str, Any] = {"step": step, "eval_loss": loss} | ({"eval_losses": dict(losses)} if losses else {})
        self.evaluations.append(line)
        self._append(line)

    def add_iteration(self, step: int, align_step: str, iteration: int, metrics: dict[str, float]) -> None:
        """Appends an iteration of an alignment step; step: optimizer steps done. One that is there is left as it is."""
        if any(one["align_step"] == align_step and one["iteration"] == iteration for one in self.iterations):
            return
        line = {
            "step": step,
            "align_step": align_step,
            "step_index": int(align_step.partition("-")[0]) - 1,
            "iteration": iteration,
            "metrics": metrics,
        }
        self.iterations.append(line)
        self._append(line)

    def sync(self) -> None:
        """Waits until the lines are on the disk; a checkpoint counts on those before it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _append(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        self._track(line["step"], values_of(line))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last line that was cut off is left out. No file, no lines."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text().splitlines(keepends=True):
        if text.endswith("\n"):
            lines.append(json.loads(text))
    return lines


def values_of(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line by name, as trackers show them; an iteration's under its step, a dataset's under loss."""
    if "iteration" in line:
        return {f"{line['align_step']}/{name}": value for name, value in line["metrics"].items()}
    values = {name: value for name, value in line.items() if name not in ("step", "seconds", *_OF_DATASETS)}
    return values | {
        f"{one}/{name}": value for key, one in _OF_DATASETS.items() for name, value in line.get(key, {}).items()
    }


def patience_is_over(eval_losses: list[float], patience: int) -> bool:
    """Whether the last `patience` evaluations all failed to improve on the best before them."""
    if len(eval_losses) <= patience:
        return False
    return min(eval_losses[-patience:]) >= min(eval_losses[:-patience])
