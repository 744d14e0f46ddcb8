"""The SDK against a real API server; the test plays the operator by writing statuses."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from alidade import (
    AlidadeError,
    Client,
    FineTuneJobSpec,
    NotFoundError,
    RefusedError,
    ResourceFailedError,
    UnreachableError,
    WaitTimeoutError,
)
from alidade_crds.crd import KINDS, manifests
from tests.charts.conftest import Cluster
from tests.operator.conftest import api_server_process
from tests.operator.test_admission import BASE

MODEL = {"uri": "pvc://alidade-workspace/x/model", "digest": "sha256:a", "parameters": 10, "trainableParameters": 10}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An API server with the resource types."""
    folder = tmp_path_factory.mktemp("apiserver")
    process = api_server_process(folder)
    process.start()
    try:
        process.wait_for("serving https://")
        own = Cluster(folder / "kubeconfig")
        for manifest in manifests():
            own.kubectl("create", "--filename", "-", stdin=json.dumps(manifest))
        own.kubectl("wait", "--for=condition=Established", "crd/finetunejobs.alidade.dev", "--timeout=30s")
        own.make_namespace("team-a")
        yield own
    finally:
        process.stop()


@pytest.fixture
def client(cluster: Cluster) -> Client:
    return Client("team-a", kubeconfig=cluster.kubeconfig)


def condition(kind: str, status: str = "True", message: str = "So it is.") -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"type": kind, "status": status, "reason": "Because", "message": message, "lastTransitionTime": now}


def tell(cluster: Cluster, resource: str, **status: Any) -> None:
    """Writes a status, as the operator does."""
    patch = json.dumps({"status": status})
    words = ("--namespace", "team-a", "--subresource=status", "--type=merge", f"--patch={patch}")
    cluster.kubectl("patch", resource, *words)


def test_there_is_a_way_to_every_kind(client: Client) -> None:
    ways = (client.fine_tune_jobs, client.reward_models, client.alignment_runs, client.evaluations, client.model_serves)
    assert [way.kind for way in ways] == list(KINDS)
    for way in ways:
        assert way.list() == []


def test_what_is_applied_is_read_back_with_types(client: Client) -> None:
    made = client.fine_tune_jobs.apply("typed", FineTuneJobSpec.model_validate(BASE), labels={"team": "a"})
    assert (made.name, made.namespace, made.generation) == ("typed", "team-a", 1)
    assert made.spec.dataset.uri == BASE["dataset"]["uri"]
    assert made.status.observed_generation == -1, "nobody has looked at it yet"
    same = client.fine_tune_jobs.apply("typed", BASE, labels={"team": "a"})
    assert same.body["metadata"]["resourceVersion"] == made.body["metadata"]["resourceVersion"], "nothing has changed"
    assert [one.name for one in client.fine_tune_jobs.list("team=a")] == ["typed"]
    changed = client.fine_tune_jobs.apply("typed", {**BASE, "suspend": True})
    assert changed.spec.suspend
    assert changed.generation == 2
    client.fine_tune_jobs.delete("typed")
    with pytest.raises(NotFoundError, match="FineTuneJob typed in team-a"):
        client.fine_tune_jobs.get("typed")


