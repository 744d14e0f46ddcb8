"""What a disruption budget comes to for the pods that are there."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from alidade_local.budgets import Budget, count
from alidade_local.controllers.disruption import budget_status

Doc = dict[str, Any]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def owned(kind: str, name: str, replicas: int, owner: tuple[str, str] | None = None) -> Doc:
    references = [{"kind": owner[0], "name": owner[1], "uid": owner[1], "controller": True}] if owner else []
    return {"metadata": {"name": name, "uid": name, "ownerReferences": references}, "spec": {"replicas": replicas}}


FOUND = {
    ("Deployment", "d"): owned("Deployment", "d", 4),
    ("ReplicaSet", "new"): owned("ReplicaSet", "new", 3, ("Deployment", "d")),
    ("ReplicaSet", "old"): owned("ReplicaSet", "old", 2, ("Deployment", "d")),
}


def find(kind: str, _: str, name: str) -> Doc | None:
    return FOUND.get((kind, name))


def pod(owner: str | None, *, ready: bool = True, app: str = "x", leaving: bool = False) -> Doc:
    references = [{"kind": "ReplicaSet", "name": owner, "uid": owner, "controller": True}] if owner else []
    metadata: Doc = {"name": "p", "namespace": "n", "uid": "p", "labels": {"app": app}, "ownerReferences": references}
    if leaving:
        metadata["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    status = {"conditions": [{"type": "Ready", "status": str(ready)}]}
    return {"metadata": metadata, "spec": {}, "status": status}


# Five of a Deployment of four that is being rolled out: four are healthy, one of them on its way out.
PODS = [pod("new"), pod("new"), pod("new", ready=False), pod("old"), pod("old", leaving=True), pod("new", app="y")]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"maxUnavailable": 1}, Budget(expected=4, healthy=3, desired=3)),
        ({"maxUnavailable": 2}, Budget(expected=4, healthy=3, desired=2)),
        ({"maxUnavailable": "30%"}, Budget(expected=4, healthy=3, desired=2)),
        ({"maxUnavailable": 9}, Budget(expected=4, healthy=3, desired=0)),
        ({"minAvailable": "60%"}, Budget(expected=4, healthy=3, desired=3)),
        ({"minAvailable": 2}, Budget(expected=5, healthy=3, desired=2)),
        ({}, Budget(expected=5, healthy=3, desired=1)),
    ],
)
def test_counts_follow_what_the_pods_controllers_ask_for(spec: Doc, expected: Budget) -> None:
    selector = {"matchLabels": {"app": "x"}}
    budget = {"metadata": {"name": "b", "namespace": "n"}, "spec": {"selector": selector, **spec}}
    assert count(budget, PODS, find) == expected


def test_a_budget_without_a_selector_guards_nothing_and_an_empty_one_all() -> None:
    budget: Doc = {"metadata": {"name": "b", "namespace": "n"}, "spec": {"minAvailable": 0}}
    assert count(budget, PODS, find) == Budget(0, 0, 0)
    budget["spec"]["selector"] = {}
    assert count(budget, PODS, find) == Budget(6, 4, 0)


def test_pods_without_a_controller_count_as_they_are() -> None:
    budget = {"metadata": {"name": "b", "namespace": "n"}, "spec": {"maxUnavailable": 1, "selector": {}}}
    first, second = pod(None), pod(None)
    second["metadata"]["uid"] = "q"
    assert count(budget, [first, second], find) == Budget(expected=2, healthy=2, desired=1)


def test_the_status_says_whether_there_is_one_to_spare() -> None:
    budget: Doc = {"metadata": {"name": "b", "namespace": "n", "generation": 2}, "spec": {}}
    first = budget_status(budget, Budget(expected=2, healthy=2, desired=1), NOW)
    assert (first["disruptionsAllowed"], first["observedGeneration"]) == (1, 2)
    [condition] = first["conditions"]
    assert (condition["status"], condition["reason"]) == ("True", "SufficientPods")
    budget["status"] = first
    later = NOW.replace(hour=4)
    assert budget_status(budget, Budget(2, 2, 1), later) == first
    [condition] = budget_status(budget, Budget(2, 1, 1), later)["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", "InsufficientPods")
    assert condition["lastTransitionTime"] == "2026-01-02T04:04:05Z"
