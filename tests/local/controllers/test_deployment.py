"""Deployments and ReplicaSets: a roll-out never leaves the bounds of its strategy."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from alidade_local.controllers.deployment import build_replica_set, plan_deployment
from alidade_local.controllers.plan import Plan
from alidade_local.controllers.pods import pods_to_delete
from alidade_local.controllers.replicaset import plan_replica_set
from alidade_local.resources import REPLICA_SETS

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
Doc = dict[str, Any]


def deployment(replicas: int = 4, image: str = "a", **spec: Any) -> Doc:
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": image}]}}
    selector = {"matchLabels": {"app": "x"}}
    return {
        "metadata": {"name": "d", "namespace": "n", "uid": "u", "generation": 3},
        "spec": {"replicas": replicas, "selector": selector, "template": template, **spec},
    }


def replica_set(image: str, size: int, *, available: int | None = None, revision: int = 1) -> Doc:
    document = build_replica_set(deployment(image=image), size, revision)
    ready = size if available is None else available
    document["status"] = {"replicas": size, "readyReplicas": ready, "availableReplicas": ready}
    return document


def sizes(plan: Plan) -> dict[str, int]:
    return {
        document["metadata"]["name"]: patch["spec"]["replicas"] for _, document, patch in plan.patch if "spec" in patch
    }


def revisions(plan: Plan) -> dict[str, str]:
    return {
        document["metadata"]["name"]: patch["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
        for _, document, patch in plan.patch
        if "metadata" in patch
    }


def condition(plan: Plan, condition_type: str) -> tuple[str, str]:
    assert plan.status is not None
    found = next(entry for entry in plan.status["conditions"] if entry["type"] == condition_type)
    return found["status"], found["reason"]


def test_a_new_deployment_gets_one_replica_set_of_its_template() -> None:
    plan = plan_deployment(deployment(), [], NOW)
    [(resource, created)] = plan.create
    assert resource is REPLICA_SETS
    assert created["spec"]["replicas"] == 4
    digest = created["metadata"]["labels"]["pod-template-hash"]
    assert created["metadata"]["name"] == f"d-{digest}"
    assert created["spec"]["selector"]["matchLabels"] == {"app": "x", "pod-template-hash": digest}
    assert created["spec"]["template"]["metadata"]["labels"] == {"app": "x", "pod-template-hash": digest}


def test_a_complete_roll_out_says_so() -> None:
    plan = plan_deployment(deployment(), [replica_set("a", 4)], NOW)
    assert condition(plan, "Available") == ("True", "MinimumReplicasAvailable")
    assert condition(plan, "Progressing") == ("True", "NewReplicaSetAvailable")
    assert plan.status is not None
    assert (plan.status["availableReplicas"], plan.status["observedGeneration"]) == (4, 3)
    assert (plan.create, sizes(plan)) == ([], {})


@pytest.mark.parametrize(
    ("new", "old", "wanted"),
    [
        # 25 % of 4: one more, one fewer. Each row is one step: (size, available) -> sizes after it.
        (None, (4, 4), {"new": 1}),
        ((1, 0), (4, 4), {"old": 3}),
        ((2, 1), (3, 3), {"old": 2}),
        ((2, 2), (2, 2), {"new": 3, "old": 1}),
        ((4, 4), (1, 1), {"old": 0}),
        ((4, 4), (0, 0), {}),
    ],
)
def test_a_rolling_update_moves_within_surge_and_availability(
    new: tuple[int, int] | None, old: tuple[int, int], wanted: dict[str, int]
) -> None:
    old_set = replica_set("a", old[0], available=old[1])
    sets = [old_set]
    if new is not None:
        sets.append(replica_set("b", new[0], available=new[1], revision=2))
    plan = plan_deployment(deployment(image="b"), sets, NOW)
    found = {"old" if name == old_set["metadata"]["name"] else "new": size for name, size in sizes(plan).items()}
    if plan.create:
        found["new"] = plan.create[0][1]["spec"]["replicas"]
    assert found == wanted


@pytest.mark.parametrize(
    ("replicas", "rolling", "most", "least"),
    [
        (4, {}, 5, 3),
        (4, {"maxSurge": 1, "maxUnavailable": 0}, 5, 4),
        (4, {"maxSurge": 0, "maxUnavailable": 1}, 4, 3),
        (1, {"maxSurge": 1, "maxUnavailable": 0}, 2, 1),
        (1, {"maxSurge": 0, "maxUnavailable": 1}, 1, 0),
        (3, {"maxSurge": "50%", "maxUnavailable": "50%"}, 5, 2),
        (2, {"maxSurge": "100%", "maxUnavailable": 0}, 4, 2),
    ],
)
def test_a_whole_roll_out_never_leaves_its_bounds(replicas: int, rolling: Doc, most: int, least: int) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
    wanted = deployment(replicas=replicas, image="b", strategy=strategy)
    sets = [replica_set("a", replicas)]
    for _ in range(20):
        plan = plan_deployment(wanted, sets, NOW)
        sets += [document | {"status": {}} for _, document in plan.create]
        for _, document, patch in plan.patch:
            if "spec" in patch:
                document["spec"]["replicas"] = patch["spec"]["replicas"]
        for document in sets:
            size = document["spec"]["replicas"]
            # Pods that go are gone at once; of those that come one becomes available per step.
            before = document["status"].get("availableReplicas", 0)
            available = min(size, before + 1)
            document["status"] = {"replicas": size, "availableReplicas": available, "readyReplicas": available}
        assert sum(document["spec"]["replicas"] for document in sets) <= most
        assert sum(document["status"]["availableReplicas"] for document in sets) >= least
    assert [document["spec"]["replicas"] for document in sets] == [0, replicas]


def test_a_roll_back_makes_the_old_replica_set_the_newest_revision() -> None:
    old, newer = replica_set("a", 0, revision=1), replica_set("b", 4, revision=2)
    name = old["metadata"]["name"]
    assert revisions(plan_deployment(deployment(image="a"), [old, newer], NOW)) == {name: "3", "d": "3"}
    unchanged = deployment(image="b")
    unchanged["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "2"}
    assert revisions(plan_deployment(unchanged, [old, newer], NOW)) == {}


@pytest.mark.parametrize(
    ("replicas", "old", "new", "scaled"),
    [
        (4, 3, 2, {}),  # in the middle of a roll-out: it stays there
        (4, 4, 0, {}),  # before it has begun
        (6, 4, 0, {"a": 6}),
        (2, 4, 0, {"a": 2}),
        (10, 6, 2, {"a": 8}),  # 10 of the 13 that the surge lets be, three quarters of them
        (2, 3, 3, {"a": 1, "b": 2}),
        (1, 1, 2, {"b": 1}),  # the old one has the pod that is available
    ],
)
def test_a_paused_roll_out_stays_where_it_is_and_can_be_scaled(
    replicas: int, old: int, new: int, scaled: dict[str, int]
) -> None:
    sets = {"a": replica_set("a", old, revision=1), "b": replica_set("b", new, revision=2)}
    plan = plan_deployment(deployment(replicas, image="b", paused=True), list(sets.values()), NOW)
    assert sizes(plan) == {sets[image]["metadata"]["name"]: size for image, size in scaled.items()}
    assert plan.create == []
    assert condition(plan, "Progressing") == ("Unknown", "DeploymentPaused")


def test_a_new_template_of_a_paused_deployment_waits() -> None:
    plan = plan_deployment(deployment(image="c", paused=True), [replica_set("a", 4)], NOW)
    assert (plan.create, sizes(plan)) == ([], {})
    resumed = plan_deployment(deployment(image="c"), [replica_set("a", 4)], NOW)
    assert len(resumed.create) == 1


def test_recreate_waits_until_the_old_pods_are_gone() -> None:
    wanted = deployment(image="b", strategy={"type": "Recreate"})
    old = replica_set("a", 4)
    first = plan_deployment(wanted, [old], NOW)
    assert (first.create, list(sizes(first).values())) == ([], [0])
    old["spec"]["replicas"] = 0
    old["status"] = {"replicas": 0}
    second = plan_deployment(wanted, [old], NOW)
    assert [document["spec"]["replicas"] for _, document in second.create] == [4]


@pytest.mark.parametrize(
    ("generation", "status"),
    [
        (2, {"replicas": 0, "observedGeneration": 2, "terminatingReplicas": 1}),
        (2, {"replicas": 0, "observedGeneration": 1}),  # its controller may be making pods for the size before
        (1, {}),
    ],
)
def test_recreate_waits_for_pods_that_end_and_for_those_that_may_just_be_made(generation: int, status: Doc) -> None:
    wanted = deployment(image="b", strategy={"type": "Recreate"})
    old, new = replica_set("a", 0), replica_set("b", 0, revision=2)
    old["metadata"]["generation"], old["status"] = generation, status
    assert plan_deployment(wanted, [old], NOW).create == []
    assert sizes(plan_deployment(wanted, [old, new], NOW)) == {}
    old["status"] = {"replicas": 0, "observedGeneration": generation}
    assert sizes(plan_deployment(wanted, [old, new], NOW)) == {new["metadata"]["name"]: 4}


def test_old_replica_sets_beyond_the_history_go() -> None:
    sets = [replica_set(f"old{index}", 0, revision=index) for index in range(4)] + [replica_set("a", 4, revision=9)]
    plan = plan_deployment(deployment(revisionHistoryLimit=2), sets, NOW)
    assert [document["metadata"]["name"] for _, document in plan.delete] == [
        document["metadata"]["name"] for document in sets[:2]
    ]


def test_a_roll_out_that_stands_still_is_reported_after_its_deadline() -> None:
    wanted = deployment(progressDeadlineSeconds=60)
    sets = [replica_set("a", 4, available=0)]
    wanted["status"] = plan_deployment(wanted, sets, NOW).status
    assert condition(plan_deployment(wanted, sets, NOW + timedelta(seconds=59)), "Progressing")[0] == "True"
    late = plan_deployment(wanted, sets, NOW + timedelta(seconds=60))
    assert condition(late, "Progressing") == ("False", "ProgressDeadlineExceeded")


def pod(name: str, *, phase: str = "Running", ready: bool = True, age: int = 0) -> Doc:
    moment = (NOW - timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = [{"type": "Ready", "status": str(ready), "lastTransitionTime": moment}]
    return {
        "metadata": {"name": name, "namespace": "n", "creationTimestamp": moment, "labels": {"app": "x"}},
        "spec": {"nodeName": "local"},
        "status": {"phase": phase, "conditions": conditions},
    }


@pytest.mark.parametrize(
    ("pods", "created", "deleted"),
    [
        ([], 2, []),
        ([pod("a")], 1, []),
        ([pod("a"), pod("b")], 0, []),
        ([pod("a"), pod("b", phase="Failed", ready=False)], 1, ["b"]),
        ([pod("a"), pod("b", ready=False), pod("c")], 0, ["b"]),
        ([pod("a", age=9), pod("b", age=1), pod("c", age=5)], 0, ["b"]),
        ([pod("a"), pod("b"), pod("c", phase="Pending", ready=False)], 0, ["c"]),
    ],
)
def test_a_replica_set_keeps_its_number_of_pods(pods: list[Doc], created: int, deleted: list[str]) -> None:
    wanted = build_replica_set(deployment(), 2, 1)
    wanted["metadata"]["uid"] = "r"
    plan = plan_replica_set(wanted, pods, NOW)
    assert len(plan.create) == created
    assert [document["metadata"]["name"] for _, document in plan.delete] == deleted


def test_a_pod_counts_as_available_after_min_ready_seconds() -> None:
    wanted = build_replica_set(deployment(minReadySeconds=10), 1, 1)
    young = plan_replica_set(copy.deepcopy(wanted), [pod("a", age=4)], NOW)
    assert young.status is not None
    assert (young.status["readyReplicas"], young.status.get("availableReplicas"), young.again_after_s) == (1, None, 6.0)
    old = plan_replica_set(wanted, [pod("a", age=10)], NOW)
    assert old.status is not None
    assert old.status["availableReplicas"] == 1


def test_pods_that_serve_least_are_given_up_first() -> None:
    pods = [pod("ready"), pod("unready", ready=False), pod("pending", phase="Pending", ready=False)]
    assert [document["metadata"]["name"] for document in pods_to_delete(pods)] == ["pending", "unready", "ready"]
