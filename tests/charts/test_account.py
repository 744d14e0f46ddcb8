"""The operator's own tests pass under the account that the chart gives it, which may do nothing else."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alidade_operator.api import AUTOSCALER, DISRUPTION_BUDGET, MODEL_SERVE, NETWORK_POLICY, Api, Kind
from tests.charts.conftest import Cluster
from tests.charts.rendering import NAMESPACE, ROOT
from tests.e2e.jobs import finetune_job
from tests.operator import test_over_http as jobs
from tests.operator import test_run_over_http as runs
from tests.operator import test_serve_over_http as served
from tests.operator.conftest import CONFIG, Process
from tests.operator.played import Played, connection
from tests.ports import free_port

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "reference" / "operator-permissions.md"
Scenario = Callable[[Process, Played], Awaitable[None]]


async def what_is_around_served_pods_comes_and_goes(operator: Process, played: Played) -> None:
    """Budgets, policies and autoscalers are made, and removed when the spec asks for none."""
    spec: dict[str, Any] = {"model": {"uri": "pvc://data/one"}, "replicas": 2}
    await played.apply_kind(MODEL_SERVE, "around", spec)
    await played.roll_out("around")
    await _there(played, DISRUPTION_BUDGET, 1)
    await _there(played, NETWORK_POLICY, 1)
    scaled = {"model": spec["model"], "autoscaling": {"min": 1, "max": 3, "provider": "hpa"}}
    await played.apply_kind(MODEL_SERVE, "around", scaled)
    await _there(played, AUTOSCALER, 1)
    alone = {"model": spec["model"], "autoscaling": {"min": 1, "max": 1, "provider": "operator"}}
    await played.apply_kind(MODEL_SERVE, "around", alone)
    await _there(played, AUTOSCALER, 0)
    await _there(played, DISRUPTION_BUDGET, 0)


async def _there(played: Played, kind: Kind, count: int) -> None:
    async def look() -> bool:
        return len((await played.api.list(kind, namespace=played.namespace))[0]) == count

    await played.until(look, f"{count} of {kind.kind}")


SCENARIOS: tuple[Scenario, ...] = (
    jobs.test_a_job_goes_from_apply_to_its_model,
    jobs.test_suspending_takes_the_pods_and_resuming_gives_the_same_attempt,
    jobs.test_a_finished_resource_goes_after_its_time,
    runs.from_apply_to_a_served_model,
    runs.test_a_change_reaches_the_stage_that_runs_and_leaves_what_is_frozen,
    served.test_from_apply_to_answers_to_another_model,
    what_is_around_served_pods_comes_and_goes,
)
TEAMS = [f"team-{number}" for number in range(len(SCENARIOS))]


@pytest.mark.parametrize("watched", [[], TEAMS], ids=["all namespaces", "some namespaces"])
async def test_the_account_of_the_release_is_enough(bare_cluster: Cluster, tmp_path: Path, watched: list[str]) -> None:
    """In namespaced mode without any right in the cluster as a whole."""
    api = Api(lambda: connection(bare_cluster.kubeconfig), connections=8)
    parts = [Played(api, team) for team in TEAMS]
    port = free_port()
    for part in parts:
        await part.create_namespace()
    config = CONFIG | {"metricsPort": port}
    bare_cluster.helm("install", values={"config": config, "watchNamespaces": watched})
    try:
        process = bare_cluster.operator(tmp_path)
        process.start()
        try:
            process.wait_for("holding the lease", timeout_s=60)
            process.wait_for("listed every kind", timeout_s=60)
            for scenario, part in zip(SCENARIOS, parts, strict=True):
                await scenario(process, part)
            assert refused_calls(port) == []
        finally:
            process.stop()
        assert not re.search(r"forbidden|Not enough permissions", process.text(), re.IGNORECASE)
        lease = bare_cluster.read("lease", "alidade-operator", "--namespace", NAMESPACE)
        assert lease["spec"]["holderIdentity"] == "", "given back at the end"
    finally:
        for part in parts:
            await part.close()
        await api.close()


@pytest.mark.parametrize("watched", [[], ["team-a"]], ids=["all namespaces", "a namespace"])
def test_kubectl_says_at_once_what_is_wrong(bare_cluster: Cluster, tmp_path: Path, watched: list[str]) -> None:
    """The operator signs its certificate and tells the API server, with no right beyond the release's."""
    bare_cluster.make_namespace("team-a")
    port, metrics = free_port(), free_port()
    config = CONFIG | {"metricsPort": metrics}
    webhook = {"enabled": True, "port": port, "failurePolicy": "Fail"}
    bare_cluster.helm("install", values={"config": config, "watchNamespaces": watched, "webhook": webhook})
    process = bare_cluster.operator(tmp_path)
    process.start()
    try:
        process.wait_for("serving admission", timeout_s=60)
        process.wait_for("listed every kind", timeout_s=60)
        process.wait_for("authority told", timeout_s=60)
        # This API server is alone: nobody finds the Service's pods, of which there are none.
        subset = {"addresses": [{"ip": "127.0.0.1"}], "ports": [{"name": "https", "port": port}]}
        named = {"name": "alidade-webhook", "namespace": NAMESPACE}
        endpoints = {"apiVersion": "v1", "kind": "Endpoints", "metadata": named, "subsets": [subset]}
        bare_cluster.kubectl("create", "--filename", "-", stdin=json.dumps(endpoints))
        job = finetune_job("wrong", steps=4, compute={"nodePool": "h100"})
        said = bare_cluster.kubectl(
            "apply", "--namespace", "team-a", "--filename", "-", stdin=json.dumps(job), check=False
        )
        assert 'admission webhook "resources.alidade.dev" denied the request: NodePoolUnknown' in said
        assert "spec.compute.nodePool is h100" in said
        # Another upgrade takes neither the authority nor the certificate away.
        before = bare_cluster.read("validatingwebhookconfiguration", "alidade")["webhooks"]
        assert before[0]["clientConfig"]["caBundle"]
        values = {"config": config, "watchNamespaces": watched, "webhook": webhook | {"timeoutSeconds": 6}}
        bare_cluster.helm("upgrade", values=values)
        after = bare_cluster.read("validatingwebhookconfiguration", "alidade")["webhooks"]
        assert after == [before[0] | {"timeoutSeconds": 6}]
        assert "tls.key" in bare_cluster.read("secret", "alidade-webhook-certificate", "-n", NAMESPACE)["data"]
        assert refused_calls(metrics) == []
    finally:
        process.stop()


