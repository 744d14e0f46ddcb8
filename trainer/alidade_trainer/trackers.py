"""Experiment trackers by transformers' own callbacks: where each writes, under which run, and how it is told.

Another attempt of a training goes on in the same run: its id lies beside the checkpoints that the attempt starts from.
"""

import importlib.util
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tensorboardX import SummaryWriter
from transformers import TrainerControl, TrainerState
from transformers.integrations import MLflowCallback, TensorBoardCallback, WandbCallback

from alidade_crds.blocks import MlflowTracking, WandbTracking
from alidade_crds.contract import JobDocument
from alidade_crds.reasons import FailureReason
from alidade_engine.disk import write_file
from alidade_trainer.failures import JobFailure
from alidade_trainer.jobs import NOT_FINGERPRINTED, fingerprint
from alidade_trainer.mlflow_runs import run_with_tag

EVENTS_FOLDER = "tensorboard"
RUN_FILE = "tracking.json"
_RUN_TAG = "alidade.run"

Outcome = Literal["succeeded", "failed", "terminated"]
_MLFLOW_STATUS = {"succeeded": "FINISHED", "failed": "FAILED", "terminated": "KILLED"}


class _Callback(Protocol):
    """What is asked of a callback; the arguments are those of `Tracker`."""

    def on_train_begin(self, args: Any, state: Any, control: Any) -> None: ...

    def on_log(self, args: Any, state: Any, control: Any, *, logs: dict[str, float]) -> None: ...

    def end(self, outcome: Outcome) -> None: ...


class Tracker:
    """A tracker of one training. Each method may take its time, and raises whatever its client does."""

    def __init__(self, title: str, callback: _Callback, arguments: "_Arguments") -> None:
        self.title = title
        self._callback = callback
        self._arguments = arguments
        self._state = TrainerState()

    def begin(self) -> None:
        """Opens the run."""
        self._callback.on_train_begin(self._arguments, self._state, TrainerControl())

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tells the metrics of a step; opens the run where that has failed before."""
        self._state.global_step = step
        self._callback.on_log(self._arguments, self._state, TrainerControl(), logs=dict(metrics))

    def end(self, outcome: Outcome) -> None:
        """Says how the attempt went, and waits until the tracker has everything."""
        self._callback.end(outcome)


def tracker_of(job: JobDocument, output: Path, run: "RunRecord") -> Tracker:
    """The tracker that a job asks for, not yet told anything.

    output: local folder of the job's output. Raises JobFailure (ConfigInvalid) when the image lacks its client.
    """
    asked = job.tracking
    assert asked is not None, "asked for only then"
    arguments = _Arguments(output, job, run.run)
    if asked.mlflow is not None:
        _refuse_without("mlflow", "mlflow-skinny")
        return Tracker(f"MLflow at {asked.mlflow.uri}", _Mlflow(asked.mlflow, arguments), arguments)
    if asked.wandb is not None:
        _refuse_without("wandb", "wandb")
        _set_wandb(asked.wandb, arguments)
        return Tracker("Weights & Biases", _Wandb(), arguments)
    return Tracker("TensorBoard", _TensorBoard(output / EVENTS_FOLDER), arguments)


@dataclass(frozen=True)
class _Arguments:
    """What the callbacks read of transformers' TrainingArguments; parameters of a run are what the job chose."""

    output: Path
    job: JobDocument
    run_id: str

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


