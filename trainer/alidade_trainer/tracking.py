"""Experiment trackers: the lines of metrics.jsonl, sent on by transformers' own callbacks.

What a tracker does not take costs its picture, not the training: the first failure is told, and the tracker left alone.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.integrations import MLflowCallback, TensorBoardCallback, WandbCallback

from alidade_crds.blocks import Tracking
from alidade_crds.contract import JobDocument, Owner
from alidade_crds.reasons import FailureReason
from alidade_engine.disk import write_file
from alidade_trainer.failures import JobFailure
from alidade_trainer.history import Track, track_nothing
from alidade_trainer.jobs import NOT_FINGERPRINTED

EVENTS_FOLDER = "tensorboard"
OFFLINE_FOLDER = "wandb"
RUN_FILE = "tracking.json"


@contextmanager
def tracking(job: JobDocument, output: Path, say: Callable[[str], None]) -> Iterator[Track]:
    """What follows a training of the job; only the first process enters it.

    output: local folder of the job's output. Another attempt goes on in the same run. Raises JobFailure
    (ConfigInvalid) when the image lacks the tracker's client.
    """
    if job.tracking is None:
        yield track_nothing
        return
    _say_where(job.tracking, job.owner, output)
    follower = _Follower(_callback(job.tracking), _Arguments(output, job), TrainerState(), say)
    follower.tell("on_train_begin")
    _note_run(job.tracking, output)
    try:
        yield follower.track
    finally:
        follower.tell("on_train_end")


@dataclass(frozen=True)
class _Arguments:
    """What the callbacks read of transformers' TrainingArguments; parameters of a run are those of the job."""

    output: Path
    job: JobDocument

    @property
    def output_dir(self) -> str:
        return str(self.output)

    @property
    def run_name(self) -> str:
        return f"{self.job.owner.kind}/{self.job.owner.name}"

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in self.job.chosen().items() if name not in NOT_FINGERPRINTED}

    def to_json_string(self) -> str:
        return json.dumps(self.to_dict(), indent=2)


@dataclass
class _Follower:
    """A callback and what it is told; None once it has failed."""

    callback: TrainerCallback | None
    arguments: _Arguments
    state: TrainerState
    say: Callable[[str], None]

    def track(self, step: int, metrics: Mapping[str, float]) -> None:
        """A `Track`."""
        self.state.global_step = step
        self.tell("on_log", logs=dict(metrics))

    def tell(self, event: str, **more: Any) -> None:
        if self.callback is None:
            return
        try:
            getattr(self.callback, event)(self.arguments, self.state, TrainerControl(), **more)
        except Exception as error:  # of whatever client, network or server
            name = type(self.callback).__name__.removesuffix("Callback")
            self.say(f"Warning: {name} does not take the metrics any more ({type(error).__name__}: {error}).")
            self.callback = None


def _callback(asked: Tracking) -> TrainerCallback:
    field, kind = next(
        (field, kind)
        for field, kind, block in (
            ("mlflow", MLflowCallback, asked.mlflow),
            ("wandb", WandbCallback, asked.wandb),
            ("tensorboard", TensorBoardCallback, asked.tensorboard),
        )
        if block is not None
    )
    try:
        made: TrainerCallback = kind()
    except (RuntimeError, ImportError) as error:
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"tracking.{field} is set, and this image has no client for it ({error}). Use an image with one, or leave "
            "tracking out: metrics are in metrics.jsonl and at /metrics.",
        ) from error
    return made


def _say_where(asked: Tracking, owner: Owner, output: Path) -> None:
    """Sets the variables that the callbacks and their clients read."""
    if asked.tensorboard is not None:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(output / EVENTS_FOLDER)
    if asked.wandb is not None:
        folder = output / OFFLINE_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        os.environ |= {
            "WANDB_PROJECT": asked.wandb.project,
            "WANDB_DIR": str(folder),
            "WANDB_MODE": "offline" if asked.wandb.offline else "online",
            # A run of its own for each resource, in which every attempt goes on.
            "WANDB_RUN_ID": hashlib.sha256(f"{owner.uid}/{output.name}".encode()).hexdigest()[:16],
            "WANDB_RESUME": "allow",
            "WANDB_SILENT": "true",
        }
        if asked.wandb.entity is not None:
            os.environ["WANDB_ENTITY"] = asked.wandb.entity
    if asked.mlflow is not None:
        os.environ |= {
            "MLFLOW_TRACKING_URI": asked.mlflow.uri,
            "MLFLOW_EXPERIMENT_NAME": asked.mlflow.experiment or owner.namespace,
            "MLFLOW_FLATTEN_PARAMS": "TRUE",
        }
        if (run := _known_run(output, asked.mlflow.uri)) is not None:
            os.environ["MLFLOW_RUN_ID"] = run


def _known_run(output: Path, server: str) -> str | None:
    """The run of an attempt before at the same server."""
    file = output / RUN_FILE
    known = json.loads(file.read_text()) if file.is_file() else {}
    return known["run"] if known.get("server") == server else None


def _note_run(asked: Tracking, output: Path) -> None:
    """Keeps the id that MLflow has given, so that the next attempt goes on in the same run."""
    if asked.mlflow is None:
        return
    import mlflow

    if (run := mlflow.active_run()) is not None:
        output.mkdir(parents=True, exist_ok=True)
        write_file(output / RUN_FILE, json.dumps({"server": asked.mlflow.uri, "run": run.info.run_id}))
