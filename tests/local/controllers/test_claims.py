"""When a claim is in use, and what its status says."""

from __future__ import annotations

from typing import Any

import pytest

from alidade_local.controllers.claims import bound_status, is_in_use

CLAIM: dict[str, Any] = {
    "metadata": {"name": "c", "namespace": "n"},
    "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "5Gi"}}},
}


def pod(claim: str, *, namespace: str = "n", phase: str = "Running") -> dict[str, Any]:
    volumes = [{"name": "x", "emptyDir": {}}, {"name": "v", "persistentVolumeClaim": {"claimName": claim}}]
    return {
        "metadata": {"name": "p", "namespace": namespace},
        "spec": {"volumes": volumes},
        "status": {"phase": phase},
    }


@pytest.mark.parametrize(
    ("pods", "used"),
    [
        ([], False),
        ([pod("c")], True),
        ([pod("c", phase="Pending")], True),
        ([pod("c", phase="Succeeded"), pod("c", phase="Failed")], False),
        ([pod("other"), pod("c", namespace="m")], False),
    ],
)
def test_a_claim_is_in_use_while_a_pod_of_its_namespace_that_is_not_over_mounts_it(
    pods: list[dict[str, Any]], used: bool
) -> None:
    assert is_in_use(CLAIM, pods) is used


def test_a_bound_claim_reports_what_it_asked_for() -> None:
    assert bound_status(CLAIM) == {
        "phase": "Bound",
        "accessModes": ["ReadWriteMany"],
        "capacity": {"storage": "5Gi"},
    }
