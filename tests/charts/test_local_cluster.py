"""The chart on the local cluster: the operator runs there as a Deployment, `helm test` passes, a job trains, and a
Prometheus finds operator and job by the monitors that are rendered."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.charts.conftest import Cluster
from tests.charts.rendering import NAMESPACE, Json, of_kind, render
from tests.charts.test_prometheus import series
from tests.cluster_fixtures import RunningCluster, wait_until
from tests.e2e.jobs import PAIRS, config_map, finetune_job
from tests.ports import free_port

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
        local.kubectl("delete", "namespace", NAMESPACE, "--timeout=60s")


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


def meta_name(label: str) -> str:
    return re.sub("[^a-zA-Z0-9]", "_", label)


def discovered(cluster: Cluster) -> list[Json]:
    """Every port of a running pod, with the labels that Prometheus' discovery of Kubernetes gives it, as a pod's and,
    for the operator's Service, as an endpoint's. (Debian's Prometheus is built without that discovery.)"""
    service = cluster.read("service", "alidade-operator", "--namespace", NAMESPACE)
    found = []
    for pod in cluster.read("pods", "--all-namespaces")["items"]:
        metadata = pod["metadata"]
        labels = metadata["labels"]
        for port in [port for one in pod["spec"]["containers"] for port in one.get("ports", [])]:
            told = {
                "__meta_kubernetes_namespace": metadata["namespace"],
                "__meta_kubernetes_pod_name": metadata["name"],
                "__meta_kubernetes_pod_container_port_name": port["name"],
            } | {f"__meta_kubernetes_pod_label_{meta_name(key)}": value for key, value in labels.items()}
            if service["spec"]["selector"].items() <= labels.items():
                own = service["metadata"]["labels"].items()
                told |= {f"__meta_kubernetes_service_label_{meta_name(key)}": value for key, value in own}
                told["__meta_kubernetes_endpoint_port_name"] = service["spec"]["ports"][0]["name"]
            if pod["status"].get("podIP"):
                found.append({"targets": [f"{pod['status']['podIP']}:{port['containerPort']}"], "labels": told})
    return found


def scrape_config(monitor: Json, targets: list[Json]) -> Json:
    """What the Prometheus operator makes of a PodMonitor or ServiceMonitor with one endpoint."""
    is_pods = monitor["kind"] == "PodMonitor"
    (endpoint,) = monitor["spec"]["podMetricsEndpoints" if is_pods else "endpoints"]
    selector = monitor["spec"]["selector"]
    wanted = {key: re.escape(value) for key, value in selector["matchLabels"].items()}
    wanted |= {one["key"]: "|".join(one["values"]) for one in selector.get("matchExpressions", [])}
    what = "pod" if is_pods else "service"
    labels = {f"__meta_kubernetes_{what}_label_{meta_name(key)}": regex for key, regex in wanted.items()}
    labels[f"__meta_kubernetes_{'pod_container' if is_pods else 'endpoint'}_port_name"] = endpoint["port"]
    kept = [{"source_labels": [label], "regex": regex, "action": "keep"} for label, regex in labels.items()]
    places = {"__meta_kubernetes_namespace": "namespace", "__meta_kubernetes_pod_name": "pod"}
    relabelings = [
        {"source_labels": one["sourceLabels"], "target_label": one["targetLabel"]}
        for one in endpoint.get("relabelings", [])
    ]
    return {
        "job_name": monitor["metadata"]["name"] + ("" if is_pods else "-service"),
        "honor_labels": endpoint.get("honorLabels", False),
        "static_configs": targets,
        "relabel_configs": [
            *kept,
            *({"source_labels": [meta], "target_label": label} for meta, label in places.items()),
            *relabelings,
        ],
    }


@contextmanager
def prometheus(folder: Path, cluster: Cluster) -> Iterator[str]:
    """A Prometheus that looks for its targets where the rendered monitors say."""
    monitors = of_kind(render({"monitoring": {"enabled": True}}), "PodMonitor", "ServiceMonitor")
    targets = discovered(cluster)
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [scrape_config(monitor, targets) for monitor in monitors],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


@pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="prometheus is not installed; on Debian `python tools/prometheus.py .tools/bin` fetches it",
)
def test_the_monitors_lead_prometheus_to_operator_and_job(installed: Cluster, tmp_path: Path) -> None:
    data = config_map("sums", train_json=json.dumps({"type": "text2text", "instances": PAIRS}))
    for body in (data, finetune_job("watched", steps=100_000, compute={"workers": 2})):
        installed.kubectl("apply", "--server-side", "--filename", "-", stdin=json.dumps(body))
    of_it = 'namespace="default",name="watched",kind="FineTuneJob"'

    def runs() -> bool:
        progress = (installed.read("ftj", "watched").get("status") or {}).get("progress") or {}
        return bool(progress.get("step"))

    wait_until(runs, "the job to make a step", timeout_s=180)
    with prometheus(tmp_path, installed) as address:
        for expr in (
            f'alidade_operator_leader{{namespace="{NAMESPACE}",pod=~"alidade-operator-.+"}} == 1',
            f'alidade_trainer_step{{{of_it},component="trainer",pod="watched-1-master-0"}} > 0',
            f"alidade_job_step{{{of_it}}} > 0",
        ):
            wait_until(lambda expr=expr: series(address, expr) or None, f"{expr} to have data", timeout_s=60)  # type: ignore[misc]
        # The first pod tells for both of them.
        found = series(address, 'up{kind="FineTuneJob"}')
        assert [one["metric"]["pod"] for one in found] == ["watched-1-master-0"], (found, series(address, "up"))
    installed.kubectl("delete", "ftj/watched", "configmap/sums")