def refused_calls(port: int) -> list[str]:
    """Lines of /metrics that count calls which the account may not make."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert "alidade_operator_api_calls_total" in text
    return [line for line in text.splitlines() if 'code="403"' in line or 'code="401"' in line]


@pytest.mark.parametrize("watched", [[], ["team-a"]], ids=["all namespaces", "a namespace"])
def test_kubectl_lists_what_the_page_says(bare_cluster: Cluster, tmp_path: Path, watched: list[str]) -> None:
    """`kubectl auth can-i`, under the account's own token."""
    for name in ("team-a", "team-b"):
        bare_cluster.make_namespace(name)
    bare_cluster.helm("install", values={"watchNamespaces": watched, "webhook": {"enabled": True}})
    own = Cluster(bare_cluster.account_kubeconfig(tmp_path / "own"))
    for namespace in ("team-a", "team-b", NAMESPACE):
        header, *rows = own.kubectl("auth", "can-i", "--list", "--namespace", namespace).splitlines()
        names, verbs = header.index("Resource Names"), header.index("Verbs")
        listed = [(row.split()[0], row[names:verbs].strip(" []"), ordered(row[verbs:].strip("[]"))) for row in rows]
        places = {
            "everywhere",
            "in its own" if namespace == NAMESPACE else "",
            "in these" if namespace in watched else "",
        }
        assert sorted(listed) == sorted(right for right, place in permissions(watched) if place in places)
    for words in (("get", "secrets"), ("list", "configmaps"), ("create", "pods"), ("create", "rolebindings")):
        assert own.kubectl("auth", "can-i", *words, "--namespace", "team-a", check=False).startswith("no")


def permissions(watched: list[str]) -> Iterator[tuple[tuple[str, str, str], str]]:
    """The table of the page: (resource, name, verbs), and where that is allowed."""
    for line in PAGE.read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| resource "):
            resources, name, verbs, by_default, with_namespaces = (cell.strip() for cell in line.strip("|").split("|"))
            for resource in resources.split(", "):
                yield (resource, name, ordered(verbs)), with_namespaces if watched else by_default


def ordered(verbs: str) -> str:
    """Words in the order of the alphabet."""
    return " ".join(sorted(verbs.split()))
