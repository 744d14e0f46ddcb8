"""A training's metrics in MLflow and in Weights & Biases, by their own clients and, for MLflow, its own server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alidade_crds.contract import JobDocument, ResultDocument
from alidade_trainer.jobs import read_job
from alidade_trainer.progress import Progress
from alidade_trainer.tracking import tracked
from tests.trainer.conftest import in_child

MakeJob = Callable[..., Path]


def follow(job: JobDocument, output: Path, steps: list[int]) -> list[str]:
    """The warnings of an attempt that tells the steps to the job's tracker."""

    def work(track: Any) -> ResultDocument:
        for step in steps:
            track(step, {"loss": 1.0 / step, "1-raft/reward": float(step)})
        return ResultDocument(outcome="succeeded", step=steps[-1], metrics={"perplexity": 2.0})

    return tracked(job, output, progress=Progress(), say=print, work=work).warnings


@pytest.fixture
def child(python: str, tmp_path: Path) -> Callable[..., Any]:
    """Does work in a process that has the clients, as the trainer's image has them, behind the project's packages."""
    (clients,) = Path(python).parents[1].glob("lib/python*/site-packages")

    def work_there(work: Callable[..., Any], *arguments: Any) -> Any:
        sys.path.append(str(clients))
        os.environ |= {
            "HOME": str(tmp_path),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "WANDB_API_KEY": "no-key",
        }
        return work(*arguments)

    return lambda *arguments: in_child(work_there, *arguments)


def attempts_at_mlflow(job: JobDocument, output: Path) -> dict[str, Any]:
    """Two attempts that reach the server, one of whose lines it refuses at first, and what the server knows then."""
    from mlflow import MlflowClient

    assert job.tracking is not None
    assert job.tracking.mlflow is not None
    warnings = follow(job, output, [1, 2]) + follow(job, output, [3])
    client = MlflowClient(job.tracking.mlflow.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("team").experiment_id])
    curves = {
        name: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    original, MlflowClient.log_batch = MlflowClient.log_batch, refuse
    refused = follow(job, output, [4])
    MlflowClient.log_batch = original
    return {
        "warnings": warnings,
        "run": [run.info.run_name, run.info.status],
        "parameters": run.data.params,
        "tags": run.data.tags,
        "curves": curves,
        "refused": refused,
    }


def refuse(*_: Any, **__: Any) -> None:
    """As a server does that was restarted with another password."""
    raise PermissionError("403 Forbidden")


@pytest.mark.slow
def test_attempts_go_on_in_one_run_of_mlflow(
    child: Callable[..., Any], make_job: MakeJob, server: str, tmp_path: Path
) -> None:
    job = read_job(make_job({"tracking": {"mlflow": {"uri": server}}}))
    found = child(attempts_at_mlflow, job, tmp_path)
    assert found["warnings"] == []
    assert found["run"] == ["FineTuneJob/tiny", "FINISHED"]
    assert found["parameters"]["training.learningRate"] == "0.01"
    assert found["tags"]["alidade.uid"] == "0123"
    assert found["curves"] == {
        "loss": [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))],
        "1-raft/reward": [(1, 1.0), (2, 2.0), (3, 3.0)],
        "final/perplexity": [(2, 2.0), (3, 2.0)],
    }
    (refused,) = found["refused"]
    assert refused.startswith(
        f"MLflow at {server} was not told 2 of 2 lines of metrics (PermissionError: 403 Forbidden)"
    )


READ = """
import json, struct, sys
from wandb.proto.wandb_internal_pb2 import Record

def records(content):  # LevelDB's log: blocks of 32 KiB, of pieces with checksum, length and place in their record
    place, whole = 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _checksum, length, kind = struct.unpack_from("<IHB", content, place)
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield Record.FromString(whole)
            whole = b""

found = []
for path in sys.argv[1:]:
    for record in records(open(path, "rb").read()):
        if record.HasField("run"):
            found.append(["run", record.run.run_id, record.run.project, record.run.display_name])
        for item in record.config.update:
            if item.key == "training":
                found.append(["training", json.loads(item.value_json)["learningRate"]])
        if record.HasField("history"):
            line = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            found.append(["line", {name: value for name, value in line.items() if not name.startswith("_")}])
        if record.HasField("exit"):
            found.append(["exit", record.exit.exit_code])
print(json.dumps(found))
"""


def attempts_at_wandb(job: JobDocument, output: Path) -> list[str]:
    return follow(job, output, [1, 2]) + follow(job, output, [3])


@pytest.mark.slow
def test_a_run_of_wandb_is_written_beside_the_model(
    child: Callable[..., Any], make_job: MakeJob, python: str, tmp_path: Path
) -> None:
    job = read_job(make_job({"tracking": {"wandb": {"project": "answers", "offline": True}}}))
    assert child(attempts_at_wandb, job, tmp_path) == []
    files = sorted((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    read = subprocess.run([python, "-c", READ, *files], capture_output=True, text=True)
    assert read.returncode == 0, read.stderr
    found = json.loads(read.stdout.splitlines()[-1])
    run = json.loads((tmp_path / "tracking.json").read_text())["run"]
    begun, ended = [["run", run, "answers", "FineTuneJob/tiny"], ["training", 0.01]], ["exit", 0]
    assert found == [
        *begun,
        ["line", {"train/global_step": 1, "train/loss": 1, "train/1-raft/reward": 1}],
        ["line", {"train/global_step": 2, "train/loss": 0.5, "train/1-raft/reward": 2}],
        ["line", {"train/global_step": 2, "train/final/perplexity": 2}],
        ended,
        *begun,
        ["line", {"train/global_step": 3, "train/loss": pytest.approx(1 / 3), "train/1-raft/reward": 3}],
        ["line", {"train/global_step": 3, "train/final/perplexity": 2}],
        ended,
    ], "two files under one id, by which they become one run"


@pytest.mark.slow
def test_a_key_that_wandb_refuses_costs_a_warning(child: Callable[..., Any], make_job: MakeJob, tmp_path: Path) -> None:
    job = read_job(make_job({"tracking": {"wandb": {"project": "answers", "secretName": "wandb"}}}))
    (warning,) = child(follow, job, tmp_path, [1])
    assert warning.startswith(
        "Weights & Biases was not told 2 of 2 lines of metrics (AuthenticationError: WANDB_API_KEY"
    )
