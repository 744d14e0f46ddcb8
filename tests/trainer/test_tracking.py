"""What is told to trackers: the lines of metrics.jsonl, in one run over all attempts, at no cost to the training."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from alidade_crds.contract import ResultDocument
from alidade_trainer import tracking
from alidade_trainer.failures import JobFailure
from alidade_trainer.history import METRICS_FILE, History, Track
from alidade_trainer.jobs import read_job
from alidade_trainer.progress import Progress, StepMetrics
from alidade_trainer.trackers import Outcome, read_run, tracker_of
from alidade_trainer.tracking import Follower, tracked
from tests.trainer.event_files import curves, events

MakeJob = Callable[..., Path]


def test_a_rewind_makes_void_what_was_told_after_its_checkpoint(make_job: MakeJob, tmp_path: Path) -> None:
    job = read_job(make_job({"tracking": {"tensorboard": {}}}))
    tracker = tracker_of(job, tmp_path, read_run(job, tmp_path))
    tracker.begin()
    for step, loss in ((1, 3.0), (2, 9.0), (3, 99.0), (2, 2.5), (3, 2.0)):
        tracker.log(step, {"loss": loss})
    tracker.end("succeeded")
    assert curves(tmp_path / "tensorboard") == {"train/loss": [(1, 3.0), (2, 2.5), (3, 2.0)]}
    texts = [value.tensor.string_val for event in events(tmp_path / "tensorboard") for value in event.summary.value]
    (parameters,) = {text[0] for text in texts if text}
    chosen = json.loads(parameters)
    assert chosen["training"]["learningRate"] == 0.01
    assert not {"output", "owner", "tracking"} & set(chosen)


class Told:
    """A tracker that keeps what it is told, unless `log` is replaced."""

    title = "MLflow at https://mlflow.example.org"

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.outcome: Outcome | None = None

    def begin(self) -> None:
        """Opens nothing."""

    def log(self, step: int, _metrics: Mapping[str, float]) -> None:
        self.steps.append(step)

    def end(self, outcome: Outcome) -> None:
        self.outcome = outcome


@pytest.fixture
def told() -> Told:
    return Told()


def follow(tracker: Any, warnings: list[str | None]) -> Follower:
    follower = Follower(tracker, warnings.append, mark=lambda _: None)
    follower.start()
    return follower


def test_what_a_tracker_does_not_take_is_warned_of_once_and_told_again(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "PAUSE_S", 0.001)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2")
    refusals = iter(range(3))
    warnings: list[str | None] = []

    class Unsteady(Told):
        def log(self, step: int, metrics: Mapping[str, float]) -> None:
            if step == 2 and next(refusals, None) is not None:
                raise ConnectionError("no route for hunter2\nTraceback of somebody else's")
            super().log(step, metrics)

    tracker = Unsteady()
    follower = follow(tracker, warnings)
    for step in (1, 2, 3):
        follower.track(step, {"loss": float("nan")})
    while len(tracker.steps) < 3:
        threading.Event().wait(0.001)
    assert follower.close("terminated") is None
    assert (tracker.steps, tracker.outcome) == ([1, 2, 3], "terminated")
    assert warnings == [
        "MLflow at https://mlflow.example.org does not take the metrics (ConnectionError: no route for ***). Training "
        "goes on; what was not taken is told again every 0 s.",
        None,
    ]


def test_a_tracker_that_never_answers_holds_nothing_up(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "SILENCE_S", 0.0)
    monkeypatch.setattr(tracking, "PATIENCE_S", {"failed": 0.01})
    monkeypatch.setattr(tracking, "MOST_WAITING", 100)
    asked, for_ever = threading.Event(), threading.Event()
    warnings: list[str | None] = []

    def log(*_: Any) -> None:
        asked.set()
        for_ever.wait()

    told.log = log  # type: ignore[method-assign]
    follower = follow(told, warnings)
    follower.track(0, {})
    assert asked.wait(60)
    for step in range(1, 1000):
        follower.track(step, {"loss": 1.0})
    assert follower._waiting.qsize() == 100, "what waits is bounded"
    untold = follower.close("failed")
    for_ever.set()
    assert warnings == [
        "MLflow at https://mlflow.example.org does not take the metrics (no answer for 0 s). Training goes on; what "
        "was not taken is told again every 60 s."
    ]
    assert untold == (
        "MLflow at https://mlflow.example.org was not told 1000 of 1000 lines of metrics (no answer for 0 s). The "
        "output's metrics.jsonl has all."
    )


def test_a_result_says_what_its_tracker_does_not_have(
    make_job: MakeJob, told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    told.log = full  # type: ignore[method-assign]
    monkeypatch.setattr(tracking, "tracker_of", lambda *_: told)
    progress, said = Progress(), list[str]()
    result = tracked(
        read_job(make_job({"tracking": {"tensorboard": {}}})),
        tmp_path,
        progress=progress,
        say=said.append,
        work=lambda track: [track(1, {"loss": 2.0}), ResultDocument(outcome="succeeded", step=1)][1],
    )
    assert result.outcome == "succeeded"
    (untold,) = result.warnings
    assert "was not told 2 of 2 lines of metrics (OSError: [Errno 28] No space left on device)" in untold
    assert said == [f"Warning: {progress.to_document().tracking_warning}", f"Warning: {untold}"]


def test_a_training_that_fails_ends_its_run_so(make_job: MakeJob, told: Told, tmp_path: Path, monkeypatch: Any) -> None:
    def fail(_track: object) -> ResultDocument:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(tracking, "tracker_of", lambda *_: told)
    job = read_job(make_job({"tracking": {"tensorboard": {}}}))
    with pytest.raises(RuntimeError, match="out of memory"):
        tracked(job, tmp_path, progress=Progress(), say=print, work=fail)
    assert told.outcome == "failed"


@pytest.mark.parametrize(
    ("blocks", "package"),
    [
        ({"mlflow": {"uri": "https://mlflow.example.com"}}, "mlflow-skinny"),
        ({"wandb": {"project": "a", "offline": True}}, "wandb"),
    ],
)
def test_an_image_without_the_client_says_so_at_once(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: dict[str, Any], package: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    job = read_job(make_job({"tracking": blocks}))
    with pytest.raises(JobFailure, match=f"this image lacks the package {package}"):
        tracker_of(job, tmp_path, read_run(job, tmp_path))


def test_another_training_or_tracker_in_the_same_folder_is_another_run(make_job: MakeJob, tmp_path: Path) -> None:
    usual = {"training": {"learningRate": 0.1}, "tracking": {"mlflow": {"uri": "https://a", "secretName": "a"}}}
    runs = []
    for change in (
        {},
        {"checkpoint": {"keep": 3}, "tracking": {"mlflow": {"uri": "https://a", "secretName": "b"}}},
        {"training": {"learningRate": 0.2}},
        {"tracking": {"tensorboard": {}}},
    ):
        runs.append(read_run(read_job(make_job(usual | change)), tmp_path).run)
    assert runs[0] == runs[1]
    assert len(set(runs)) == 3


def test_an_attempt_tells_what_the_one_before_could_not(
    make_job: MakeJob, told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "tracker_of", lambda *_: told)
    monkeypatch.setattr(tracking, "MARK_EVERY_S", 0.0)
    log = told.log

    def until_3(step: int, metrics: Mapping[str, float]) -> None:
        if step > 3:
            raise ConnectionError
        log(step, metrics)

    def attempt(first: int, last: int) -> None:
        def work(track: Track) -> ResultDocument:
            history = History(tmp_path / METRICS_FILE, up_to_step=first - 1, track=track)
            for step in range(first, last + 1):
                history.add_step(StepMetrics(step, 0.1, 2.0, 1e-3, 1.0, tokens=100, seconds=0.5))
            history.close()
            return ResultDocument(outcome="terminated", step=last)

        job = read_job(make_job({"tracking": {"tensorboard": {}}}))
        tracked(job, tmp_path, progress=Progress(), say=print, work=work)

    told.log = until_3  # type: ignore[method-assign]
    attempt(1, 5)
    told.log = log  # type: ignore[method-assign]
    attempt(5, 6)
    assert told.steps == [1, 2, 3, 3, 4, 5, 5, 6], "step 5 was done again, after a checkpoint of step 4"
    attempt(7, 7)
    assert told.steps[8:] == [6, 7]
