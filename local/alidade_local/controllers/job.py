"""The Job controller of `batch/v1`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from alidade_local.controllers.job_tracking import FINALIZER, Tally, release, tally
from alidade_local.controllers.plan import Children, Plan, Planner
from alidade_local.controllers.pods import (
    FINISHED_PHASES,
    finished_at,
    is_active,
    is_ready,
    phase_of,
    pods_to_delete,
    restarts_of,
)
from alidade_local.events import normal, warning
from alidade_local.objects import (
    Object,
    annotations_of,
    controller_reference,
    format_time,
    is_condition_true,
    is_deleting,
    name_of,
    namespace_of,
    parse_time,
    uid_of,
)
from alidade_local.resources import JOBS, PODS

DEFAULT_BACKOFF_LIMIT = 6
INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
LAST_BACKOFF_S = 360.0
# What tells that a Job is to end, while its pods still do; and how it ends then.
_ENDS = {"SuccessCriteriaMet": "Complete", "FailureTarget": "Failed"}


def job_planner(first_backoff_s: float = 10.0) -> Planner:
    """A planner that replaces failed pods after a pause of `first_backoff_s` seconds, doubling to six minutes."""

    def plan(job: Object, children: Children, now: datetime) -> Plan:
        return plan_job(job, children[PODS], now, first_backoff_s=first_backoff_s)

    return plan


def plan_job(job: Object, pods: Sequence[Object], now: datetime, *, first_backoff_s: float = 10.0) -> Plan:
    """What to create, delete and report for a Job whose pods are these."""
    work = _Work(job, list(pods), copy.deepcopy(job.get("status") or {}), now, Plan())
    is_finished = is_condition_true(job, "Complete") or is_condition_true(job, "Failed")
    if is_deleting(job) or is_finished:
        for pod in pods:
            release(work.plan, pod)
        if is_finished and not is_deleting(job):
            _plan_removal(work)
        return work.plan
    _count(work)
    if outcome := _outcome(work):
        _plan_end(work, outcome)
    elif work.is_suspended:
        _plan_suspended(work)
    else:
        _plan_active(work, first_backoff_s)
    work.plan.status = work.status
    return work.plan


@dataclass
class _Work:
    """One Job while it is being planned; `status` and `plan` are filled in."""

    job: Object
    pods: list[Object]
    status: Object
    now: datetime
    plan: Plan
    tally: Tally = field(default_factory=lambda: Tally({}, {}))

    @property
    def spec(self) -> Object:
        spec: Object = self.job["spec"]
        return spec

    @property
    def active(self) -> list[Object]:
        return [pod for pod in self.pods if is_active(pod)]

    @property
    def is_suspended(self) -> bool:
        return bool(self.spec.get("suspend"))

    @property
    def is_indexed(self) -> bool:
        return self.spec.get("completionMode") == "Indexed"

    @property
    def replaces_only_failed(self) -> bool:
        """Whether a pod that is being deleted is waited for before it is replaced, and before it counts as failed."""
        default = "Failed" if self.spec.get("podFailurePolicy") else "TerminatingOrFailed"
        return (self.spec.get("podReplacementPolicy") or default) == "Failed"

    @property
    def ending(self) -> list[Object]:
        """Pods that are being deleted and have not ended yet."""
        return [pod for pod in self.pods if is_deleting(pod) and phase_of(pod) not in FINISHED_PHASES]

    @property
    def succeeded(self) -> int:
        return len(_succeeded_indexes(self)) if self.is_indexed else self.tally.total("succeeded")

    @property
    def parallelism(self) -> int:
        parallelism = self.spec.get("parallelism")
        return 1 if parallelism is None else int(parallelism)

    @property
    def completions(self) -> int | None:
        """How many pods must succeed; None for a work queue, in which one success ends the Job."""
        if self.spec.get("completions") is None and self.spec.get("parallelism") is None:
            return 1
        completions = self.spec.get("completions")
        return None if completions is None else int(completions)

    @property
    def backoff_limit(self) -> int:
        limit = self.spec.get("backoffLimit")
        return DEFAULT_BACKOFF_LIMIT if limit is None else int(limit)

    def condition(self, condition_type: str, value: bool, reason: str, message: str) -> None:
        conditions: list[Object] = self.status.setdefault("conditions", [])
        before = next((entry for entry in conditions if entry["type"] == condition_type), None)
        if before is not None and before["status"] == str(value):
            return
        fresh = {
            "type": condition_type,
            "status": str(value),
            "reason": reason,
            "message": message,
            "lastProbeTime": format_time(self.now),
            "lastTransitionTime": format_time(self.now),
        }
        self.status["conditions"] = [entry for entry in conditions if entry["type"] != condition_type] + [fresh]


def _index_of(pod: Object) -> int | None:
    index = annotations_of(pod).get(INDEX_ANNOTATION, "")
    return int(index) if index.isdigit() else None


def _count(work: _Work) -> None:
    """Numbers of pods; each counts once, also when somebody deletes it."""
    work.tally = tally(work.status, work.pods, lambda pod: _outcome_of(work, pod))
    indexes = parse_indexes(work.status.get("completedIndexes") or "") if work.is_indexed else set()
    for pod in [*work.tally.released, *(pod for pod in work.pods if _index_of(pod) in indexes)]:
        release(work.plan, pod)
    work.status |= {
        "active": len(work.active),
        "ready": sum(1 for pod in work.active if is_ready(pod)),
        "terminating": len(work.ending),
        "uncountedTerminatedPods": {name: uids for name, uids in work.tally.uncounted.items() if uids},
        **work.tally.numbers,
    }
    if work.is_indexed:
        done = _succeeded_indexes(work)
        work.status["succeeded"] = len(done)
        work.status["completedIndexes"] = format_indexes(done)


def _outcome_of(work: _Work, pod: Object) -> str:
    """As what a pod counts; successes of an Indexed Job are known by their index."""
    if phase_of(pod) == "Succeeded":
        return "" if work.is_indexed else "succeeded"
    ends = is_deleting(pod) and not work.replaces_only_failed
    return "failed" if ends or phase_of(pod) == "Failed" else ""


def _succeeded_indexes(work: _Work) -> set[int]:
    now_done = {index for pod in work.pods if phase_of(pod) == "Succeeded" and (index := _index_of(pod)) is not None}
    done = now_done | parse_indexes(work.status.get("completedIndexes") or "")
    return done & set(range(work.completions or 0))  # a Job may have been made smaller


def format_indexes(indexes: set[int]) -> str:
    """Indexes as the API writes them: `1,3-5`; runs of two are not drawn together."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


