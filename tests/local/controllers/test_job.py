"""A Job's plan is what the Job controller of Kubernetes would do."""

from __future__ import annotations

import copy
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from alidade_local.controllers.job import build_pod, format_indexes, parse_indexes, plan_job
from alidade_local.controllers.plan import Plan
from alidade_local.objects import is_deleting

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
Doc = dict[str, Any]
NUMBERS = itertools.count()


def job(status: Doc | None = None, *, policy: str = "Never", **spec: Any) -> Doc:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": policy, "containers": [{"name": "c"}]}}
    return {
        "metadata": {"name": "j", "namespace": "n", "uid": "u"},
        "spec": {"template": template, **spec},
        "status": status or {},
    }


def pod(phase: str, *, seconds_ago: int = 0, index: int | None = None, restarts: int = 0) -> Doc:
    document = build_pod(job(), index)
    ended = (NOW - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")
    state = {"terminated": {"finishedAt": ended}} if phase in ("Failed", "Succeeded") else {"running": {}}
    number = next(NUMBERS)
    document["metadata"] |= {"name": f"p{number}", "uid": f"uid-{number}", "creationTimestamp": ended}
    document["status"] = {"phase": phase, "containerStatuses": [{"state": state, "restartCount": restarts}]}
    return document


def settled(wanted: Doc, pods: list[Doc], now: datetime = NOW) -> Plan:
    """The first plan that leaves the Job and its pods as they are; what those before it asked for is done.

    Pods that are deleted end as failed, and are gone when nothing keeps them.
    """
    for _ in range(10):
        plan = plan_job(wanted, pods, now)
        before = copy.deepcopy((wanted, pods))
        for _, document, patch in plan.patch:
            document["metadata"]["finalizers"] = patch["metadata"]["finalizers"]
        for _, document in plan.delete:
            delete(document)
        pods[:] = [one for one in pods if not is_deleting(one) or one["metadata"]["finalizers"]]
        wanted["status"] = plan.status or wanted["status"]
        if (wanted, pods) == before:
            return plan
    raise AssertionError("it does not come to rest")


def delete(one: Doc) -> None:
    """What the kubelet makes of a deletion, when it is through with it."""
    one["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    if one["status"]["phase"] == "Running":
        one["status"]["phase"] = "Failed"


def conditions(plan: Plan) -> dict[str, tuple[str, str]]:
    assert plan.status is not None
    return {entry["type"]: (entry["status"], entry["reason"]) for entry in plan.status.get("conditions") or []}


@pytest.mark.parametrize(
    ("spec", "pods", "created"),
    [
        ({}, [], 1),
        ({"parallelism": 3, "completions": 5}, [], 3),
        ({"parallelism": 3, "completions": 5}, ["Running"], 2),
        ({"parallelism": 3, "completions": 5}, ["Succeeded"] * 3 + ["Running"], 1),
        ({"parallelism": 3, "completions": 5}, ["Succeeded"] * 4 + ["Running"], 0),
        ({"parallelism": 0, "completions": 1}, [], 0),
        ({"parallelism": 3}, ["Running"], 2),
        ({"parallelism": 3}, ["Running", "Succeeded"], 0),
    ],
)
def test_as_many_pods_run_as_parallelism_and_completions_ask_for(spec: Doc, pods: list[str], created: int) -> None:
    plan = plan_job(job(**spec), [pod(phase) for phase in pods], NOW)
    assert len(plan.create) == created
    assert len(settled(job(**spec), [pod(phase) for phase in pods]).create) == created


def test_a_pod_carries_the_jobs_labels_and_owner() -> None:
    metadata = build_pod(job(), None)["metadata"]
    assert metadata["labels"] == {
        "a": "b", "batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "j",
        "controller-uid": "u", "job-name": "j",
    }  # fmt: skip
    assert (metadata["generateName"], metadata["ownerReferences"][0]["uid"]) == ("j-", "u")


def test_a_job_is_complete_when_enough_pods_succeeded_and_nothing_runs_any_more() -> None:
    ending = plan_job(job(), [pod("Succeeded"), pod("Running")], NOW)
    assert conditions(ending) == {"SuccessCriteriaMet": ("True", "CompletionsReached")}
    assert len(ending.delete) == 1
    ended = job()
    pods = [pod("Succeeded"), pod("Running")]
    settled(ended, pods)
    assert conditions(Plan(status=ended["status"]))["Complete"] == ("True", "CompletionsReached")
    assert (ended["status"]["succeeded"], ended["status"]["failed"]) == (1, 0)
    assert ended["status"]["completionTime"] == "2026-01-02T03:04:05Z"
    assert [one["metadata"]["finalizers"] for one in pods] == [None]


@pytest.mark.parametrize(("limit", "failures", "failed"), [(0, 1, True), (2, 2, False), (2, 3, True), (None, 6, False)])
def test_a_job_fails_when_more_pods_failed_than_its_limit(limit: int | None, failures: int, failed: bool) -> None:
    spec = {} if limit is None else {"backoffLimit": limit}
    ended = job(**spec)
    settled(ended, [pod("Failed") for _ in range(failures)])
    assert (conditions(Plan(status=ended["status"])).get("Failed") == ("True", "BackoffLimitExceeded")) is failed
    assert ended["status"]["failed"] == failures


@pytest.mark.parametrize(("limit", "restarts", "failed"), [(0, 1, True), (2, 1, False), (2, 2, True)])
def test_restarts_in_place_count_against_the_limit(limit: int, restarts: int, failed: bool) -> None:
    running = pod("Running", restarts=restarts)
    plan = plan_job(job(policy="OnFailure", backoffLimit=limit), [running], NOW)
    assert ("FailureTarget" in conditions(plan)) is failed


@pytest.mark.parametrize(
    ("failures", "seconds_ago", "wait_s"), [(1, 4, 6.0), (1, 10, None), (2, 10, 10.0), (3, 10, 30.0)]
)
def test_a_failed_pod_is_replaced_after_a_pause_that_doubles(
    failures: int, seconds_ago: int, wait_s: float | None
) -> None:
    pods = [pod("Failed", seconds_ago=seconds_ago + 100 * index) for index in range(failures)]
    plan = plan_job(job(), pods, NOW, first_backoff_s=10.0)
    assert (plan.again_after_s, len(plan.create)) == (wait_s, 0 if wait_s else 1)


def test_a_job_that_is_active_too_long_fails() -> None:
    spec = {"activeDeadlineSeconds": 10}
    started = {"startTime": "2026-01-02T03:04:00Z"}
    assert plan_job(job(started, **spec), [pod("Running")], NOW).again_after_s == 5.0
    late = plan_job(job(started, **spec), [pod("Running")], NOW + timedelta(seconds=5))
    assert conditions(late) == {"FailureTarget": ("True", "DeadlineExceeded")}
    assert len(late.delete) == 1
    over = plan_job(job(late.status, **spec), [], NOW)
    assert conditions(over)["Failed"] == ("True", "DeadlineExceeded")


def test_a_suspended_job_has_no_pods_and_starts_anew_when_resumed() -> None:
    suspended = plan_job(job(suspend=True), [pod("Running")], NOW)
    assert len(suspended.delete) == 1
    assert conditions(suspended) == {"Suspended": ("True", "JobSuspended")}
    assert suspended.status is not None
    assert "startTime" not in suspended.status
    resumed = plan_job(job(suspended.status), [], NOW)
    assert conditions(resumed) == {"Suspended": ("False", "JobResumed")}
    assert len(resumed.create) == 1


@pytest.mark.parametrize(("after_s", "deleted"), [(4, False), (5, True)])
def test_a_finished_job_is_deleted_after_its_time_to_live(after_s: int, deleted: bool) -> None:
    ended = job()
    settled(ended, [pod("Succeeded")])
    plan = plan_job(
        job(ended["status"], ttlSecondsAfterFinished=5), [pod("Succeeded")], NOW + timedelta(seconds=after_s)
    )
    assert plan.delete_self is deleted


def test_a_pod_counts_once_and_for_good() -> None:
    wanted, pods = job(completions=2, parallelism=1), [pod("Succeeded"), pod("Failed")]
    first = plan_job(wanted, pods, NOW).status
    assert first is not None
    uids = [one["metadata"]["uid"] for one in pods]
    assert first["uncountedTerminatedPods"] == {"succeeded": uids[:1], "failed": uids[1:]}
    assert (first["succeeded"], first["failed"]) == (0, 0)
    for present in (pods, []):  # also when somebody deletes them then
        settled(wanted, present)
        assert (wanted["status"]["succeeded"], wanted["status"]["failed"]) == (1, 1)
        assert wanted["status"]["uncountedTerminatedPods"] == {}


def test_nothing_is_counted_twice_when_it_is_planned_again_before_the_pods_are_let_go() -> None:
    pods = [pod("Succeeded")]
    once = plan_job(job(completions=2), pods, NOW)
    assert once.patch == [], "a pod is let go only when its uid is written"
    twice = plan_job(job(once.status, completions=2), pods, NOW)
    assert twice.status == once.status
    assert [document for _, document, _ in twice.patch] == pods


@pytest.mark.parametrize(
    ("policy", "phase", "failed", "created"),
    [
        ("TerminatingOrFailed", "Running", 1, 1),
        ("Failed", "Running", 0, 0),
        ("Failed", "Failed", 1, 1),
        ("Failed", "Succeeded", 0, 0),
    ],
)
def test_a_pod_that_somebody_deletes_counts_and_is_replaced_at_once_or_when_it_has_ended(
    policy: str, phase: str, failed: int, created: int
) -> None:
    deleted = pod(phase, seconds_ago=60)
    deleted["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:00Z"
    plan = plan_job(job(podReplacementPolicy=policy), [deleted], NOW)
    assert plan.status is not None
    assert len(plan.status["uncountedTerminatedPods"].get("failed", [])) == failed
    assert len(plan.create) == created


def test_pods_that_a_job_gives_up_do_not_count() -> None:
    wanted, pods = job(suspend=True), [pod("Running")]
    settled(wanted, pods)
    assert pods == []
    assert wanted["status"]["failed"] == 0


def test_the_pods_of_a_job_that_is_being_deleted_are_let_go() -> None:
    wanted, pods = job(), [pod("Running")]
    wanted["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    plan = plan_job(wanted, pods, NOW)
    assert [(document, patch["metadata"]["finalizers"]) for _, document, patch in plan.patch] == [(pods[0], None)]


def test_an_indexed_job_runs_each_index_once() -> None:
    spec = {"completionMode": "Indexed", "completions": 4, "parallelism": 2}
    plan = plan_job(job(**spec), [pod("Succeeded", index=0), pod("Running", index=2)], NOW)
    created = [document for _, document in plan.create]
    assert [document["metadata"]["generateName"] for document in created] == ["j-1-"]
    assert created[0]["spec"]["containers"][0]["env"] == [{"name": "JOB_COMPLETION_INDEX", "value": "1"}]
    assert plan.status is not None
    assert plan.status["completedIndexes"] == "0"


def test_pods_of_a_finished_indexed_job_are_let_go() -> None:
    wanted, pods = job(completionMode="Indexed", completions=1), [pod("Succeeded", index=0)]
    settled(wanted, pods)
    assert conditions(Plan(status=wanted["status"]))["Complete"] == ("True", "CompletionsReached")
    assert [one["metadata"]["finalizers"] for one in pods] == [None]


def test_an_index_whose_pod_still_ends_waits_and_the_others_do_not() -> None:
    spec = {"completionMode": "Indexed", "completions": 3, "parallelism": 3, "podReplacementPolicy": "Failed"}
    ending = pod("Running", index=0)
    ending["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:00Z"
    plan = plan_job(job(**spec), [ending, pod("Running", index=1)], NOW)
    assert [document["metadata"]["generateName"] for _, document in plan.create] == ["j-2-"]


def test_of_two_pods_of_an_index_the_one_that_has_come_further_stays() -> None:
    spec = {"completionMode": "Indexed", "completions": 2, "parallelism": 2}
    pods = [pod("Pending", index=0), pod("Running", index=0)]
    plan = plan_job(job(**spec), pods, NOW)
    assert [document for _, document in plan.delete] == pods[:1]
    assert [document["metadata"]["generateName"] for _, document in settled(job(**spec), pods).create] == ["j-1-"]


@pytest.mark.parametrize(("completions", "done"), [(1, ""), (3, "1,2")])
def test_pods_of_indexes_that_a_job_has_lost_or_that_are_done_go(completions: int, done: str) -> None:
    spec = {"completionMode": "Indexed", "completions": completions, "parallelism": completions}
    status = {"completedIndexes": "1,2", "succeeded": 2}
    plan = plan_job(job(status, **spec), [pod("Running", index=0), pod("Running", index=2)], NOW)
    assert [document["metadata"]["generateName"] for _, document in plan.delete] == ["j-2-"]
    assert plan.status is not None
    assert plan.status["completedIndexes"] == done


def test_a_job_ends_as_it_was_announced_and_with_a_time_at_which_it_began() -> None:
    ending = pod("Running")
    ending["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:00Z"
    wanted = job(completions=1, activeDeadlineSeconds=10)
    first = plan_job(wanted, [pod("Succeeded"), ending], NOW).status
    late = plan_job(job(first, completions=1, activeDeadlineSeconds=10), [ending], NOW + timedelta(seconds=60))
    assert "FailureTarget" not in conditions(late)
    nothing = plan_job(job(completions=0), [], NOW)
    assert conditions(nothing)["Complete"] == ("True", "CompletionsReached")
    assert nothing.status is not None
    assert nothing.status["startTime"] == nothing.status["completionTime"]


def test_a_suspended_job_whose_work_is_done_is_complete() -> None:
    wanted = job(suspend=True, completions=1)
    settled(wanted, [pod("Succeeded")])
    assert conditions(Plan(status=wanted["status"]))["Complete"] == ("True", "CompletionsReached")


@pytest.mark.parametrize(("indexes", "text"), [(set(), ""), ({0}, "0"), ({0, 1}, "0,1"), ({1, 3, 4, 5, 9}, "1,3-5,9")])
def test_indexes_are_written_as_the_api_writes_them(indexes: set[int], text: str) -> None:
    assert format_indexes(indexes) == text
    assert parse_indexes(text) == indexes
