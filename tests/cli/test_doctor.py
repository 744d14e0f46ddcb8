"""alidade doctor: whatever a cluster lacks gets its sentence, and what to do; the exit code says whether jobs run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from alidade_cli.doctor.findings import Finding, findings
from alidade_cli.doctor.survey import Survey
from alidade_cli.main import alidade
from alidade_crds.crd import KINDS
from tests.charts.conftest import Cluster
from tests.charts.rendering import NAMESPACE
from tests.operator.conftest import api_server_process
from tests.operator.played import PYTORCH_JOB_KIND

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
POOLS = {"nodePools": [{"name": "a100", "nodeSelector": {"gpu": "a100"}, "gpusPerNode": 8}, {"name": "any"}]}


def node(labels: dict[str, str], gpus: int = 0) -> dict[str, Any]:
    return {"metadata": {"labels": labels}, "status": {"allocatable": {"nvidia.com/gpu": str(gpus)} if gpus else {}}}


def lease(holder: str = "alidade-operator-1", age_s: float = 2) -> dict[str, Any]:
    renewed = (NOW - timedelta(seconds=age_s)).isoformat().replace("+00:00", "Z")
    spec = {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 11}
    return {"metadata": {"namespace": NAMESPACE}, "spec": spec}


def claim(*modes: str, phase: str = "Bound") -> dict[str, Any]:
    return {"metadata": {"name": "alidade-workspace"}, "spec": {"accessModes": list(modes)}, "status": {"phase": phase}}


def hook(**client: str) -> dict[str, Any]:
    rule = {"apiGroups": ["alidade.dev"]}
    return {"webhooks": [{"name": "resources.alidade.dev", "clientConfig": client, "rules": [rule]}]}


WELL = Survey(
    version="v1.34.1",
    namespace="team-a",
    own_kinds=frozenset(kind.plural for kind in KINDS),
    training_kinds=frozenset({"pytorchjobs"}),
    groups=frozenset({"kueue.x-k8s.io", "monitoring.coreos.com", "keda.sh", "cert-manager.io"}),
    operators=[{"metadata": {"name": "alidade-operator", "namespace": NAMESPACE}, "status": {"readyReplicas": 2}}],
    configuration=POOLS,
    leases=[lease()],
    nodes=[node({"gpu": "a100", "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}, 8), node({})],
    storage_classes=[{"metadata": {"name": "shared"}, "provisioner": "filestore.csi.storage.gke.io"}],
    claims=[claim("ReadWriteMany")],
    queues=[{"metadata": {"name": "team-a"}}],
    webhooks=[hook(caBundle="x")],
)


def told(seen: Survey) -> dict[str, Finding]:
    return {one.name: one for one in findings(seen, NOW)}


def test_a_cluster_that_has_it_all() -> None:
    found = told(WELL)
    assert {one.state for one in found.values()} == {"ok"}
    assert not any(one.fix for one in found.values())
    assert found["GPUs"].message == "8 on 1 node: NVIDIA-A100-SXM4-80GB"
    assert found["operator"].message == "alidade-operator-1 works; it said so 2 s ago"
    assert found["node pool a100"].message == "1 node (gpu=a100)"


@pytest.mark.parametrize(
    ("changes", "name", "state", "words"),
    [
        ({"version": "v1.28.9"}, "Kubernetes", "missing", "needs 1.29 or newer"),
        ({"own_kinds": frozenset({"finetunejobs"})}, "resource types", "missing", "lacks RewardModel"),
        ({"training_kinds": frozenset({"tfjobs"})}, "training operator", "missing", "no job can train"),
        (
            {"configuration": {"trainingBackend": "TrainJob"}},
            "trainer",
            "missing",
            "TrainJobs (trainer.kubeflow.org/v1alpha1)",
        ),
        ({"leases": [lease(age_s=60)]}, "operator", "missing", "has been silent for 60 s"),
        ({"leases": [lease(holder="")]}, "operator", "warning", "is ready and holds no lease yet"),
        (
            {"leases": [], "operators": [{"metadata": {"name": "o", "namespace": "n"}, "status": {}}]},
            "operator",
            "missing",
            "Deployment o in n has no ready replica",
        ),
        ({"leases": [], "operators": []}, "operator", "warning", "without leader election"),
        ({"leases": None, "operators": None}, "operator", "hidden", "you may list neither"),
        ({"nodes": [node({})]}, "GPUs", "warning", "none of 1 node offers nvidia.com/gpu"),
        ({"nodes": None}, "GPUs", "hidden", "you may not list nodes"),
        ({"nodes": [node({}, 8)]}, "node pool a100", "warning", "no node has gpu=a100"),
        (
            {"nodes": [node({"gpu": "a100"}, 4)]},
            "node pool a100",
            "warning",
            "offer 4 GPUs at most, gpusPerNode says 8",
        ),
        ({"claims": []}, "workspace of team-a", "warning", "there is no claim alidade-workspace"),
        ({"claims": [claim("ReadWriteOnce")]}, "workspace of team-a", "warning", "need ReadWriteMany"),
        ({"claims": [claim("ReadWriteMany", phase="Lost")]}, "workspace of team-a", "missing", "lost its volume"),
        (
            {"storage_classes": [{"metadata": {"name": "disk"}, "provisioner": "pd.csi.storage.gke.io"}], "claims": []},
            "shared storage",
            "warning",
            "there are: disk (pd.csi.storage.gke.io)",
        ),
        ({"webhooks": [hook()]}, "admission webhook", "warning", "no caBundle yet"),
        ({"webhooks": []}, "admission webhook", "optional", "told by its conditions only"),
        ({"groups": frozenset()}, "Kueue", "optional", "stay suspended"),
        ({"queues": []}, "Kueue", "warning", "team-a has no LocalQueue"),
        ({"groups": frozenset()}, "KEDA", "optional", "no autoscaling.provider keda"),
    ],
)
def test_what_is_amiss_is_said_with_what_to_do(changes: dict[str, Any], name: str, state: str, words: str) -> None:
    one = told(replace(WELL, **changes))[name]
    assert one.state == state
    assert words in f"{one.message} {one.fix}"
    assert bool(one.fix) == (state in ("missing", "warning"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Cluster]:
    """An API server that knows nothing of ours and has no controllers."""
    process = api_server_process(tmp_path)
    process.start()
    try:
        process.wait_for("serving https://")
        yield Cluster(tmp_path / "kubeconfig")
    finally:
        process.stop()


def doctor(cluster: Cluster, *options: str) -> Result:
    environment = {"KUBECONFIG": str(cluster.kubeconfig)}
    return CliRunner().invoke(alidade, ["doctor", *options], env=environment, catch_exceptions=False)


def test_from_an_empty_cluster_to_one_that_can_train(server: Cluster) -> None:
    said = doctor(server)
    assert said.exit_code == 1
    assert "MISSING  resource types" in said.output
    assert "-> helm upgrade --install alidade" in said.output
    server.kubectl("create", "--filename", str(PYTORCH_JOB_KIND))
    server.make_namespace(NAMESPACE)
    server.make_namespace("team-a")
    values = {"webhook": {"enabled": True}, "workspace": {"namespaces": ["team-a"]}, "config": POOLS}
    server.helm("install", values=values)
    said = doctor(server, "--namespace", "team-a", "--output", "json")
    found = {one["name"]: one for one in json.loads(said.output)}
    assert said.exit_code == 1
    states = {name: one["state"] for name, one in found.items()}
    assert states["resource types"] == states["training operator"] == states["workspace of team-a"] == "ok"
    # Nobody runs here: neither controllers nor the operator, which would sign.
    assert found["operator"]["message"] == "Deployment alidade-operator in alidade-system has no ready replica"
    assert found["admission webhook"]["state"] == "warning"
    assert found["node pool a100"]["message"] == "no node has gpu=a100"


def test_whoever_may_not_look_is_told_so(server: Cluster, tmp_path: Path) -> None:
    server.make_namespace("team-a")
    server.kubectl("create", "serviceaccount", "someone", "--namespace", "team-a")
    token = server.kubectl("create", "token", "someone", "--namespace", "team-a").strip()
    config = json.loads(server.kubectl("config", "view", "--raw", "--output", "json"))
    config["users"][0]["user"] = {"token": token}
    own = tmp_path / "someone.json"
    own.write_text(json.dumps(config))
    said = doctor(Cluster(own), "--namespace", "team-a")
    assert "you may not list nodes" in said.output
    assert "you may list neither Deployments nor Leases" in said.output


def test_a_cluster_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    process = api_server_process(tmp_path)
    process.start()
    process.wait_for("serving https://")
    process.stop()
    said = doctor(Cluster(tmp_path / "kubeconfig"))
    assert said.exit_code == 1
    assert "does not answer" in said.output
