"""The chart on the local cluster: the operator runs there as a Deployment, `helm test` passes, a job trains."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.charts.conftest import Cluster, free_port
from tests.charts.rendering import NAMESPACE, Json
from tests.cluster_fixtures import RunningCluster, wait_until
from tests.e2e.jobs import PAIRS, config_map, finetune_job

pytestmark = pytest.mark.slow

# The local kubelet mounts no token of the pod's account: its kubeconfig is in a Secret.
ACCOUNT: Json = {
    "env": [{"name": "KUBECONFIG", "value": "/etc/alidade/account/kubeconfig"}],
    "volumes": [{"name": "account", "secret": {"secretName": "operator-account"}}],
    "volumeMounts": [{"name": "account", "mountPath": "/etc/alidade/account", "readOnly": True}],
}


@pytest.fixture
def installed(cluster: RunningCluster, tmp_path: Path) -> Iterator[Cluster]:
    """The local cluster with the release: one replica, since all pods share the machine's ports."""
    local = Cluster(cluster.kubeconfig)
    config = {"metricsPort": free_port(), "allowFileUris": True, "nodePools": [{"name": "local"}]}
    # The local cluster brings the resource types itself.
    values = {"replicas": 1, "crds": {"install": False}, "config": config} | ACCOUNT
    local.helm("install", "--create-namespace", values=values)
    try:
        kubeconfig = local.account_kubeconfig(tmp_path / "kubeconfig")
        secret = ("create", "secret", "generic", "operator-account", "--namespace", NAMESPACE)
        local.kubectl(*secret, f"--from-file=kubeconfig={kubeconfig}")
        local.kubectl("rollout", "status", "deployment/alidade-operator", "--namespace", NAMESPACE, "--timeout=90s")
        yield local
    finally:
        local.run("helm", "uninstall", "alidade", "--namespace", NAMESPACE)
        local.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def test_the_release_passes_its_test_and_trains(installed: Cluster) -> None:
    said = installed.run("helm", "test", "alidade", "--namespace", NAMESPACE, "--logs")
    assert "every replica is ready, and one of them works" in said

    data = config_map("sums", train_json=json.dumps({"type": "text2text", "instances": PAIRS}))
    job = finetune_job("by-helm", steps=4, compute={"workers": 1})
    for body in (data, job):
        installed.kubectl("apply", "--server-side", "--filename", "-", stdin=json.dumps(body))

    def status() -> Json:
        found: Json = installed.read("ftj", "by-helm").get("status") or {}
        return found

    wait_until(
        lambda: status().get("phase") in ("Succeeded", "Failed"), lambda: f"by-helm to end: {status()}", timeout_s=300
    )
    assert status()["phase"] == "Succeeded", status()
    installed.kubectl("delete", "ftj/by-helm", "configmap/sums")