def parse_indexes(text: str) -> set[int]:
    indexes: set[int] = set()
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        indexes |= set(range(int(first), int(last or first) + 1))
    return indexes


@dataclass(frozen=True)
class _Outcome:
    """How a Job ends: the type, reason and message of its last condition."""

    condition: str
    reason: str
    message: str


def _outcome(work: _Work) -> _Outcome | None:
    """How the Job is to end, None while it goes on. What was announced stays, whatever the pods that still end do."""
    for announced in work.status.get("conditions") or []:
        if announced["type"] in _ENDS:
            return _Outcome(_ENDS[announced["type"]], announced["reason"], announced["message"])
    if work.tally.total("failed") > work.backoff_limit or _restarts_exceed_limit(work):
        return _Outcome("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    if _is_late(work):
        return _Outcome("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
    if work.completions is None:
        reached = work.succeeded > 0 and not work.active
    else:
        reached = work.succeeded >= work.completions
    if reached:
        return _Outcome("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
    return None


def _is_late(work: _Work) -> bool:
    """Whether it has been active for too long; while it is suspended, it is not."""
    deadline_s, started = work.spec.get("activeDeadlineSeconds"), work.status.get("startTime")
    if deadline_s is None or not started or work.is_suspended:
        return False
    return bool(work.now >= parse_time(started) + timedelta(seconds=deadline_s))


def _restarts_exceed_limit(work: _Work) -> bool:
    """With restartPolicy OnFailure it is restarts in place that the limit counts."""
    if work.spec["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    restarts = sum(restarts_of(pod) for pod in work.active)
    return restarts > 0 if work.backoff_limit == 0 else restarts >= work.backoff_limit


def _plan_end(work: _Work, outcome: _Outcome) -> None:
    """End what still runs; the final condition comes when nothing does and all is counted."""
    announced = next(name for name, condition in _ENDS.items() if condition == outcome.condition)
    work.status.setdefault("startTime", format_time(work.now))
    work.condition(announced, True, outcome.reason, outcome.message)
    work.plan.delete += [(PODS, pod) for pod in work.active]
    still_running = [pod for pod in work.pods if phase_of(pod) not in FINISHED_PHASES]
    if outcome.condition == "Complete":
        for pod in still_running:
            release(work.plan, pod)  # it is not needed any more, and has not failed
    if still_running or work.status["uncountedTerminatedPods"]:
        work.status |= {"active": 0, "ready": 0, "terminating": len(still_running)}
        return
    work.status |= {"active": 0, "ready": 0, "terminating": 0}
    work.condition(outcome.condition, True, outcome.reason, outcome.message)
    if outcome.condition == "Complete":
        work.status["completionTime"] = format_time(work.now)
        work.plan.events.append(normal("Completed", "Job completed"))
    else:
        work.plan.events.append(warning(outcome.reason, outcome.message))


def _plan_removal(work: _Work) -> None:
    ttl_s = work.spec.get("ttlSecondsAfterFinished")
    if ttl_s is None:
        return
    finished = next(
        parse_time(condition["lastTransitionTime"])
        for condition in work.status["conditions"]
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True"
    )
    expires = finished + timedelta(seconds=ttl_s)
    work.plan.delete_self = work.now >= expires
    if not work.plan.delete_self:
        work.plan.look_again_after((expires - work.now).total_seconds())


def _give_up(work: _Work, pods: Sequence[Object]) -> None:
    """Delete pods that are not wanted any more; they count as nothing."""
    for pod in pods:
        release(work.plan, pod)
        work.plan.delete.append((PODS, pod))


def _plan_suspended(work: _Work) -> None:
    _give_up(work, work.active)
    work.status |= {"active": 0, "ready": 0}
    work.status.pop("startTime", None)
    if not is_condition_true({"status": work.status}, "Suspended"):
        work.condition("Suspended", True, "JobSuspended", "Job suspended")
        work.plan.events.append(normal("Suspended", "Job suspended"))


def _plan_active(work: _Work, first_backoff_s: float) -> None:
    if is_condition_true({"status": work.status}, "Suspended"):
        work.condition("Suspended", False, "JobResumed", "Job resumed")
        work.plan.events.append(normal("Resumed", "Job resumed"))
    work.status.setdefault("startTime", format_time(work.now))
    deadline_s = work.spec.get("activeDeadlineSeconds")
    if deadline_s is not None:
        ends = parse_time(work.status["startTime"]) + timedelta(seconds=deadline_s)
        work.plan.look_again_after((ends - work.now).total_seconds())
    wanted = _wanted_active(work)
    if surplus := _surplus(work, wanted):
        _give_up(work, surplus)
        return
    active = len(work.active)
    if work.replaces_only_failed:
        active += len(work.ending)
    if active < wanted:
        wait_s = _remaining_backoff(work, first_backoff_s)
        if wait_s > 0:
            work.plan.look_again_after(wait_s)
        else:
            work.plan.create += [(PODS, pod) for pod in _new_pods(work, wanted - active)]


def _wanted_active(work: _Work) -> int:
    if work.completions is None:
        # A work queue: after the first success nothing new is started.
        return len(work.active) if work.succeeded else work.parallelism
    return min(work.parallelism, work.completions - work.succeeded)


def _surplus(work: _Work, wanted: int) -> list[Object]:
    """Active pods that are not needed.

    An index may have got two when the answer to a creation was lost; the one that has come further stays.
    """
    pods = pods_to_delete(work.active)
    if work.is_indexed:
        furthest = {_index_of(pod): pod for pod in pods}
        needed = set(range(work.completions or 0)) - _succeeded_indexes(work)
        useless = [pod for pod in pods if _index_of(pod) not in needed or furthest[_index_of(pod)] is not pod]
        pods = [*useless, *(pod for index, pod in furthest.items() if index in needed)]
        return pods[: max(len(pods) - wanted, len(useless))]
    return pods[: max(len(pods) - wanted, 0)]


def _remaining_backoff(work: _Work, first_backoff_s: float) -> float:
    """Seconds until a failed pod may be replaced: the pause doubles with each failure since the last success."""
    failures = [finished_at(pod) for pod in work.pods if phase_of(pod) == "Failed"]
    successes = [finished_at(pod) for pod in work.pods if phase_of(pod) == "Succeeded"]
    recent = [moment for moment in failures if not successes or moment > max(successes)]
    if not recent:
        return 0.0
    pause_s = min(first_backoff_s * 2.0 ** (len(recent) - 1), LAST_BACKOFF_S)
    return (max(recent) + timedelta(seconds=pause_s) - work.now).total_seconds()


def _new_pods(work: _Work, count: int) -> list[Object]:
    if not work.is_indexed:
        return [build_pod(work.job, None) for _ in range(count)]
    present = [*work.active, *(work.ending if work.replaces_only_failed else ())]
    taken = {_index_of(pod) for pod in present} | _succeeded_indexes(work)
    free = [index for index in range(work.completions or 0) if index not in taken]
    return [build_pod(work.job, index) for index in free[:count]]


def build_pod(job: Object, index: int | None) -> Object:
    """A pod of the Job; with an index that of an Indexed Job."""
    template = copy.deepcopy(job["spec"]["template"])
    metadata = template.get("metadata") or {}
    name, uid = name_of(job), uid_of(job)
    labels = (metadata.get("labels") or {}) | {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }
    annotations = dict(metadata.get("annotations") or {})
    stem = name
    if index is not None:
        stem = f"{name}-{index}"
        labels[INDEX_ANNOTATION] = annotations[INDEX_ANNOTATION] = str(index)
        template["spec"].setdefault("hostname", stem)
        for container in [*(template["spec"].get("initContainers") or []), *template["spec"]["containers"]]:
            completion_index = {"name": "JOB_COMPLETION_INDEX", "value": str(index)}
            container["env"] = [*(container.get("env") or []), completion_index]
    return {
        "metadata": {
            "generateName": f"{stem}-",
            "namespace": namespace_of(job),
            "labels": labels,
            "annotations": annotations,
            "finalizers": [FINALIZER],
            "ownerReferences": [controller_reference(job, JOBS.api_version, JOBS.kind)],
        },
        "spec": template["spec"],
    }
