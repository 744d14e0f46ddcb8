"""The chart on the local cluster: two replicas of the operator run there as a Deployment, examples pass the webhook, a
run goes through a killed replica, an upgrade and a rollback, and a Prometheus finds operator and job by the monitors
that are rendered. The last test takes the release away."""

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
from tests.charts.replicas import install, kill_acting, lease, ledger, on_this_machine, pod_of, wait_until_ready
from tests.charts.test_prometheus import series
from tests.cluster_fixtures import RunningCluster, wait_until
from tests.e2e.jobs import PAIRS, alignment_run, config_map, finetune_job
from tests.golden.rendering import CONFIG_FILE, documents, examples
from tests.ports import free_port

pytestmark = pytest.mark.slow

TEAM = "team"
(EXAMPLES_CONFIG,) = documents(CONFIG_FILE)
VALUES = on_this_machine(
    # There is no DNS: the test of the release gets the address of one replica only.
    replicas=1,
    # This machine, for what names no pool, and those that the examples name.
    config={"nodePools": [{"name": "local"}, *(one for one in EXAMPLES_CONFIG["nodePools"] if one["name"] != "local")]},
    # A resource that no replica has looked at is refused: the webhook answers, or tests fail.
    webhook={"enabled": True, "failurePolicy": "Fail"},
    workspace={"namespaces": [TEAM], "size": "1Gi"},
)