def test_a_dry_run_keeps_nothing(client: Client) -> None:
    client.fine_tune_jobs.apply("dry", BASE, dry_run=True)
    assert client.fine_tune_jobs.list() == []


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({**BASE, "training": {"learningRate": -1}}, "spec.training.learningRate"),
        ({**BASE, "trainig": {}}, "trainig"),
        ({**BASE, "model": {}}, "spec.model"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_fields_name(client: Client, spec: dict[str, Any], words: str) -> None:
    with pytest.raises(RefusedError, match=words):
        client.fine_tune_jobs.apply("wrong", spec)
    assert client.fine_tune_jobs.list() == []


def test_a_field_of_somebody_else_is_taken_over_only_by_force(client: Client, cluster: Cluster) -> None:
    client.fine_tune_jobs.apply("shared", {**BASE, "suspend": True})
    other = {"apiVersion": "alidade.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "shared"}}
    body = json.dumps(other | {"spec": {**BASE, "suspend": False}})
    words = ("--server-side", "--force-conflicts", "--field-manager=somebody", "--namespace", "team-a")
    cluster.kubectl("apply", *words, "--filename", "-", stdin=body)
    with pytest.raises(RefusedError, match="somebody"):
        client.fine_tune_jobs.apply("shared", {**BASE, "suspend": True})
    assert client.fine_tune_jobs.apply("shared", {**BASE, "suspend": True}, force=True).spec.suspend
    client.fine_tune_jobs.delete("shared")


def test_waiting_sees_every_state_and_ends_with_the_result(client: Client, cluster: Cluster) -> None:
    client.fine_tune_jobs.apply("good", BASE)

    def operate() -> None:
        time.sleep(0.5)
        tell(cluster, "ftj/good", phase="Running", observedGeneration=1)
        time.sleep(0.5)
        succeeded = [condition("Succeeded")]
        tell(cluster, "ftj/good", phase="Succeeded", observedGeneration=1, model=MODEL, conditions=succeeded)

    played = threading.Thread(target=operate)
    played.start()
    phases: list[str | None] = []
    done = client.fine_tune_jobs.wait("good", timeout_s=60, on_change=lambda one: phases.append(one.status.phase))
    played.join()
    assert done.has_succeeded
    assert done.status.model is not None
    assert done.status.model.uri == MODEL["uri"]
    assert phases == [None, "Running", "Succeeded"] or phases == [None, None, "Running", "Succeeded"]
    client.fine_tune_jobs.delete("good")


def test_a_failure_is_raised_in_the_conditions_words(client: Client, cluster: Cluster) -> None:
    client.fine_tune_jobs.apply("bad", BASE)
    tell(cluster, "ftj/bad", observedGeneration=1, conditions=[condition("Failed", message="Line 2 is broken.")])
    with pytest.raises(ResourceFailedError, match=r"FineTuneJob bad failed: Line 2 is broken\.") as caught:
        client.fine_tune_jobs.wait("bad", timeout_s=30)
    assert caught.value.reason == "Because"
    client.fine_tune_jobs.delete("bad")


def test_a_model_that_failed_before_its_spec_was_changed_is_waited_for(client: Client, cluster: Cluster) -> None:
    client.model_serves.apply("chat", {"model": {"uri": "pvc://data/one"}})
    tell(cluster, "ms/chat", observedGeneration=1, conditions=[condition("Failed", message="Too worse.")])
    client.model_serves.apply("chat", {"model": {"uri": "pvc://data/two"}})
    with pytest.raises(WaitTimeoutError, match=r"ModelServe chat has not finished after 1 s"):
        client.model_serves.wait("chat", timeout_s=1)
    settled = [condition("Progressing", "False"), condition("Accepted"), condition("Quantized")]
    tell(cluster, "ms/chat", observedGeneration=2, conditions=settled)
    assert client.model_serves.wait("chat", timeout_s=30).has_succeeded
    client.model_serves.delete("chat")


def test_the_time_is_over_with_what_is_waited_for(client: Client, cluster: Cluster) -> None:
    client.fine_tune_jobs.apply("slow", BASE)
    tell(cluster, "ftj/slow", conditions=[condition("Accepted", "False", "There is no claim data.")])
    with pytest.raises(WaitTimeoutError, match=r"after 1 s; Accepted is False: There is no claim data\."):
        client.fine_tune_jobs.wait("slow", timeout_s=1)
    client.fine_tune_jobs.delete("slow")


def test_what_is_deleted_meanwhile_is_not_waited_for(client: Client) -> None:
    client.fine_tune_jobs.apply("gone", BASE)
    timer = threading.Timer(0.5, client.fine_tune_jobs.delete, ["gone"])
    timer.start()
    with pytest.raises(NotFoundError, match="was deleted meanwhile"):
        client.fine_tune_jobs.wait("gone", timeout_s=30)


def test_logs_are_the_first_process_of_the_present_attempt(client: Client, cluster: Cluster) -> None:
    client.fine_tune_jobs.apply("told", BASE)
    with pytest.raises(NotFoundError, match="FineTuneJob told has not been launched"):
        list(client.fine_tune_jobs.logs("told"))
    tell(cluster, "ftj/told", jobRef={"kind": "PyTorchJob", "name": "told-1"})
    with pytest.raises(NotFoundError, match="the pods of FineTuneJob told are gone"):
        list(client.fine_tune_jobs.logs("told"))
    client.fine_tune_jobs.delete("told")


def test_nobody_to_ask(tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AlidadeError, match="no kubeconfig that can be used"):
        Client(kubeconfig=tmp_path / "none")
    with pytest.raises(AlidadeError, match="no context other"):
        Client(kubeconfig=cluster.kubeconfig, context="other")
    config = json.loads(cluster.kubectl("config", "view", "--raw", "--output", "json"))
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    path = tmp_path / "nobody"
    path.write_text(json.dumps(config))
    with pytest.raises(UnreachableError):
        Client(kubeconfig=path).fine_tune_jobs.list()
