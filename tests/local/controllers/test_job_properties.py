"""What holds of Jobs whatever happens: random walks of users, pods, watches and clocks around the real controller.

What a status may say is what kube-apiserver lets the Job controller write (ValidateJobUpdateStatus in pkg/apis/batch);
the rest is what Kubernetes' pages on Jobs promise ("Parallel execution", "Completion mode", "Pod backoff failure
policy", "Suspending a Job", "Delayed creation of replacement pods", "Job tracking with finalizers").
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from alidade_local.controllers.controller import Controller
from alidade_local.controllers.job import INDEX_ANNOTATION, job_planner, parse_indexes
from alidade_local.controllers.job_tracking import FINALIZER, OUTCOMES, OrphanReleaser
from alidade_local.controllers.pods import is_active, phase_of
from alidade_local.objects import (
    Key,
    Object,
    annotations_of,
    condition_of,
    controller_reference,
    is_condition_true,
    is_deleting,
    parse_time,
    uid_of,
)
from alidade_local.resources import JOBS, PODS
from tests.local.controllers.playing import NAMESPACE, TROUBLES, WALK, Walk, chosen, is_running, merged

NAME = "j"
SHAPES: list[dict[str, Any]] = [
    {"completions": 1, "parallelism": 1},
    {"completions": 3, "parallelism": 2},
    {"completions": 2, "parallelism": 2},
    {"parallelism": 2},  # a work queue
    {"completionMode": "Indexed", "completions": 3, "parallelism": 2},
    {"completionMode": "Indexed", "completions": 2, "parallelism": 2},
    {"completions": 0, "parallelism": 1},
]
POLICIES = ["Never", "Never", "OnFailure"]
LIMITS: list[dict[str, Any]] = [
    {"backoffLimit": 6},
    {"backoffLimit": 0},
    {"backoffLimit": 1},
    {"backoffLimit": 6, "activeDeadlineSeconds": 20},
    {"backoffLimit": 6, "podReplacementPolicy": "Failed"},
    {"backoffLimit": 1, "podReplacementPolicy": "Failed"},
    {"backoffLimit": 6, "ttlSecondsAfterFinished": 100},
]


class Jobs(Walk):
    """One Job, or one after another of the same name."""

    planners = {JOBS: ([PODS], job_planner(first_backoff_s=10))}

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        self.before: dict[str, Object] = {}
        self.counted: dict[str, dict[str, set[str]]] = {}
        self.made = 0
        self.told_of: dict[str, str] = {}

    def _controllers(self) -> list[Controller]:
        return [*super()._controllers(), OrphanReleaser(self.server, self.informers).controller]

    # The user

    @initialize(
        shape=st.sampled_from(SHAPES),
        limits=st.sampled_from(LIMITS),
        policy=st.sampled_from(POLICIES),
        rounds=st.integers(0, 5),
        troubles=TROUBLES,
    )
    def begin(
        self, shape: dict[str, Any], limits: dict[str, Any], policy: str, rounds: int, troubles: list[str]
    ) -> None:
        """Its first pods may be made with difficulty."""
        self.create(shape, limits, policy)
        self.lag(rounds, troubles)

    def create(self, shape: dict[str, Any], limits: dict[str, Any], policy: str) -> None:
        """A Job, as the API server completes it."""
        template = {"spec": {"restartPolicy": policy, "containers": [{"name": "c", "image": "i"}]}}
        spec = {"completionMode": "NonIndexed", **shape, **limits, "suspend": False, "template": template}
        self.server.create_object(JOBS, {"metadata": {"name": NAME, "namespace": NAMESPACE}, "spec": spec})

    @precondition(lambda self: self.goes_on())
    @rule(change=st.sampled_from([{"suspend": True}, {"suspend": False}, *({"parallelism": n} for n in range(4))]))
    def edit(self, change: dict[str, Any]) -> None:
        """What may change of a Job."""
        job = self.parent(JOBS, NAME)
        if job is not None:
            self.server.write(JOBS, merged(job, {"spec": change}))

    @precondition(lambda self: self.goes_on())
    @rule(limit=st.integers(0, 3))
    def limit(self, limit: int) -> None:
        self.edit({"backoffLimit": limit})

    @precondition(lambda self: self.goes_on())
    @rule(size=st.integers(1, 3))
    def resize(self, size: int) -> None:
        """An Indexed Job may get more or fewer indexes, as long as all may run at once."""
        job = self.parent(JOBS, NAME)
        if job is not None and job["spec"]["completionMode"] == "Indexed":
            self.edit({"completions": size, "parallelism": size})

    @rule(foreground=st.booleans())
    def delete(self, foreground: bool) -> None:
        job = self.parent(JOBS, NAME)
        if job is not None:
            self.server.delete_object(JOBS, job, foreground=foreground)

    @precondition(lambda self: not self.goes_on())
    @rule(shape=st.sampled_from(SHAPES), limits=st.sampled_from(LIMITS), policy=st.sampled_from(POLICIES))
    def follow(self, shape: dict[str, Any], limits: dict[str, Any], policy: str) -> None:
        """Another Job comes in its place, of whose pods some may still be there."""
        self.delete(foreground=False)
        if self.parent(JOBS, NAME) is None:
            self.create(shape, limits, policy)

    def goes_on(self) -> bool:
        """Whether there is a Job that has not ended."""
        job = self.parent(JOBS, NAME)
        return job is not None and not is_deleting(job) and not is_over(job)

    # Pods

    def hit(self, pod: Object, how: int) -> None:
        """It succeeds, fails, is evicted, its containers start anew in place, or somebody deletes it."""
        if how % 5 == 0:
            self.server.delete_object(PODS, pod)
        elif how % 5 == 1 and pod["spec"]["restartPolicy"] == "OnFailure" and is_running(pod) and not is_deleting(pod):
            self.kubelet.restart(pod)
        elif is_running(pod):
            self.kubelet.end(pod, (0, 0, 1, None)[how % 4])

    @precondition(lambda self: self.goes_on())
    @rule(which=st.integers(0, 2), succeeds=st.booleans())
    def outlive(self, which: int, succeeds: bool) -> None:
        """Somebody deletes a pod, which takes long to end; the others may succeed meanwhile."""
        self.go_on(8)
        pod = chosen(self.pods(is_active), which)
        if pod is not None:
            self.server.delete_object(PODS, pod)
        self.control()
        if succeeds:
            for other in self.pods(is_active):
                self.kubelet.end(other, 0)
            self.control()
            self.wait(600)
            self.control()

    # What is to come of it

    def come_to_rest(self) -> None:
        """As many pods run as the Job asks for, each for another index, and none for what is over."""
        self.settle()
        job = self.parent(JOBS, NAME)
        active = self.pods(is_active)
        tracked = [pod for pod in self.pods() if FINALIZER in (pod["metadata"].get("finalizers") or [])]
        assert all(is_active(pod) for pod in tracked), "what has ended is counted and let go"
        if job is None or is_over(job):
            assert (active, tracked) == ([], [])
            return
        status, spec = job["status"], job["spec"]
        assert status["failed"] <= spec["backoffLimit"]
        assert not is_complete(job)
        indexes = [index_of(pod) for pod in active]
        if spec["completionMode"] == "Indexed":
            done = parse_indexes(status["completedIndexes"])
            assert len(set(indexes)) == len(indexes)
            assert set(indexes) <= set(range(spec["completions"])) - done
        wanted = spec["parallelism"]
        if spec.get("completions") is not None:
            wanted = min(wanted, spec["completions"] - status["succeeded"])
        elif status["succeeded"]:
            wanted = min(wanted, len(active))
        assert len(active) == (0 if spec["suspend"] else wanted) == status["active"]
        assert is_condition_true(job, "Suspended") == spec["suspend"]

    @precondition(lambda self: self.goes_on())
    @rule(codes=st.lists(st.sampled_from([0, 1]), min_size=1, max_size=3))
    def run_out(self, codes: list[int]) -> None:
        """All pods end like this, time after time."""
        for code in codes:
            self.settle()
            for pod in self.pods(is_active):
                self.kubelet.end(pod, code)
        self.come_to_rest()

    @precondition(lambda self: self.goes_on())
    @rule()
    def succeed(self) -> None:
        """A Job that may run, and whose pods succeed, completes with what it asked for, or was past its limit."""
        self.run_out([0] * 4)
        job = self.parent(JOBS, NAME)
        if job is None or job["spec"]["suspend"] or is_condition_true(job, "Failed"):
            return
        if job["spec"]["parallelism"] or is_complete(job):
            assert is_condition_true(job, "Complete")
            assert job["status"]["succeeded"] >= (job["spec"].get("completions") or 0)

    # What always holds

    def check(self) -> None:
        self.statuses_are_those_that_the_api_takes()
        self.pods_count_as_what_they_are()

    def statuses_are_those_that_the_api_takes(self) -> None:
        """And each pod that a status names is counted once and for good."""
        log = self.server.log[JOBS]
        for _, job in log[self.seen :]:
            uid = uid_of(job)
            before = self.before.get(uid)
            if before is None or job["status"] != before["status"]:
                assert refusals(before, job) == [], job["status"]
                if is_newly_past_its_limit(before, job) and job["spec"]["template"]["spec"]["restartPolicy"] == "Never":
                    failed = (job["status"].get("uncountedTerminatedPods") or {}).get("failed") or []
                    assert job["status"]["failed"] + len(failed) > job["spec"]["backoffLimit"]
            self.before[uid] = job
            counted = self.counted.setdefault(uid, {outcome: set() for outcome in OUTCOMES})
            uncounted = job["status"].get("uncountedTerminatedPods") or {}
            for outcome in OUTCOMES:
                named = uncounted.get(outcome) or []
                counted[outcome] |= set(named)
                if outcome == "failed" or job["spec"]["completionMode"] != "Indexed":
                    assert job["status"].get(outcome, 0) + len(named) == len(counted[outcome])
            assert not counted["succeeded"] & counted["failed"]
        self.seen = len(log)

    def pods_count_as_what_they_are(self) -> None:
        """A success is a pod that succeeded; a failure one that failed or was deleted before it had ended."""
        log = self.server.log[PODS]
        for event, pod in log[self.made :]:
            phase = phase_of(pod)
            if phase in ("Succeeded", "Failed"):
                self.told_of.setdefault(uid_of(pod), phase)
            if event != "DELETED" and uid_of(pod) not in self.before:
                references = pod["metadata"]["ownerReferences"]
                assert [reference["controller"] for reference in references] == [True]
                assert references[0]["uid"] in self.before
                assert references == [controller_reference(self.before[references[0]["uid"]], "batch/v1", "Job")]
        self.made = len(log)
        for counted in self.counted.values():
            assert all(self.told_of.get(uid) == "Succeeded" for uid in counted["succeeded"])

    def work(self, which: int) -> bool:
        """Whoever makes pods makes no more than `parallelism`, none for an index that has one, none after the end."""
        before = len(self.server.log[PODS])
        present = {uid_of(pod) for pod in self.pods()}
        known = self.informers.of(PODS).all()
        job = self.informers.of(JOBS).get(Key(NAMESPACE, NAME))
        worked = super().work(which)
        made = [pod for _, pod in self.server.log[PODS][before:] if uid_of(pod) not in present]
        if made and job is not None:
            holding = [
                pod
                for pod in known
                if is_active(pod)
                or (job["spec"].get("podReplacementPolicy") == "Failed" and phase_of(pod) in ("Pending", "Running"))
            ]
            mine = [pod for pod in [*holding, *made] if pod["metadata"]["ownerReferences"][0]["uid"] == uid_of(job)]
            assert len(mine) <= job["spec"]["parallelism"]
            if job["spec"]["completionMode"] == "Indexed":
                assert max(Counter(index_of(pod) for pod in mine).values()) == 1
            assert not is_over(job)
            assert not job["spec"]["suspend"]
        return worked


def index_of(pod: Object) -> int:
    return int(annotations_of(pod).get(INDEX_ANNOTATION, -1))


def is_over(job: Object) -> bool:
    return is_condition_true(job, "Complete") or is_condition_true(job, "Failed")


def is_newly_past_its_limit(before: Object | None, after: Object) -> bool:
    past = condition_of(after, "FailureTarget")
    is_past = past is not None and past["reason"] == "BackoffLimitExceeded"
    return is_past and (before is None or condition_of(before, "FailureTarget") is None)


def is_complete(job: Object) -> bool:
    """Whether as many pods have succeeded as the Job asks for."""
    completions = job["spec"].get("completions")
    return completions is not None and job["status"].get("succeeded", 0) >= completions


def refusals(before: Object | None, after: Object) -> list[str]:
    """Why kube-apiserver would not take a Job's status, by the names of its rules."""
    old: Object = before["status"] if before is not None else {}
    new, spec = after["status"], after["spec"]

    def true(status: Object) -> set[str]:
        return {one["type"] for one in status.get("conditions") or [] if one["status"] == "True"}

    is_indexed = spec["completionMode"] == "Indexed"
    has_finished, is_done = bool(true(new) & {"Complete", "Failed"}), "Complete" in true(new)
    started, completed = new.get("startTime"), new.get("completionTime")
    rules = {
        "DecreasingSucceededCounter": new.get("succeeded", 0) < old.get("succeeded", 0)
        and not (is_indexed and spec["completions"] == spec["parallelism"]),
        "DecreasingFailedCounter": new.get("failed", 0) < old.get("failed", 0),
        "DisablingTerminalCondition": bool(
            (true(old) - true(new)) & {"Complete", "Failed", "FailureTarget", "SuccessCriteriaMet"}
        ),
        "InvalidCompletedIndexes": is_indexed
        and not parse_indexes(new.get("completedIndexes") or "") <= set(range(spec["completions"])),
        "CompletedIndexesForNonIndexedJob": bool(new.get("completedIndexes")) and not is_indexed,
        "FailedJobWithoutFailureTarget": "Failed" in true(new) and "FailureTarget" not in true(new),
        "CompleteJobWithoutSuccessCriteriaMet": is_done and "SuccessCriteriaMet" not in true(new),
        "FinishedJobWithActivePods": has_finished and new["active"] > 0,
        "FinishedJobWithTerminatingPods": has_finished and new["terminating"] > 0,
        "FinishedJobWithUncountedTerminatedPods": has_finished and bool(new.get("uncountedTerminatedPods")),
        "FinishedJobWithoutStartTime": has_finished and not started,
        "StartTimeUpdateForUnsuspendedJob": bool(old.get("startTime"))
        and started != old["startTime"]
        and not spec["suspend"],
        "CompletionTimeBeforeStartTime": bool(completed)
        and bool(started)
        and parse_time(str(completed)) < parse_time(str(started)),
        "MutatingCompletionTime": bool(old.get("completionTime")) and completed != old["completionTime"],
        "NotCompleteJobWithCompletionTime": bool(completed) and not is_done,
        "CompleteJobWithoutCompletionTime": is_done and not completed,
        "CompleteJobWithFailedCondition": {"Complete", "Failed"} <= true(new),
        "CompleteJobWithFailureTargetCondition": is_done and "FailureTarget" in true(new),
        "SuccessCriteriaMetWithFailure": "SuccessCriteriaMet" in true(new)
        and bool(true(new) & {"Failed", "FailureTarget"}),
        "MoreReadyThanActivePods": new.get("ready", 0) > new.get("active", 0),
        "RepeatedCondition": len({one["type"] for one in new.get("conditions") or []})
        != len(new.get("conditions") or []),
    }
    return [name for name, broken in rules.items() if broken]


Jobs.TestCase.settings = WALK
TestJobs = Jobs.TestCase
