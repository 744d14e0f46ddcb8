"""The scheduler binds what fits and says why the rest waits."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from alidade_local.controllers.scheduler import choose_node, needs_scheduling, pod_requests
from alidade_local.quantities import parse_quantity

Doc = dict[str, Any]


def node(**spec: Any) -> Doc:
    return {
        "metadata": {"name": "local", "labels": {"pool": "local"}},
        "spec": spec,
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "3"}},
    }


def pod(cpu: str = "", memory: str = "", *, phase: str = "Pending", bound: bool = False, **spec: Any) -> Doc:
    requests = {name: amount for name, amount in (("cpu", cpu), ("memory", memory)) if amount}
    container = {"name": "c", "resources": {"requests": requests}}
    spec = {"containers": [container], **({"nodeName": "local"} if bound else {}), **spec}
    return {"metadata": {"name": "p", "namespace": "n"}, "spec": spec, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("candidate", "others", "why_not"),
    [
        (pod(), [], ""),
        (pod("2", "4Gi"), [], ""),
        (pod("2001m"), [], "0/1 nodes are available: 1 Insufficient cpu."),
        (pod("3", "5Gi"), [], "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."),
        (pod("1"), [pod("1500m", bound=True, phase="Running")], "0/1 nodes are available: 1 Insufficient cpu."),
        (pod("1"), [pod("1500m", bound=True, phase="Succeeded")], ""),
        (pod(), [pod(bound=True)] * 3, "0/1 nodes are available: 1 Too many pods."),
        (pod(nodeSelector={"pool": "local"}), [], ""),
        (
            pod(nodeSelector={"pool": "a100"}),
            [],
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
        ),
    ],
)
def test_a_pod_is_bound_where_it_fits(candidate: Doc, others: list[Doc], why_not: str) -> None:
    assert choose_node(candidate, [node()], others) == ("" if why_not else "local", why_not)


def test_gpus_that_the_node_does_not_have_are_named() -> None:
    wanting = pod()
    wanting["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    assert choose_node(wanting, [node()], [])[1] == "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."


@pytest.mark.parametrize(
    ("operator", "values", "fits"),
    [("In", ["local"], True), ("In", ["x"], False), ("NotIn", ["x"], True), ("Exists", [], True)],
)
def test_required_node_affinity_is_kept(operator: str, values: list[str], fits: bool) -> None:
    expression = {"key": "pool", "operator": operator, "values": values}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    assert bool(choose_node(pod(affinity=affinity), [node()], [])[0]) is fits


def test_taints_keep_pods_away_that_do_not_tolerate_them() -> None:
    tainted = node(taints=[{"key": "gpu", "value": "yes", "effect": "NoSchedule"}])
    assert "untolerated taint {gpu: yes}" in choose_node(pod(), [tainted], [])[1]
    tolerant = pod(tolerations=[{"key": "gpu", "operator": "Exists"}])
    assert choose_node(tolerant, [tainted], [])[0] == "local"


def test_without_nodes_nothing_is_scheduled() -> None:
    assert choose_node(pod(), [], []) == ("", "no nodes available to schedule pods")


def test_init_containers_count_by_their_largest_and_sidecars_beside_the_rest() -> None:
    spec = {
        "containers": [{"resources": {"requests": {"cpu": "1"}}}, {"resources": {"requests": {"cpu": "1"}}}],
        "initContainers": [
            {"resources": {"requests": {"cpu": "500m"}}, "restartPolicy": "Always"},
            {"resources": {"requests": {"cpu": "4"}}},
        ],
    }
    assert pod_requests({"spec": spec}) == {"cpu": Decimal("4.5")}


@pytest.mark.parametrize(
    ("spec", "needed"),
    [({}, True), ({"nodeName": "x"}, False), ({"schedulerName": "other"}, False), ({"schedulingGates": [{}]}, False)],
)
def test_only_waiting_pods_of_this_scheduler_are_looked_at(spec: Doc, needed: bool) -> None:
    assert needs_scheduling(pod(**spec)) is needed


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("500m", "0.5"), ("1Ki", 1024), ("2Gi", 2**31), ("1k", 1000), ("1e3", 1000), ("1E", 10**18),
        ("0.1", "0.1"), (2, 2),
    ],
)  # fmt: skip
def test_quantities_are_read(text: str | int, value: int | str) -> None:
    assert parse_quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "x", "1X", "Gi", "1 Gi"])
def test_what_is_not_a_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)
