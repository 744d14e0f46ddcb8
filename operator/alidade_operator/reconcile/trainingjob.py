"""What to do about a training job: one pure function from the resource and what is observed to a plan."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from alidade_crds.contract import ResultDocument
from alidade_crds.reasons import ConditionType, FailureReason, Reason
from alidade_crds.status import ChildRef, Condition
from alidade_operator.config import OperatorConfig
from alidade_operator.reconcile import progress, usage
from alidade_operator.reconcile.craft import Craft, craft_of
from alidade_operator.reconcile.draft import Draft, failure_info
from alidade_operator.reconcile.elastic import fewer_workers, patience_ends, with_present_workers
from alidade_operator.reconcile.launch import NOTHING_RUNS, missing_document, plan_launch, state_suspension, time_told
from alidade_operator.reconcile.outcome import AttemptFailure, Undecided, outcome
from alidade_operator.reconcile.plan import Delete, Notice, Plan, ProgressTarget, TrainingJob, seconds_until
from alidade_operator.reconcile.queueing import queued
from alidade_operator.resources.observation import Observed, PodView, TrainingJobView

# An ended job whose pods have not told their end yet is looked at again this often.
_UNDECIDED_S = 1.0
_MOST_WARNINGS = 5


@dataclass(frozen=True)
class Situation:
    """A training job and all that its plan depends on."""

    job: TrainingJob
    observed: Observed
    config: OperatorConfig
    now: datetime

    @property
    def own_jobs(self) -> list[TrainingJobView]:
        """Its attempts, the oldest first."""
        return sorted((item for item in self.observed.jobs if item.owned), key=lambda item: item.attempt)

    @property
    def attempt(self) -> int:
        """The newest attempt there has been; status or child may lag behind the other when the operator was killed."""
        newest = max((item.attempt for item in self.own_jobs), default=0)
        return max(self.job.status.attempts, newest)

    @property
    def current(self) -> TrainingJobView | None:
        """That attempt."""
        return next((item for item in self.own_jobs if item.attempt == self.attempt), None)

    @property
    def craft(self) -> Craft:
        """The sort of job that it is."""
        return craft_of(self.job)

    def pods_of(self, training_job: TrainingJobView) -> list[PodView]:
        """The pods that belong to an attempt and not to an older one of the same name."""
        return [pod for pod in self.observed.pods if pod.belongs_to(training_job)]


def plan_training_job(job: TrainingJob, observed: Observed, config: OperatorConfig, now: datetime) -> Plan:
    """The plan for a training job. It holds no memory: it can be made at any time, any number of times."""
    if job.terminating:
        return Plan()
    situation = Situation(job, observed, config, now)
    lifetime_s = job.spec.ttl_seconds_after_finished if job.spec is not None else None
    draft = Draft(job.status, generation=job.generation, now=now, lifetime_s=lifetime_s)
    conditions = draft.conditions
    if conditions.is_true(ConditionType.SUCCEEDED) or conditions.is_true(ConditionType.FAILED):
        return _after_the_end(situation, draft)
    current = situation.current
    # There is at most one attempt at a time, whatever has happened before.
    others = [item for item in situation.own_jobs if item is not current and _is_live(item)]
    draft.deletions += [_deletion(item) for item in others]
    if current is None or job.spec is None:
        return plan_launch(job, observed, config, draft, attempt=situation.attempt)
    draft.state(attempts=current.attempt, job_ref=ChildRef(kind=current.kind.kind, name=current.name))
    if current.terminating:
        return _while_it_goes(situation, draft, current)
    if current.state in ("succeeded", "failed"):
        return _ended(situation, draft, current)
    return _live(situation, draft, current)


def _after_the_end(situation: Situation, draft: Draft) -> Plan:
    """Nothing is launched any more; what still runs goes, and the resource too when its time has come."""
    job = situation.job
    succeeded = draft.conditions.is_true(ConditionType.SUCCEEDED)
    draft.deletions += [_deletion(item) for item in situation.own_jobs if _is_live(item)]
    why = "it has finished, and nothing of it may run any more"
    if draft.expires_at is not None and situation.now >= draft.expires_at:
        draft.deletions.append(Delete(job.kind, job.name, job.uid))
        why = "spec.ttlSecondsAfterFinished has passed"
    return draft.finish("Succeeded" if succeeded else "Failed", "clean up", why)


def _deletion(item: TrainingJobView) -> Delete:
    return Delete(item.kind, item.name, item.uid)


def _is_live(item: TrainingJobView) -> bool:
    return not item.terminating and item.state not in ("succeeded", "failed")


def _while_it_goes(situation: Situation, draft: Draft, current: TrainingJobView) -> Plan:
    """The attempt is being deleted: its event, or the next look, finds it gone."""
    spec = situation.job.spec
    suspended = spec is not None and spec.suspend
    if suspended:
        state_suspension(draft, suspended=True)
    draft.conditions.set(ConditionType.LAUNCHED, "False", Reason.WAITING, f"{current.title} is being deleted.")
    draft.look_again_in(_UNDECIDED_S)
    return draft.finish("Suspended" if suspended else "Waiting", "wait", f"{current.name} is being deleted")


def _ended(situation: Situation, draft: Draft, current: TrainingJobView) -> Plan:
    pods = situation.pods_of(current)
    _state_usage(situation, draft, current, pods)
    known = situation.job.status.last_failure
    if known is not None and known.attempt == current.attempt:
        return plan_launch(situation.job, situation.observed, situation.config, draft, attempt=current.attempt)
    craft = situation.craft
    ending = outcome(current, pods, now=situation.now, has_result=craft.has_result, saves_memory=craft.saves_memory)
    if isinstance(ending, Undecided):
        draft.look_again_in(_UNDECIDED_S)
        return draft.finish("Running", "wait", f"{current.name} has ended; its pods have not said how yet")
    if isinstance(ending, AttemptFailure):
        return _failed_attempt(situation, draft, current, _in_its_light(situation, ending))
    return _succeeded(situation, draft, current, ending)


def _in_its_light(situation: Situation, failure: AttemptFailure) -> AttemptFailure:
    """The failure, or the interruption that it is the echo of: the interrupted pod may be gone by now, but the status
    was told of it while it went."""
    launched = _launched_before(situation)
    if not failure.retryable or failure.interrupted or launched is None or launched.reason != Reason.INTERRUPTED:
        return failure
    return replace(
        failure,
        reason=str(FailureReason.INTERRUPTED),
        message=f"{launched.message} Then: {failure.message}",
        interrupted=True,
    )


def _launched_before(situation: Situation) -> Condition | None:
    """What the status says of the launch of the present attempt."""
    status, current = situation.job.status, situation.current
    if current is None or status.job_ref is None or status.job_ref.name != current.name:
        return None
    return next((one for one in status.conditions if one.type == ConditionType.LAUNCHED), None)


def _state_usage(situation: Situation, draft: Draft, current: TrainingJobView, pods: Sequence[PodView]) -> None:
    spec = situation.job.spec
    started = [pod.started_at for pod in pods if pod.started_at is not None]
    if started and draft.before.started_at is None:
        draft.state(started_at=min(started))
    if spec is None or not spec.compute.gpus_per_worker:
        return
    hours = usage.gpu_hours(current, pods, gpus_per_worker=spec.compute.gpus_per_worker, now=situation.now)
    # Pods that were cleaned away take their share of the count with them; what was counted stays counted.
    hours = max(hours, draft.before.gpu_hours or 0.0)
    draft.state(gpu_hours=hours, cost=usage.cost(hours, situation.config.pool(spec.compute.node_pool)))


def _succeeded(situation: Situation, draft: Draft, current: TrainingJobView, result: ResultDocument) -> Plan:
    message = situation.craft.take(draft, result, situation.job.spec)
    last = progress.at_the_end(draft.before.progress, situation.observed.progress, result, draft.now)
    draft.state(
        report_uri=result.report_uri,
        progress=last,
        **(situation.craft.shown(last) if last is not None else {}),
        finished_at=(current.ended_at or draft.now).replace(microsecond=0),
        active_seconds=usage.active_seconds(current, now=situation.now),
    )
    reason = result.stopped.reason if result.stopped is not None else Reason.COMPLETED
    draft.conditions.set(ConditionType.SUCCEEDED, "True", reason, message)
    draft.conditions.set(ConditionType.LAUNCHED, "True", Reason.COMPLETED, f"{current.title} has succeeded.")
    draft.remarks += [
        Notice("Warning", situation.craft.warning, warning) for warning in result.warnings[:_MOST_WARNINGS]
    ]
    return draft.finish("Succeeded", "succeed", message)


def _failed_attempt(situation: Situation, draft: Draft, current: TrainingJobView, failure: AttemptFailure) -> Plan:
    spec = situation.job.spec
    assert spec is not None, "an unreadable spec does not get here"
    info = failure_info(
        current.attempt,
        reason=failure.reason,
        message=failure.message,
        exit_code=failure.exit_code,
        at=failure.at,
        interrupted=failure.interrupted,
    )
    interruptions = (draft.before.interruptions or 0) + failure.interrupted
    draft.state(
        last_failure=info,
        interruptions=interruptions or None,
        active_seconds=usage.active_seconds(current, now=situation.now),
        workers=None,
    )
    # A failure under an older spec is no judgement on this one.
    counts = situation.job.is_begun and not failure.interrupted
    if counts and not failure.retryable:
        return _fail(draft, failure.reason, failure.message, ended_at=failure.at)
    failures = current.attempt - interruptions
    if counts and failures > spec.backoff_limit:
        attempts = "The only attempt" if failures == 1 else f"All {failures} attempts"
        message = f"{attempts} failed (spec.backoffLimit is {spec.backoff_limit}); the last with {failure.reason}: "
        return _fail(draft, Reason.BACKOFF_LIMIT_EXCEEDED, message + failure.message, ended_at=failure.at)
    # Whether and when the next attempt starts is decided as for the first: by what the status says now.
    settled = situation.job.status.model_copy(
        update={
            "last_failure": info,
            "attempts": current.attempt,
            "interruptions": interruptions or None,
            "workers": None,
        }
    )
    job = replace(situation.job, status=settled)
    return plan_launch(job, situation.observed, situation.config, draft, attempt=current.attempt)


def _fail(draft: Draft, reason: str, message: str, *, ended_at: datetime) -> Plan:
    draft.state(finished_at=ended_at.replace(microsecond=0))
    draft.conditions.set(ConditionType.FAILED, "True", reason, message)
    draft.conditions.set(ConditionType.LAUNCHED, "False", reason, message)
    draft.conditions.set(ConditionType.SUCCEEDED, "False", reason, message)
    return draft.finish("Failed", "fail", f"{reason}: {message}")


def _live(situation: Situation, draft: Draft, current: TrainingJobView) -> Plan:
    """The attempt is under way: it is stopped when that is wanted, else its state is reported."""
    spec = situation.job.spec
    assert spec is not None, "an unreadable spec does not get here"
    pods = situation.pods_of(current)
    _state_usage(situation, draft, current, pods)
    used = usage.active_seconds(current, now=situation.now)
    if spec.suspend:
        return _suspend(draft, current, used)
    limit = spec.active_deadline_seconds
    if limit is not None:
        if used >= limit:
            draft.deletions.append(_deletion(current))
            draft.state(active_seconds=used)
            message = (
                f"The job was active for {used:.0f} s; spec.activeDeadlineSeconds is {limit}. Raise it and apply anew."
            )
            return _fail(draft, Reason.DEADLINE_EXCEEDED, message, ended_at=draft.now)
        draft.look_again_in(limit - used)
    if not any(pod.started_at is not None for pod in pods):
        document = missing_document(situation.job, situation.observed, situation.config, attempt=current.attempt)
        draft.children += [document] if document is not None else []
    return _report(situation, draft, current, pods)


def _suspend(draft: Draft, current: TrainingJobView, used: float) -> Plan:
    draft.deletions.append(_deletion(current))
    draft.state(active_seconds=used, workers=None)
    state_suspension(draft, suspended=True)
    draft.conditions.set(ConditionType.LAUNCHED, "False", Reason.SUSPENDED_BY_USER, NOTHING_RUNS)
    return draft.finish("Suspended", "suspend", "spec.suspend is true")


def _report(situation: Situation, draft: Draft, current: TrainingJobView, pods: Sequence[PodView]) -> Plan:
    spec = situation.job.spec
    assert spec is not None, "an unreadable spec does not get here"
    if current.suspended:
        message = queued(draft, spec.compute, current.title, situation.observed.queue)
        _launched(draft, Reason.JOB_CREATED, current, "was created")
        return draft.finish("Queued", "wait", message)
    draft.conditions.set(ConditionType.SUSPENDED, "False", Reason.NOT_SUSPENDED, "The job is not suspended.")
    master = next((pod for pod in pods if pod.is_master), None)
    target = None
    if master is not None and master.ip is not None and master.ready_to_report:
        target = ProgressTarget(master.uid, master.ip)
        _state_progress(situation, draft)
    workers, waits = with_present_workers(spec, situation.job.status).compute.workers, ""
    fewer, patience_end = fewer_workers(spec, pods, workers=workers), patience_ends(spec, current)
    if fewer is not None and patience_end is not None:
        if situation.now >= patience_end:
            return _go_on_with(fewer, draft, current, workers)
        draft.look_again_in(seconds_until(patience_end, situation.now))
        waits = f" Without room by {time_told(patience_end)} {fewer} of {workers} workers go on (spec.elastic)."
    interruption = _interruption(situation, pods, workers)
    if interruption is not None:
        draft.conditions.set(ConditionType.LAUNCHED, "True", Reason.INTERRUPTED, interruption)
        return draft.finish("Running", "report", interruption, progress=target)
    # A PyTorchJob runs when its master does, whatever its workers wait for.
    stuck = [pod for pod in pods if pod.message and not pod.ended]
    trouble = _trouble(stuck[0], situation.craft.image_setting) if stuck else None
    if trouble is not None:
        _launched(draft, Reason.PODS_PENDING, current, f"has pods that cannot run. {trouble}{waits}")
        return draft.finish("Pending", "report", trouble, progress=target)
    if current.state == "running":
        share = f" with {workers} of {spec.compute.workers} workers (spec.elastic)"
        _launched(draft, Reason.RUNNING, current, f"is running{share if workers < spec.compute.workers else ''}")
        return draft.finish("Running", "report", f"{current.name} is running", progress=target)
    _launched(draft, Reason.JOB_CREATED, current, "was created")
    return draft.finish("Starting", "report", f"{current.name} was created", progress=target)


def _go_on_with(fewer: int, draft: Draft, current: TrainingJobView, workers: int) -> Plan:
    """The attempt makes room for one of fewer workers, which goes on from the newest checkpoint."""
    message = (
        f"{current.title} has no room for all of its {workers} workers and goes on with {fewer} (spec.elastic). The "
        "next attempt tries all again."
    )
    draft.deletions.append(_deletion(current))
    draft.state(workers=fewer)
    draft.conditions.set(ConditionType.LAUNCHED, "False", Reason.FEWER_WORKERS, message)
    return draft.finish("Waiting", "shrink", message)


def _interruption(situation: Situation, pods: Sequence[PodView], workers: int) -> str | None:
    """What takes a pod away, as long as the job is not whole again; None without that.

    It is said while the pod still is there: once it is gone, what its peers say of their end does not tell why.
    """
    taken = next((pod for pod in pods if pod.disruption), None)
    if taken is not None:
        return f"Pod {taken.name} is taken away ({taken.disruption})."
    launched = _launched_before(situation)
    if launched is None or launched.reason != Reason.INTERRUPTED:
        return None
    is_whole = sum(pod.ready_to_report for pod in pods) >= workers
    return None if is_whole else launched.message


def _trouble(pod: PodView, image_setting: str) -> str:
    """What keeps a pod from running, with what the user can do where that is known."""
    advice = ""
    if pod.image_missing:
        advice = f" Check spec.compute.image, or the operator's {image_setting} and imagePullSecrets."
    return f"Pod {pod.name}: {pod.message.rstrip('.')}.{advice}"


def _launched(draft: Draft, reason: Reason, current: TrainingJobView, what: str) -> None:
    message = f"{current.title} {what}".rstrip(".") + "."
    draft.conditions.set(ConditionType.LAUNCHED, "True", reason, message)


def _state_progress(situation: Situation, draft: Draft) -> None:
    document = situation.observed.progress
    if document is None:
        return
    reported = progress.of_document(document, draft.before.progress, draft.now)
    known = draft.before.progress
    if reported == known:
        return
    went_back = (reported.rewinds or 0) > ((known.rewinds if known is not None else None) or 0)
    if went_back and document.last_rewind is not None:
        draft.taken_notices.append(Notice("Warning", str(Reason.LOSS_SPIKE), document.last_rewind))
    untracked = reported.tracking_warning if known is None or known.tracking_warning is None else None
    if untracked is not None:
        draft.taken_notices.append(Notice("Warning", str(Reason.TRACKING_FAILED), untracked))
    is_news = went_back or untracked is not None
    since = (draft.now - known.updated_at).total_seconds() if known is not None and not is_news else None
    wait = situation.config.status_interval_s - since if since is not None else 0.0
    if wait > 0:
        draft.look_again_in(wait)
    else:
        draft.state(progress=reported, **situation.craft.shown(reported))
