"""Models in MLflow's registry: the client as the trainer's image has it, and MLflow's own server and database."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from alidade_crds.contract import Owner
from alidade_crds.publishing import MlflowRegistration
from alidade_crds.status import ModelInfo
from alidade_trainer.publishing.refusal import Refusal
from alidade_trainer.publishing.registry import Entry, register
from tests.environments import ROOT

PROGRAM = """
import json, sys
from alidade_crds.contract import Owner
from alidade_crds.publishing import MlflowRegistration
from alidade_crds.status import ModelInfo
from alidade_trainer.publishing.refusal import Refusal
from alidade_trainer.publishing.registry import Entry, register
from mlflow import MlflowClient

address = sys.argv[1]
owner = Owner(kind="FineTuneJob", namespace="team-a", name="kbqa", uid="0123")
metrics = {"eval_loss": 1.25, "perplexity": float("inf")}

def entry(digest):
    model = ModelInfo(uri="pvc://models/kbqa/model", digest=digest, base_model="hf://org/base", parameters=1,
                      trainable_parameters=1)
    return Entry(model, metrics, owner, "f00d")

to = MlflowRegistration(tracking_uri=address, name="kbqa", alias="candidate")
client = MlflowClient(address, address)
# An attempt that broke off between the run and the version.
create, MlflowClient.create_model_version = MlflowClient.create_model_version, None
try:
    register(to, entry("sha256:1"))
except TypeError:
    MlflowClient.create_model_version = create
versions = [register(to, entry(digest)).to_dict() for digest in ("sha256:1", "sha256:1", "sha256:2", "sha256:1")]
refused = ""
try:
    register(to.model_copy(update={"name": "a/b"}), entry("sha256:1"))
except Refusal as refusal:
    refused = f"{refusal.retryable} {refusal}"
first = client.get_model_version("kbqa", "1")
experiment = client.get_experiment_by_name("team-a")
print(json.dumps({
    "versions": versions,
    "source": first.source,
    "tags": first.tags,
    "alias": client.get_model_version_by_alias("kbqa", "candidate").version,
    "runs": sorted(run.info.run_id for run in client.search_runs([experiment.experiment_id])),
    "metrics": client.get_run(first.run_id).data.metrics,
    "status": client.get_run(first.run_id).info.status,
    "refused": refused,
}))
"""


@pytest.mark.slow
def test_a_model_is_registered_once_with_its_metrics(python: str, server: str, tmp_path: Path) -> None:
    folders = os.pathsep.join(str(ROOT / name) for name in ("crds", "trainer"))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": folders,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    }
    command = [python, "-c", PROGRAM, server]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    first, again, second, back = found["versions"]
    assert first == again == back
    assert (first["name"], first["version"], second["version"]) == ("kbqa", "1", "2")
    assert found["source"] == "pvc://models/kbqa/model"
    assert found["alias"] == "1", "it points to what was registered last"
    assert found["tags"] == {
        "alidade.digest": "sha256:1",
        "alidade.jobFingerprint": "f00d",
        "alidade.kind": "FineTuneJob",
        "alidade.namespace": "team-a",
        "alidade.name": "kbqa",
        "alidade.uid": "0123",
        "alidade.baseModel": "hf://org/base",
    }
    assert found["runs"] == sorted([first["runId"], second["runId"]]), "the one that broke off was taken up"
    assert (found["metrics"], found["status"]) == ({"eval_loss": 1.25}, "FINISHED")
    assert found["refused"].startswith(f"False MLflow at {server} answered 400: ")


def test_an_image_without_the_client_says_so() -> None:
    model = ModelInfo(uri="pvc://m/model", digest="sha256:1", parameters=1, trainable_parameters=1)
    owner = Owner(kind="FineTuneJob", namespace="team", name="a", uid="1")
    to = MlflowRegistration(tracking_uri="https://mlflow.example.org", name="a")
    with pytest.raises(Refusal, match="this image lacks the package mlflow-skinny"):
        register(to, Entry(model, {}, owner, ""))