class _TensorBoard(TensorBoardCallback):  # type: ignore[misc]  # transformers has no types
    """Event files. What an attempt told after the checkpoint that the next one starts from is declared void."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.tb_writer: SummaryWriter | None = None
        self._folder = folder
        self._newest = -1
        self._names: set[str] = set()
        """Told of the newest step."""
        self._opened = 0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Nothing: the writer has to know the first step that will be told."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        step = state.global_step
        is_told_again = step < self._newest or (step == self._newest and not self._names.isdisjoint(logs))
        if self.tb_writer is None or is_told_again:
            self._open(step)
            super().on_train_begin(args, state, control)
        self._names = self._names.union(logs) if step == self._newest else set(logs)
        self._newest = step
        super().on_log(args, state, control, logs=logs, **kwargs)

    def _open(self, step: int) -> None:
        if self.tb_writer is not None:
            self.tb_writer.close()
        self._opened += 1
        # The library names files by the second; a training may go back sooner.
        suffix = f".{os.getpid()}.{self._opened}"
        self.tb_writer = SummaryWriter(str(self._folder), purge_step=step, filename_suffix=suffix)

    def end(self, _outcome: Outcome) -> None:
        if self.tb_writer is not None:
            self.tb_writer.close()


class _Mlflow(MLflowCallback):  # type: ignore[misc]
    """A run of an MLflow server, found again by its tag."""

    def __init__(self, asked: MlflowTracking, arguments: _Arguments) -> None:
        super().__init__()
        self._asked = asked
        self._arguments = arguments
        os.environ |= {"MLFLOW_TRACKING_URI": asked.uri, "MLFLOW_FLATTEN_PARAMS": "TRUE"}

    def setup(self, args: Any, state: Any, model: Any) -> None:
        if self._ml_flow.active_run() is not None:  # it was opened, and then something failed
            self._ml_flow.end_run()
        owner = self._arguments.job.owner
        tags = {f"alidade.{name}": value for name, value in owner.to_dict().items()}
        run = run_with_tag(
            self._ml_flow.MlflowClient(self._asked.uri),
            self._asked.experiment or owner.namespace,
            _RUN_TAG,
            name=self._arguments.run_name,
            tags=tags | {_RUN_TAG: self._arguments.run_id},
        )
        os.environ["MLFLOW_RUN_ID"] = run.info.run_id
        super().setup(args, state, model)
        # Whoever tells it waits: what the client sends by itself, it is silent about when the server refuses it.
        self._async_log = False

    def end(self, outcome: Outcome) -> None:
        self._ml_flow.end_run(_MLFLOW_STATUS[outcome])


class _Wandb(WandbCallback):  # type: ignore[misc]
    """A run of Weights & Biases, or its files."""

    def setup(self, args: Any, state: Any, model: Any, **kwargs: Any) -> None:
        try:
            super().setup(args, state, model, **kwargs)
        except Exception:
            # So that it can be tried again: the client's own process still holds the run that it could not open.
            self._initialized = False
            self._wandb.teardown()
            raise

    def end(self, outcome: Outcome) -> None:
        self._wandb.finish(exit_code=0 if outcome == "succeeded" else 1)


def _set_wandb(asked: WandbTracking, arguments: _Arguments) -> None:
    """Sets the variables that the client reads."""
    os.environ |= {
        "WANDB_PROJECT": asked.project,
        "WANDB_DIR": str(arguments.output),
        "WANDB_MODE": "offline" if asked.offline else "online",
        "WANDB_RUN_ID": arguments.run_id,
        "WANDB_RESUME": "allow",
        # The log stays where it is, code and repository at home, and the client says nothing of itself to its maker.
        "WANDB_SILENT": "true",
        "WANDB_CONSOLE": "off",
        "WANDB_DISABLE_CODE": "true",
        "WANDB_DISABLE_GIT": "true",
        "WANDB_ERROR_REPORTING": "false",
    }
    if asked.entity is not None:
        os.environ["WANDB_ENTITY"] = asked.entity
    if asked.uri is not None:
        os.environ["WANDB_BASE_URL"] = asked.uri


def _refuse_without(module: str, package: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"tracking.{module} is set, and this image lacks the package {package}. Use one that has it, such as the "
            "release's trainer image, or leave tracking out: metrics are in metrics.jsonl and at /metrics.",
        )


@dataclass(frozen=True)
class RunRecord:
    """What is known of a training's run, beside the checkpoints that another attempt starts from."""

    run: str
    """Id of the run."""
    of: dict[str, Any]
    """The training and its tracker: with another of either it would be another run."""
    told: int = 0
    """Step up to which the tracker has the metrics; it may have some more."""

    def write(self, output: Path, told: int) -> None:
        """Keeps it in the output folder."""
        write_file(output / RUN_FILE, json.dumps(asdict(self) | {"told": told}) + "\n")


def read_run(job: JobDocument, output: Path) -> RunRecord:
    """The run of the job's earlier attempts, or a new one."""
    assert job.tracking is not None, "asked for only then"
    tracker = job.tracking.model_dump(exclude={"mlflow": {"secret_name"}, "wandb": {"secret_name"}}, exclude_none=True)
    of = {"fingerprint": fingerprint(job), "tracking": tracker}
    file = output / RUN_FILE
    known = RunRecord(**json.loads(file.read_text())) if file.is_file() else None
    if known is not None and known.of == of:
        return known
    made = RunRecord(uuid.uuid4().hex, of)
    made.write(output, 0)
    return made
