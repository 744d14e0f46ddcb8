"""Phase and conditions of a pod follow from the states of its containers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from alidade_local.backoff import CrashBackoff
from alidade_local.kubelet.probes import ProbeCounter
from alidade_local.kubelet.records import (
    ContainerRecord,
    Running,
    State,
    Terminated,
    Waiting,
    record_after_restart,
    should_restart,
)
from alidade_local.kubelet.status import PodState, pod_phase, pod_status

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CREATING = Waiting("ContainerCreating")
CRASHING = Waiting("CrashLoopBackOff")
RUNNING = Running(NOW)


def ended(code: int) -> Terminated:
    return Terminated(code, "Error" if code else "Completed", NOW, NOW)


def record(state: State, last: Terminated | None = None, *, ready: bool = False, name: str = "c") -> ContainerRecord:
    return ContainerRecord(name=name, image="i", state=state, last=last, ready=ready)


def state_of(
    *containers: ContainerRecord, init: tuple[ContainerRecord, ...] = (), ended: tuple[str, str] | None = None
) -> PodState:
    return PodState(init, containers, "127.20.0.1", "127.0.0.1", NOW, ended=ended)


@pytest.mark.parametrize(
    ("policy", "containers", "phase"),
    [
        ("Never", [record(CREATING)], "Pending"),
        ("Never", [record(RUNNING), record(CREATING)], "Pending"),
        ("Never", [record(RUNNING)], "Running"),
        ("Never", [record(RUNNING), record(ended(1))], "Running"),
        ("Never", [record(ended(0))], "Succeeded"),
        ("Never", [record(ended(0)), record(ended(3))], "Failed"),
        ("OnFailure", [record(ended(0))], "Succeeded"),
        ("OnFailure", [record(ended(1))], "Running"),
        ("OnFailure", [record(CRASHING, ended(1))], "Running"),
        ("OnFailure", [record(CRASHING, ended(1)), record(ended(0))], "Running"),
        ("Always", [record(ended(0))], "Running"),
        ("Always", [record(CRASHING, ended(0))], "Running"),
    ],
)
def test_the_phase_follows_from_containers_and_restart_policy(
    policy: str, containers: list[ContainerRecord], phase: str
) -> None:
    assert pod_phase(policy, state_of(*containers)) == phase


@pytest.mark.parametrize(
    ("policy", "init", "phase"),
    [
        ("Never", record(RUNNING), "Pending"),
        ("Never", record(ended(1)), "Failed"),
        ("Always", record(ended(1)), "Pending"),
        ("Never", record(ended(0)), "Running"),
    ],
)
def test_init_containers_come_first(policy: str, init: ContainerRecord, phase: str) -> None:
    assert pod_phase(policy, state_of(record(RUNNING), init=(init,))) == phase


def test_a_pod_that_the_kubelet_ended_has_failed_with_its_reason() -> None:
    status = pod_status({"spec": {}}, state_of(record(ended(0)), ended=("DeadlineExceeded", "too long")), NOW)
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", "DeadlineExceeded", "too long")


def test_conditions_of_others_are_kept_and_transition_times_change_only_with_the_status() -> None:
    scheduled = {"type": "PodScheduled", "status": "True"}
    pod: dict[str, object] = {"spec": {}, "status": {"conditions": [scheduled]}}
    first = pod_status(pod, state_of(record(RUNNING, ready=False)), NOW)
    pod["status"] = first
    second = pod_status(pod, state_of(record(RUNNING, ready=False)), NOW + timedelta(seconds=9))
    third = pod_status(pod, state_of(record(RUNNING, ready=True)), NOW + timedelta(seconds=9))

    def ready(status: dict[str, list[dict[str, str]]]) -> dict[str, str]:
        return next(condition for condition in status["conditions"] if condition["type"] == "Ready")

    assert scheduled in first["conditions"]
    assert ready(first) == ready(second)
    assert ready(first)["message"] == "containers with unready status: [c]"
    assert (ready(third)["status"], ready(third)["lastTransitionTime"]) == ("True", "2026-01-02T03:04:14Z")


@pytest.mark.parametrize(
    ("policy", "code", "again"),
    [
        ("Always", 0, True), ("Always", 1, True), ("OnFailure", 0, False), ("OnFailure", 137, True),
        ("Never", 0, False), ("Never", 1, False),
    ],
)  # fmt: skip
def test_the_restart_policy_decides_by_exit_code(policy: str, code: int, again: bool) -> None:
    assert should_restart(policy, code) is again


def test_restarts_pause_longer_and_longer_and_a_long_run_is_forgiven() -> None:
    backoff = CrashBackoff(first_s=10, last_s=300, reset_s=600)
    assert [backoff.next(1) for _ in range(8)] == [0, 10, 20, 40, 80, 160, 300, 300]
    assert backoff.next(600) == 0
    assert backoff.next(1) == 10


def test_a_container_that_ran_when_the_kubelet_was_killed_counts_as_ended() -> None:
    status = {"restartCount": 2, "state": {"running": {"startedAt": "2026-01-02T03:00:00Z"}}}
    found = record_after_restart({"name": "c"}, status, NOW)
    assert isinstance(found.state, Terminated)
    assert (found.state.exit_code, found.state.reason, found.restart_count) == (137, "ContainerStatusUnknown", 2)


def test_states_survive_being_written_and_read() -> None:
    before = record(Terminated(3, "Error", NOW, NOW, "why", "process://1"), ended(1))
    after = record_after_restart({"name": "c", "image": "i"}, before.status(), NOW)
    assert (after.state, after.last) == (before.state, before.last)


def test_a_probe_changes_its_verdict_after_its_thresholds_in_a_row() -> None:
    counter = ProbeCounter(failure_threshold=3, success_threshold=2, verdict=False)
    assert not counter.has_failed
    results = [True, True, False, False, True, False, False, False, True, True]
    assert [counter.count(result) for result in results] == [
        False, True, True, True, True, True, True, False, False, True
    ]  # fmt: skip


def test_a_probe_has_failed_only_after_its_threshold_in_a_row() -> None:
    counter = ProbeCounter(failure_threshold=2, success_threshold=1, verdict=True)
    found = []
    for result in (False, True, False, False, True):
        counter.count(result)
        found.append(counter.has_failed)
    assert found == [False, False, False, True, False]