@pytest.fixture(scope="module")
def installed(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The local cluster with the release, and the namespace `team` with its workspace and the sums."""
    local = Cluster(cluster.kubeconfig)
    local.make_namespace(TEAM)
    try:
        install(local, VALUES, tmp_path_factory.mktemp("account"))
        sums = config_map("sums", train_json=json.dumps({"type": "text2text", "instances": PAIRS}))
        apply(local, sums)
        yield local
    finally:
        local.run("helm", "uninstall", "alidade", "--namespace", NAMESPACE, "--ignore-not-found")
        local.kubectl("delete", "namespace", NAMESPACE, TEAM, "--wait=false")


@pytest.fixture(scope="module")
def training(installed: Cluster) -> str:
    """The first pod of the FineTuneJob `watched`, which trains on two workers until it is deleted."""
    apply(installed, finetune_job("watched", steps=100_000, compute={"workers": 2}))

    def runs() -> bool:
        return bool((status(installed, "ftj", "watched").get("progress") or {}).get("step"))

    wait_until(runs, "the job to make a step", timeout_s=180)
    return "watched-1-master-0"


def apply(cluster: Cluster, *bodies: Json) -> None:
    """Applies objects to the namespace `team`."""
    words = ("apply", "--server-side", "--namespace", TEAM, "--filename", "-")
    cluster.kubectl(*words, stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": bodies}))


def status(cluster: Cluster, *what: str) -> Json:
    """The status of a resource of the namespace `team`."""
    found: Json = cluster.read(*what, "--namespace", TEAM).get("status") or {}
    return found


def stages(cluster: Cluster, run: str) -> dict[str, Json]:
    """The stages of a run by name."""
    return {stage["name"]: stage for stage in status(cluster, "ar", run).get("stages", [])}


def wait_until_stage_runs(cluster: Cluster, run: str, name: str) -> None:
    """Waits until a stage of a run trains."""
    wait_until(
        lambda: stages(cluster, run).get(name, {}).get("phase") == "Running",
        lambda: f"stage {name} to run: {stages(cluster, run)}",
    )


def replicas(cluster: Cluster) -> set[str]:
    """The operator's pods by name."""
    return {one["metadata"]["name"] for one in cluster.read("pods", "--namespace", NAMESPACE)["items"]}


def test_the_release_passes_its_test(installed: Cluster) -> None:
    # Not with --logs: under helm 3 there is nothing to read any more, for a pod that has passed is deleted.
    said = installed.run("helm", "test", "alidade", "--namespace", NAMESPACE)
    assert re.search(r"^Phase:\s+Succeeded$", said, re.MULTILINE), said


@pytest.mark.parametrize("path", examples(), ids=lambda path: path.name)
def test_every_example_passes_the_webhook(installed: Cluster, path: Path) -> None:
    words = ("apply", "--server-side", "--dry-run=server", "--namespace", TEAM, "--filename", str(path))
    lines = installed.kubectl(*words).splitlines()
    assert len(lines) == len(documents(path)), lines
    assert all(line.endswith("serverside-applied (server dry run)") for line in lines), lines


def test_a_run_goes_through_a_killed_replica_an_upgrade_and_a_rollback(installed: Cluster, tmp_path: Path) -> None:
    """All while it trains: nothing is made twice, no container starts anew, and it ends with its model."""
    kinds = ("finetunejobs", "pytorchjobs", "jobs", "pods")
    steps = [{"raft": {"iterations": 6, "promptsPerIteration": 32, "samplesPerPrompt": 4}}]
    rewards = [{"name": "right", "function": "exact_match"}]
    run = alignment_run("whole", rewardModels=rewards, align=steps, compute={"workers": 1})
    run["spec"]["sft"]["template"] |= {"compute": {"workers": 1}}
    with ledger(installed, TEAM, kinds, tmp_path / "ledger") as taken:
        installed.helm("upgrade", values=VALUES | {"replicas": 2})
        wait_until_ready(installed)
        apply(installed, run)
        wait_until_stage_runs(installed, "whole", "sft")
        takeover = kill_acting(installed)
        assert takeover.held_s < 15, takeover
        assert takeover.reconciled_s < 15, takeover
        acting = pod_of(lease(installed)["holderIdentity"])

        wait_until_stage_runs(installed, "whole", "1-raft")
        installed.helm("upgrade", values=VALUES | {"replicas": 2, "podLabels": {"team": "ml"}})
        wait_until_ready(installed)
        wait_until(lambda: acting not in replicas(installed), "the replica that acted to be gone")
        installed.run("helm", "rollback", "alidade", "2", "--namespace", NAMESPACE)

        wait_until(
            lambda: status(installed, "ar", "whole").get("phase") in ("Succeeded", "Failed"),
            lambda: f"the run to end: {status(installed, 'ar', 'whole')}",
            timeout_s=300,
        )
        made = taken.made()
    assert status(installed, "ar", "whole")["phase"] == "Succeeded", status(installed, "ar", "whole")
    assert status(installed, "ar", "whole")["model"]["digest"]
    jobs = ["whole-align-1", "whole-sft-1"]
    assert {kind: [re.sub("-[0-9a-f]{8}", "", name) for name in names] for kind, names in made.items()} == {
        "finetunejobs": ["whole-sft"],
        "pytorchjobs": jobs,
        "jobs": [],
        "pods": [f"{job}-master-0" for job in jobs],
    }
    for pod in installed.read("pods", "--namespace", TEAM)["items"]:
        assert [one["restartCount"] for one in pod["status"]["containerStatuses"]] == [0], pod
    wait_until_ready(installed)


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
            # Of a PodMonitor's pods, the Prometheus operator drops those that have ended.
            if pod["status"].get("podIP") and pod["status"]["phase"] == "Running":
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
def test_the_monitors_lead_prometheus_to_operator_and_job(installed: Cluster, training: str, tmp_path: Path) -> None:
    of_it = f'namespace="{TEAM}",name="watched",kind="FineTuneJob"'
    with prometheus(tmp_path, installed) as address:
        for expr in (
            f'alidade_operator_leader{{namespace="{NAMESPACE}",pod=~"alidade-operator-.+"}} == 1',
            f'alidade_trainer_step{{{of_it},component="trainer",pod="{training}"}} > 0',
            f"alidade_job_step{{{of_it}}} > 0",
        ):
            wait_until(lambda expr=expr: series(address, expr) or None, f"{expr} to have data", timeout_s=60)  # type: ignore[misc]
        # The first pod tells for both of them.
        found = series(address, 'up{kind="FineTuneJob"}')
        assert [one["metric"]["pod"] for one in found] == [training], (found, series(address, "up"))


def test_jobs_and_what_is_kept_outlive_the_release(installed: Cluster, training: str) -> None:
    pod = installed.read("pod", training, "--namespace", TEAM)
    installed.run("helm", "uninstall", "alidade", "--namespace", NAMESPACE, "--wait")
    gone = installed.read("deployments,configmaps,roles,rolebindings", "-n", NAMESPACE)["items"]
    assert [one["metadata"]["name"] for one in gone if one["metadata"]["name"].startswith("alidade")] == []
    left = installed.read("clusterroles,validatingwebhookconfigurations")["items"]
    assert [one["metadata"]["name"] for one in left if "alidade" in one["metadata"]["name"]] == []
    assert installed.read("pvc", "alidade-workspace", "--namespace", TEAM)["status"]["phase"] == "Bound"
    assert status(installed, "ftj", "watched")["phase"] == "Running"
    after = installed.read("pod", training, "--namespace", TEAM)
    assert (after["metadata"]["uid"], after["status"]["phase"]) == (pod["metadata"]["uid"], "Running")
