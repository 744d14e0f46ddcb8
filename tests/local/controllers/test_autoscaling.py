"""Autoscalers without metrics keep replicas between their bounds and say what is missing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from alidade_local.controllers.autoscaling import decide, missing_status

Doc = dict[str, Any]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def autoscaler(**status: Any) -> Doc:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    spec = {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 4, "metrics": [{"type": "Pods", "pods": {}}]}
    return {"metadata": {"name": "h", "namespace": "n"}, "spec": spec, "status": status}


def deployment(replicas: int) -> Doc:
    return {"metadata": {"name": "d"}, "spec": {"replicas": replicas}, "status": {"replicas": replicas}}


@pytest.mark.parametrize(
    ("present", "wanted", "reason"),
    [
        (1, 2, "Current number of replicas below Spec.MinReplicas"),
        (2, 2, ""),
        (3, 3, ""),
        (4, 4, ""),
        (5, 4, "Current number of replicas above Spec.MaxReplicas"),
        (0, 0, ""),
    ],
)
def test_replicas_are_kept_between_the_bounds(present: int, wanted: int, reason: str) -> None:
    decision = decide(autoscaler(), deployment(present), NOW)
    assert (decision.replicas, decision.reason) == (wanted, reason)
    assert decision.status["currentReplicas"] == present
    assert decision.status["desiredReplicas"] == wanted
    assert ("lastScaleTime" in decision.status) == bool(reason)


@pytest.mark.parametrize(
    ("present", "reason", "message"),
    [
        (3, "FailedGetPodsMetric", "the local cluster has no metrics API"),
        (0, "ScalingDisabled", "scaling is disabled since the replica count of the target is zero"),
    ],
)
def test_conditions_say_that_there_are_no_metrics(present: int, reason: str, message: str) -> None:
    able, active = decide(autoscaler(), deployment(present), NOW).status["conditions"]
    assert (able["type"], able["status"], able["reason"]) == ("AbleToScale", "True", "SucceededGetScale")
    assert (active["type"], active["status"], active["reason"]) == ("ScalingActive", "False", reason)
    assert message in active["message"]


def test_nothing_is_written_twice() -> None:
    first = decide(autoscaler(), deployment(3), NOW).status
    assert decide(autoscaler(**first), deployment(3), NOW.replace(hour=4)).status == first


def test_a_target_that_is_not_there_is_named() -> None:
    [condition] = missing_status(autoscaler(currentReplicas=1), NOW)["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", "FailedGetScale")
    assert "Deployment d not found" in condition["message"]
