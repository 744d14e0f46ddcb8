"""helm installs, upgrades, rolls back and uninstalls; resource types are upgraded and, by choice, kept."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path

import pytest

from alidade_crds.crd import manifests
from tests.charts.conftest import Cluster
from tests.charts.rendering import CHART, NAMESPACE, Json

pytestmark = pytest.mark.slow

OWN_KINDS = sorted(manifest["metadata"]["name"] for manifest in manifests())
JOB: Json = {
    "apiVersion": "alidade.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "kept", "namespace": "default"},
    "spec": {
        "method": "pretrain",
        "model": {"init": {"hiddenSize": 64, "layers": 2, "heads": 4, "vocabSize": 512}},
        "dataset": {"uri": "pvc://data/train.json"},
    },
}


def own_kinds(cluster: Cluster) -> list[str]:
    names = [one["metadata"]["name"] for one in cluster.read("crds")["items"]]
    return sorted(name for name in names if name.endswith(".alidade.dev"))


def wait_for_kind(cluster: Cluster) -> None:
    cluster.kubectl("wait", "--for=condition=Established", "crd/finetunejobs.alidade.dev", "--timeout=30s")


def older_chart(folder: Path) -> Path:
    """The chart of an earlier release, whose FineTuneJobs have no column `Tok/s` yet."""
    chart = folder / "alidade"
    shutil.copytree(CHART, chart)
    path = chart / "templates" / "crds" / "finetunejobs.yaml"
    text, count = re.subn(r"    - name: Tok/s\n(      .*\n)+", "", path.read_text())
    assert count == 1
    path.write_text(text)
    metadata = chart / "Chart.yaml"
    metadata.write_text(metadata.read_text().replace("version: 0.1.0", "version: 0.0.9", 1))
    return chart


def columns(cluster: Cluster) -> list[str]:
    (version,) = cluster.read("crd", "finetunejobs.alidade.dev")["spec"]["versions"]
    return [column["name"] for column in version["additionalPrinterColumns"]]


def test_an_upgrade_takes_the_resource_types_along_and_keeps_resources(bare_cluster: Cluster, tmp_path: Path) -> None:
    bare_cluster.helm("install", chart=older_chart(tmp_path))
    wait_for_kind(bare_cluster)
    assert "Tok/s" not in columns(bare_cluster)
    bare_cluster.kubectl("apply", "--filename", "-", stdin=json.dumps(JOB))
    uid = bare_cluster.read("ftj", "kept")["metadata"]["uid"]

    bare_cluster.helm("upgrade", values={"replicas": 3})
    assert "Tok/s" in columns(bare_cluster)
    assert bare_cluster.read("deployment", "alidade-operator", "-n", NAMESPACE)["spec"]["replicas"] == 3

    bare_cluster.run("helm", "rollback", "alidade", "1", "--namespace", NAMESPACE)
    assert "Tok/s" not in columns(bare_cluster)
    assert bare_cluster.read("deployment", "alidade-operator", "-n", NAMESPACE)["spec"]["replicas"] == 2
    assert bare_cluster.read("ftj", "kept")["metadata"]["uid"] == uid


def test_resources_outlive_the_release_and_the_next_one_takes_them_up(bare_cluster: Cluster) -> None:
    bare_cluster.helm("install", values={"workspace": {"namespaces": ["default"]}})
    wait_for_kind(bare_cluster)
    bare_cluster.kubectl("apply", "--filename", "-", stdin=json.dumps(JOB))
    said = bare_cluster.run("helm", "uninstall", "alidade", "--namespace", NAMESPACE)
    assert "kept due to the resource policy" in said
    assert own_kinds(bare_cluster) == OWN_KINDS
    assert bare_cluster.read("ftj", "kept")["metadata"]["name"] == "kept"
    assert bare_cluster.read("pvc", "alidade-workspace")["metadata"]["name"] == "alidade-workspace"
    assert bare_cluster.read("clusterroles")["items"] == []
    assert bare_cluster.read("deployments", "-n", NAMESPACE)["items"] == []
    bare_cluster.helm("install", values={"workspace": {"namespaces": ["default"]}})


def test_without_keep_everything_goes(bare_cluster: Cluster) -> None:
    bare_cluster.helm("install", values={"crds": {"keep": False}})
    wait_for_kind(bare_cluster)
    bare_cluster.run("helm", "uninstall", "alidade", "--namespace", NAMESPACE)
    bare_cluster.kubectl("wait", "--for=delete", "crd/finetunejobs.alidade.dev", "--timeout=30s")
    assert own_kinds(bare_cluster) == []


def test_a_release_with_all_that_there_is_fits_into_its_secret(bare_cluster: Cluster) -> None:
    """helm keeps chart and objects in a Secret, which has 1 MiB."""
    for kind in ("PodMonitor", "ServiceMonitor", "PrometheusRule"):
        bare_cluster.kubectl("create", "--filename", "-", stdin=json.dumps(monitoring_kind(kind)))
    bare_cluster.helm("install", values={"monitoring": {"enabled": True}})
    (secret,) = [one for one in bare_cluster.read("secrets", "-n", NAMESPACE)["items"] if "release" in one["data"]]
    assert len(base64.b64decode(secret["data"]["release"])) < 800_000
    assert len(bare_cluster.read("podmonitors", "-n", NAMESPACE)["items"]) == 3


def monitoring_kind(kind: str) -> Json:
    """A kind of the Prometheus operator, whatever is in it."""
    plural = f"{kind.lower()}s"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com",
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


def test_notes_say_what_is_missing_and_what_to_do_next(bare_cluster: Cluster) -> None:
    said = bare_cluster.helm("install")
    assert "Alidade 0.1.0 serves all namespaces." in said
    assert "helm --namespace alidade-system test alidade" in said
    assert "PyTorchJob" not in said, "it is there"
    for missing in ("Kueue", "the Prometheus operator", "config.nodePools is empty", "alidade-workspace"):
        assert missing in said
    pools = [{"name": "a", "trainingBackend": "TrainJob"}]
    said = bare_cluster.helm("upgrade", values={"config": {"nodePools": pools}, "watchNamespaces": ["default"]})
    assert "Alidade 0.1.0 serves the namespaces default." in said
    assert "nodePools" not in said
    assert "TrainJob (trainer.kubeflow.org/v1alpha1): jobs wait with TrainingOperatorMissing" in said
