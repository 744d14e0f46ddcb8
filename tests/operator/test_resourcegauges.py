"""What the resources' statuses say is told to Prometheus, and gone when they are."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from alidade_operator.resourcegauges import costs, problems, refresh
from tests.operator.builders import NOW


def resource(kind: str = "FineTuneJob", name: str = "demo", owner: str | None = None, **status: Any) -> dict[str, Any]:
    owners = [{"kind": owner, "name": "parent", "uid": "u", "controller": True}] if owner else []
    return {
        "kind": kind,
        "metadata": {"name": name, "namespace": "team-a", "ownerReferences": owners},
        "status": status,
    }


def condition(type_: str, status: str, reason: str) -> dict[str, str]:
    since = (NOW - timedelta(minutes=5)).isoformat().replace("+00:00", "Z")
    return {"type": type_, "status": status, "reason": reason, "lastTransitionTime": since}


def sample(metric: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(metric, {"namespace": "team-a", "name": "demo", "kind": "FineTuneJob"} | labels)


@pytest.mark.parametrize(
    ("type_", "status", "reason", "troubled"),
    [
        ("Failed", "True", "BackoffLimitExceeded", True),
        ("Failed", "False", "NotFailed", False),
        ("Accepted", "False", "VolumeMissing", True),
        ("Accepted", "False", "ReferencePending", False),
        ("Accepted", "True", "Valid", False),
        ("Fits", "False", "ExceedsMemory", True),
        ("Fits", "Unknown", "SizeUnknown", False),
        ("Launched", "False", "Waiting", False),
        ("Launched", "False", "LaunchRefused", True),
        ("Launched", "False", "Retrying", True),
        ("Aligned", "True", "KlCeiling", True),
        ("Aligned", "True", "Completed", False),
        ("GatePassed", "False", "MetricOutOfBounds", True),
        ("GatePassed", "False", "Waiting", False),
        ("Available", "False", "NoReplicaReady", True),
        ("Available", "False", "Stopped", False),
        ("Suspended", "True", "SuspendedByUser", False),
    ],
)
def test_a_condition_is_a_problem_when_something_has_to_be_mended(
    type_: str, status: str, reason: str, troubled: bool
) -> None:
    assert list(problems([condition(type_, status, reason)])) == ([(type_, reason)] if troubled else [])


def test_problems_are_told_and_gone_once_they_are_mended() -> None:
    labels = {"condition": "Failed", "reason": "Crashed"}
    refresh([resource(conditions=[condition("Failed", "True", "Crashed")])], NOW)
    assert sample("alidade_resource_problem", **labels) == 1
    refresh([resource(conditions=[condition("Failed", "False", "NotFailed")])], NOW)
    assert sample("alidade_resource_problem", **labels) is None


def test_a_resource_in_a_queue_tells_how_long_it_has_waited() -> None:
    refresh([resource(conditions=[condition("Suspended", "True", "SuspendedByQueue")])], NOW)
    assert sample("alidade_resource_queued_seconds") == 300
    refresh([resource(conditions=[condition("Suspended", "False", "NotSuspended")])], NOW)
    assert sample("alidade_resource_queued_seconds") is None


def test_gpu_hours_and_costs_are_counted_once() -> None:
    """A stage's are in its run's: told of both, a sum over all would have them twice."""
    used = {"gpuHours": 2.5, "cost": "12.50 USD + 3.00 EUR"}
    run = resource("AlignmentRun", name="run", **used)
    refresh([run, resource(owner="AlignmentRun", **used)], NOW)
    assert sample("alidade_resource_gpu_hours") is None
    assert sample("alidade_resource_gpu_hours", kind="AlignmentRun", name="run") == 2.5
    assert sample("alidade_resource_cost", kind="AlignmentRun", name="run", currency="EUR") == 3


def test_costs_are_read_by_currency() -> None:
    assert list(costs("12.50 USD + 3.00 EUR")) == [("USD", 12.5), ("EUR", 3.0)]
    assert list(costs("")) == []


def test_a_resource_without_a_status_is_told_nothing_of() -> None:
    refresh([resource()], NOW)
    assert sample("alidade_resource_gpu_hours") is None
