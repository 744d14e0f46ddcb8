"""A training's metrics in MLflow and in Weights & Biases, by their own clients and, for MLflow, its own server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.environments import ROOT

PROGRAM = """
import json, sys
from pathlib import Path
sys.path.append(sys.argv[1])  # the clients, behind what the project has
from alidade_crds.contract import JobDocument
from alidade_trainer.tracking import tracking

folder, blocks = Path(sys.argv[2]), json.loads(sys.argv[3])
job = JobDocument.model_validate({
    "owner": {"kind": "FineTuneJob", "namespace": "team-a", "name": "kbqa", "uid": "0123"},
    "stage": "sft",
    "model": {"uri": "hf://org/base"},
    "dataset": {"uri": "pvc://data/a.json"},
    "training": {"learningRate": 0.5},
    "output": "pvc://models/kbqa",
    "tracking": blocks,
})
said = []
with tracking(job, folder, said.append) as track:
    for step in json.loads(sys.argv[4]):
        track(step, {"loss": 1.0 / step, "1-raft/reward": float(step)})
print(json.dumps(said))
"""


def told(python: str, folder: Path, blocks: dict[str, Any], steps: list[int]) -> list[str]:
    """What one attempt says that tells the steps to a tracker."""
    (clients,) = Path(python).parents[1].glob("lib/python*/site-packages")
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH")}
    environment |= {"HOME": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    command = [sys.executable, "-c", PROGRAM, str(clients), str(folder), json.dumps(blocks), json.dumps(steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said: list[str] = json.loads(done.stdout.splitlines()[-1])
    return said


READ = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
(run,) = client.search_runs([client.get_experiment_by_name("team-a").experiment_id])
curve = {name: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)]
         for name in run.data.metrics}
print(json.dumps([run.info.run_name, run.info.status, run.data.params, curve]))
"""


@pytest.mark.slow
def test_attempts_go_on_in_one_run_of_mlflow(python: str, server: str, tmp_path: Path) -> None:
    blocks = {"mlflow": {"uri": server}}
    assert told(python, tmp_path, blocks, [1, 2]) == []
    assert told(python, tmp_path, blocks, [3]) == []

    read = subprocess.run([python, "-c", READ, server], capture_output=True, text=True, check=True)
    name, status, parameters, curve = json.loads(read.stdout.splitlines()[-1])
    assert (name, status) == ("FineTuneJob/kbqa", "FINISHED")
    assert parameters["training/learningRate"] == "0.5"
    assert curve == {
        "loss": [[1, 1.0], [2, 0.5], [3, pytest.approx(1 / 3)]],
        "1-raft/reward": [[1, 1.0], [2, 2.0], [3, 3.0]],
    }


@pytest.mark.slow
def test_a_server_that_is_away_costs_no_training(python: str, tmp_path: Path) -> None:
    (said,) = told(python, tmp_path, {"mlflow": {"uri": "http://127.0.0.1:9"}}, [1, 2])
    assert said.startswith("Warning: MLflow does not take the metrics any more")


@pytest.mark.slow
def test_a_run_of_wandb_is_written_beside_the_model(python: str, tmp_path: Path) -> None:
    blocks = {"wandb": {"project": "answers", "offline": True}}
    assert told(python, tmp_path, blocks, [1, 2]) == []
    assert told(python, tmp_path, blocks, [3]) == []
    runs = list((tmp_path / "wandb").rglob("run-*.wandb"))
    assert len(runs) == 2, "one for each attempt"
    assert len({run.name for run in runs}) == 1, "under one id, by which they become one run"
    content = b"".join(run.read_bytes() for run in runs)
    assert b"train/loss" in content
    assert b"1-raft/reward" in content
