"""Trackers get the metrics that metrics.jsonl has, from one run however many attempts there are."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from alidade_crds.contract import JobDocument
from alidade_trainer.failures import JobFailure
from alidade_trainer.jobs import read_job
from alidade_trainer.tracking import tracking
from tests.trainer.conftest import Run, kill_after_step

MakeJob = Callable[..., Path]
RunJob = Callable[..., Run]


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Values by name and step, as TensorBoard reads them; where a step was told twice, the later counts."""
    found: dict[str, dict[int, float]] = {}
    for file in sorted(folder.glob("events.*")):
        for event in _events(file.read_bytes()):
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def _events(content: bytes) -> Iterator[Event]:
    """TFRecord: length, its checksum, the record, its checksum."""
    place = 0
    while place < len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        yield Event.FromString(content[place + 12 : place + 12 + length])
        place += length + 16


def test_tensorboard_has_the_curve_of_metrics_jsonl_over_all_attempts(make_job: MakeJob, run_job: RunJob) -> None:
    job = make_job({"tracking": {"tensorboard": {}}})
    run_job(job, prepare=kill_after_step(4))
    run = run_job(job)

    assert run.result.outcome == "succeeded", run.result.failure
    told = scalars(run.output / "tensorboard")
    steps = {line["step"]: line for line in run.lines if "loss" in line}
    assert told["train/loss"] == pytest.approx({step: line["loss"] for step, line in steps.items()})
    assert told["train/grad_norm"] == pytest.approx({step: line["grad_norm"] for step, line in steps.items()})
    assert told["eval/loss"] == pytest.approx({line["step"]: line["eval_loss"] for line in run.lines if "eval_loss" in line})


def document(make_job: MakeJob, **blocks: Any) -> JobDocument:
    return read_job(make_job({"tracking": blocks}))


def test_a_tracker_that_fails_is_left_alone_and_told_once(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorboardX

    said: list[str] = []

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    with tracking(document(make_job, tensorboard={}), tmp_path, said.append) as track:
        monkeypatch.setattr(tensorboardX.SummaryWriter, "add_scalar", full)
        track(1, {"loss": 1.0})
        track(2, {"loss": 1.0})
    assert said == ["Warning: TensorBoard does not take the metrics any more (OSError: No space left on device)."]


@pytest.mark.parametrize(
    ("block", "name"),
    [({"mlflow": {"uri": "https://mlflow.example.com"}}, "mlflow"), ({"wandb": {"project": "a", "offline": True}}, "wandb")],
)
def test_an_image_without_the_client_says_so(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: dict[str, Any], name: str
) -> None:
    monkeypatch.setattr(f"transformers.integrations.integration_utils.is_{name}_available", lambda: False)
    with (
        pytest.raises(JobFailure, match=rf"tracking\.{name} is set, and this image has no client for it"),
        tracking(document(make_job, **block), tmp_path, print),
    ):
        pass


def test_parameters_are_what_the_job_chose(make_job: MakeJob, tmp_path: Path) -> None:
    with tracking(document(make_job, tensorboard={}), tmp_path, print):
        pass
    (file,) = (tmp_path / "tensorboard").glob("events.*")
    texts = [value.tensor.string_val for event in _events(file.read_bytes()) for value in event.summary.value]
    told = json.loads(b"".join(texts[0]))
    assert told["training"]["learningRate"] == 0.01
    assert "output" not in told
    assert "backoffLimit" not in json.dumps(told)
