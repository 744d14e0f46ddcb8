"""Autoscalers, budgets and network policies on a real cluster, as kubectl shows them."""

from __future__ import annotations

import json
from typing import Any

from tests.cluster_fixtures import RunningCluster, wait_until
from tests.local.workloads import SLEEP, apply, conditions, container, events, get, status

Doc = dict[str, Any]


def deployment(name: str, replicas: int) -> Doc:
    labels = {"app": name}
    pod = {"terminationGracePeriodSeconds": 1, "containers": [container(SLEEP)]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def columns(cluster: RunningCluster, kind: str, name: str) -> list[str]:
    """The line that kubectl prints for an object, in words."""
    return cluster.kubectl("get", kind, name, "--no-headers").split()


def replicas(cluster: RunningCluster, name: str) -> int:
    found = get(cluster, "deployment", name)
    assert found is not None
    return int(found["spec"]["replicas"])


def test_an_autoscaler_keeps_a_deployment_between_its_bounds(cluster: RunningCluster) -> None:
    pods = {"metric": {"name": "waiting"}, "target": {"type": "AverageValue", "averageValue": "4"}}
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "scaled"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "scaled"},
            "minReplicas": 2,
            "maxReplicas": 3,
            "metrics": [{"type": "Pods", "pods": pods}],
        },
    }
    apply(cluster, autoscaler)
    wait_until(lambda: conditions(cluster, "hpa", "scaled").get("AbleToScale") == "False", "its target is missed")
    apply(cluster, deployment("scaled", 1))
    wait_until(lambda: replicas(cluster, "scaled") == 2, "there are two")
    wait_until(lambda: conditions(cluster, "hpa", "scaled").get("ScalingActive") == "False", "metrics are missed")
    cluster.kubectl("scale", "deployment/scaled", "--replicas=5")
    wait_until(lambda: replicas(cluster, "scaled") == 3, "there are three")
    wait_until(lambda: status(cluster, "hpa", "scaled").get("currentReplicas") == 3, "it says so")
    name, target, targets, least, most, present, _ = columns(cluster, "hpa", "scaled")
    assert (name, target, targets) == ("scaled", "Deployment/scaled", "<unknown>/4")
    assert (least, most, present) == ("2", "3", "3")
    assert "no metrics API" in cluster.kubectl("describe", "hpa", "scaled")
    wait_until(lambda: "SuccessfulRescale" in events(cluster, "scaled"), "an event tells of it")
    cluster.kubectl("delete", "hpa/scaled", "deployment/scaled")


def evict(cluster: RunningCluster, pod: str) -> str:
    """What the API server says to an eviction."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "default"}}
    path = f"/api/v1/namespaces/default/pods/{pod}/eviction"
    return cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body), check=False)


def test_a_budget_counts_its_pods_and_holds_evictions_back(cluster: RunningCluster) -> None:
    spec = {"maxUnavailable": 0, "selector": {"matchLabels": {"app": "guarded"}}}
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "guarded"}, "spec": spec}
    apply(cluster, budget, deployment("guarded", 2))
    wait_until(lambda: status(cluster, "pdb", "guarded").get("currentHealthy") == 2, "two pods are healthy")
    pod = cluster.kubectl("get", "pods", "-l", "app=guarded", "-o", "jsonpath={.items[0].metadata.name}")
    assert "Cannot evict pod as it would violate the pod's disruption budget" in evict(cluster, pod)

    cluster.kubectl("patch", "pdb/guarded", "--type=merge", "-p", '{"spec": {"maxUnavailable": 1}}')
    wait_until(lambda: status(cluster, "pdb", "guarded")["disruptionsAllowed"] == 1, "one pod can be spared")
    found = status(cluster, "pdb", "guarded")
    assert (found["expectedPods"], found["currentHealthy"], found["desiredHealthy"]) == (2, 2, 1)
    assert columns(cluster, "pdb", "guarded")[:4] == ["guarded", "N/A", "1", "1"]
    assert "Success" in evict(cluster, pod)
    wait_until(lambda: get(cluster, "pod", pod) is None, "the evicted pod is gone")
    wait_until(lambda: status(cluster, "pdb", "guarded")["currentHealthy"] == 2, "another is there in its place")
    cluster.kubectl("delete", "pdb/guarded", "deployment/guarded")


def test_a_network_policy_is_shown(cluster: RunningCluster) -> None:
    rule = {"ports": [{"port": "http"}], "from": [{"podSelector": {}}]}
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "closed"},
        "spec": {"podSelector": {"matchLabels": {"app": "x"}}, "ingress": [rule]},
    }
    apply(cluster, policy)
    assert columns(cluster, "netpol", "closed")[:2] == ["closed", "app=x"]
    assert "To Port: http/TCP" in cluster.kubectl("describe", "netpol", "closed")
    cluster.kubectl("delete", "netpol", "closed")
