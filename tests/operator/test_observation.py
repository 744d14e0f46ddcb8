"""How objects of the API are read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from alidade_operator.resources.observation import pod_view, source_view
from alidade_operator.resources.pytorchjob import pytorch_job_view

CREATED = "2026-11-21T12:00:00Z"


def pytorch_job(*conditions: str, **values: Any) -> dict[str, Any]:
    """A PyTorchJob with these conditions true, in this order."""
    metadata = {"name": "demo-2", "uid": "j", "creationTimestamp": CREATED} | values.pop("metadata", {})
    listed = [
        {"type": kind, "status": "True", "message": f"is {kind}", "lastTransitionTime": CREATED} for kind in conditions
    ]
    return {"metadata": metadata, "spec": values.pop("spec", {}), "status": {"conditions": listed} | values}


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        ((), "waiting"),
        (("Created",), "waiting"),
        (("Created", "Running"), "running"),
        (("Running", "Created"), "running"),
        (("Created", "Succeeded"), "succeeded"),
        (("Failed", "Created"), "failed"),
        (("Failed", "Running", "Created"), "failed"),
    ],
)
def test_the_state_of_a_training_job_does_not_depend_on_the_order_of_its_conditions(
    conditions: tuple[str, ...], state: str
) -> None:
    view = pytorch_job_view(pytorch_job(*conditions), owner_uid="u")
    assert view is not None
    assert view.state == state


def test_a_condition_that_is_not_true_is_none() -> None:
    body = pytorch_job("Running")
    body["status"]["conditions"][0]["status"] = "False"
    view = pytorch_job_view(body, owner_uid="u")
    assert view is not None
    assert view.state == "waiting"


def test_a_job_that_a_queue_holds_back_has_no_active_time() -> None:
    view = pytorch_job_view(pytorch_job("Suspended", spec={"runPolicy": {"suspend": True}}), owner_uid="u")
    assert view is not None
    assert (view.state, view.suspended, view.active_since) == ("suspended", True, None)


def test_active_time_begins_when_the_training_operator_takes_the_job_up() -> None:
    view = pytorch_job_view(pytorch_job("Running", startTime="2026-11-21T13:00:00Z"), owner_uid="u")
    assert view is not None
    assert view.active_since == datetime(2026, 11, 21, 13, tzinfo=UTC)


def test_only_the_controller_of_that_uid_owns_a_job() -> None:
    references = [{"uid": "other", "controller": True}, {"uid": "u", "controller": False}]
    body = pytorch_job(metadata={"ownerReferences": references})
    view = pytorch_job_view(body, owner_uid="u")
    assert view is not None
    assert not view.owned
    references[1]["controller"] = True
    view = pytorch_job_view(body, owner_uid="u")
    assert view is not None
    assert view.owned


def test_a_job_without_an_attempt_in_its_name_is_none_of_ours() -> None:
    assert pytorch_job_view(pytorch_job(metadata={"name": "other"}), owner_uid="u") is None


def test_annotations_that_are_no_numbers_count_as_nothing() -> None:
    annotations = {"alidade.dev/gpu-hours-before": "many", "alidade.dev/active-seconds-before": "1.5"}
    view = pytorch_job_view(pytorch_job(metadata={"annotations": annotations}), owner_uid="u")
    assert view is not None
    assert (view.gpu_hours_before, view.active_seconds_before) == (0.0, 1.5)


def pod(status: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "demo-1-master-0", "uid": "p"} | metadata, "status": status}


def container(**state: Any) -> dict[str, Any]:
    return {"name": "pytorch", "state": state}


@pytest.mark.parametrize(
    ("status", "message", "image_missing"),
    [
        ({"phase": "Running", "containerStatuses": [container(running={"startedAt": CREATED})]}, "", False),
        (
            {"containerStatuses": [container(waiting={"reason": "ImagePullBackOff", "message": "no such image"})]},
            "ImagePullBackOff: no such image",
            True,
        ),
        ({"containerStatuses": [container(waiting={"reason": "ContainerCreating"})]}, "", False),
        (
            {"initContainerStatuses": [{"name": "init-pytorch", "state": {"waiting": {
                "reason": "CreateContainerConfigError", "message": "runAsNonRoot"}}}]},
            "CreateContainerConfigError: runAsNonRoot",
            False,
        ),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}]},
            "Unschedulable: 0/3",
            False,
        ),
        ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, "Evicted: low on memory", False),
    ],
)  # fmt: skip
def test_what_keeps_a_pod_from_running_is_found(status: dict[str, Any], message: str, image_missing: bool) -> None:
    view = pod_view(pod(status))
    assert (view.message, view.image_missing) == (message, image_missing)


@pytest.mark.parametrize(
    ("status", "disruption"),
    [
        ({}, ""),
        ({"conditions": [{"type": "DisruptionTarget", "status": "False", "reason": "EvictionByEvictionAPI"}]}, ""),
        (
            {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
                             "message": "preempting to accommodate a higher priority pod"}]},
            "PreemptionByScheduler: preempting to accommodate a higher priority pod",
        ),
        (
            {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}]},
            "DeletionByTaintManager",
        ),
        # A node that shuts down, as spot nodes do.
        (
            {"phase": "Failed", "reason": "Terminated", "message": "Pod was terminated in response to imminent node "
             "shutdown.", "conditions": [{"type": "DisruptionTarget", "status": "True",
                                          "reason": "TerminationByKubelet"}]},
            "TerminationByKubelet: Pod was terminated in response to imminent node shutdown.",
        ),
        # A node short of memory or disk: it may be this pod that used it up.
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage.",
             "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}]},
            "",
        ),
        ({"phase": "Failed", "reason": "NodeLost"}, "NodeLost"),
    ],
)  # fmt: skip
def test_what_takes_a_pod_away_is_found(status: dict[str, Any], disruption: str) -> None:
    assert pod_view(pod(status)).disruption == disruption


@pytest.mark.parametrize(
    ("conditions", "had_pods"),
    [
        ([], False),
        ([{"type": "Created", "status": "True"}, {"type": "Failed", "status": "True"}], False),
        ([{"type": "Running", "status": "False"}, {"type": "Failed", "status": "True"}], True),
    ],
)
def test_a_job_that_has_run_had_pods(conditions: list[dict[str, str]], had_pods: bool) -> None:
    body = pytorch_job()
    body["status"] = {"conditions": conditions}
    view = pytorch_job_view(body, owner_uid="u")
    assert view is not None
    assert view.had_pods is had_pods


def test_a_terminating_pod_is_not_asked_for_progress() -> None:
    running = {"phase": "Running", "containerStatuses": [container(running={"startedAt": CREATED})]}
    assert pod_view(pod(running)).ready_to_report
    assert not pod_view(pod(running, deletionTimestamp=CREATED)).ready_to_report


def test_only_the_first_master_is_the_first_pod() -> None:
    labels = {"training.kubeflow.org/replica-type": "master", "training.kubeflow.org/replica-index": "0"}
    assert pod_view(pod({}, labels=labels)).is_master
    assert not pod_view(pod({}, labels=labels | {"training.kubeflow.org/replica-type": "worker"})).is_master


def test_how_a_container_ended_is_read() -> None:
    terminated = {"exitCode": 137, "reason": "OOMKilled", "message": "", "startedAt": CREATED, "finishedAt": CREATED}
    view = pod_view(pod({"phase": "Failed", "containerStatuses": [container(terminated=terminated)]}))
    assert view.termination is not None
    assert (view.termination.exit_code, view.termination.reason) == (137, "OOMKilled")
    assert view.ended


def test_a_source_that_cannot_be_read_is_waited_for() -> None:
    assert not source_view({"metadata": {}, "status": {"attempts": "many"}}).succeeded
    assert not source_view(None).exists
