"""The way to a launch: accepted, within memory, not suspended, its delay over, no older attempt in the way."""

from datetime import datetime, timedelta

from alidade_crds.blocks import Compute
from alidade_crds.reasons import ConditionType, Reason
from alidade_crds.status import ChildRef, FailureInfo
from alidade_operator.api import CONFIG_MAP, TRAINING_RUNTIME, JsonObject
from alidade_operator.config import OperatorConfig
from alidade_operator.reconcile import acceptance
from alidade_operator.reconcile.craft import craft_of
from alidade_operator.reconcile.draft import Draft, Phase
from alidade_operator.reconcile.elastic import with_present_workers
from alidade_operator.reconcile.launching import Launch
from alidade_operator.reconcile.plan import Apply, Create, Delete, Plan, TrainingJob, seconds_until
from alidade_operator.reconcile.queueing import queued
from alidade_operator.resources.attempt import Attempt
from alidade_operator.resources.jobdocument import Document, document_config_map, document_name
from alidade_operator.resources.observation import Observed
from alidade_operator.resources.trainjob import digest_of

# A pod that outlives its deletion deadline by this much is on a node that is gone; no process of it can be waited for.
_LOST_POD = timedelta(seconds=60)
_FIRST_LOOK_S, _LAST_LOOK_S = 1.0, 60.0
# Leftovers send an event when they go; this look is for the event that gets lost.
_LEFTOVER_S = 10.0


NOTHING_RUNS = "Nothing runs while spec.suspend is true."


def plan_launch(job: TrainingJob, observed: Observed, config: OperatorConfig, draft: Draft, *, attempt: int) -> Plan:
    """The plan for a job of which nothing runs; `attempt` is the newest there has been, 0 for none."""
    if job.spec is None:
        return refuse(draft, acceptance.Refusal(Reason.INVALID_SPEC, job.spec_error), suspended=False)
    spec = with_present_workers(job.spec, job.status)
    state_suspension(draft, suspended=spec.suspend)
    craft = craft_of(job)
    found = craft.refusal(job, spec, observed, config)
    if found is not None:
        return refuse(draft, found, suspended=spec.suspend)
    draft.conditions.set(ConditionType.ACCEPTED, "True", Reason.VALID, "Nothing in the spec stands against launching.")
    pool = config.pool(spec.compute.node_pool)
    assert pool is not None, "checked by acceptance"
    verdict = craft.verdict(spec, observed, pool)
    draft.conditions.set(ConditionType.FITS, verdict.status, verdict.reason, verdict.message)
    if verdict.status == "False":
        _not_launched(draft, verdict.reason, "The job does not fit; see the condition Fits.")
        return draft.finish("Waiting", "refuse", verdict.message)
    if spec.suspend:
        _not_launched(draft, Reason.SUSPENDED_BY_USER, NOTHING_RUNS)
        return draft.finish("Suspended", "wait", "spec.suspend is true")
    return _when_due(Launch(job, spec, observed, config, pool, attempt, verdict.micro_batch_size), draft)


def missing_document(job: TrainingJob, observed: Observed, config: OperatorConfig, *, attempt: int) -> Apply | None:
    """What gives the pods of an attempt, of which none has started, the document that somebody took from them."""
    pool = config.pool(job.spec.compute.node_pool) if job.spec is not None else None
    if job.spec is None or pool is None or observed.document_exists or observed.document_foreign:
        return None
    spec, craft = with_present_workers(job.spec, job.status), craft_of(job)
    if craft.refusal(job, spec, observed, config) is not None:
        return None
    verdict = craft.verdict(spec, observed, pool)
    launch = Launch(job, spec, observed, config, pool, attempt, verdict.micro_batch_size)
    return _told(launch, craft.document(launch))


def _told(launch: Launch, document: Document) -> Apply:
    """The ConfigMap that tells the attempt's pods the document."""
    name = document_name(launch.job.base)
    return Apply(CONFIG_MAP, document_config_map(document, name, craft_of(launch.job).component))


def state_suspension(draft: Draft, *, suspended: bool) -> None:
    """States whether the user has suspended the job."""
    if suspended:
        message = "spec.suspend is true. Set it to false, and the job goes on where it was."
        draft.conditions.set(ConditionType.SUSPENDED, "True", Reason.SUSPENDED_BY_USER, message)
    else:
        draft.conditions.set(ConditionType.SUSPENDED, "False", Reason.NOT_SUSPENDED, "The job is not suspended.")


def refuse(draft: Draft, found: acceptance.Refusal, *, suspended: bool) -> Plan:
    """The plan for a spec that cannot be launched, or not yet."""
    draft.conditions.set(ConditionType.ACCEPTED, found.status, found.reason, found.message)
    if not draft.conditions.is_true(ConditionType.FITS):
        draft.conditions.set(ConditionType.FITS, "Unknown", Reason.WAITING, "Estimated once the spec is accepted.")
    _not_launched(draft, found.reason, "The spec is not accepted; see the condition Accepted.")
    if found.reason == Reason.CONFIG_MAP_MISSING:
        draft.look_again_in(_look_again_s(draft))
    phase: Phase = "Suspended" if suspended else "Waiting"
    return draft.finish(phase, "wait" if found.status == "Unknown" else "refuse", f"{found.reason}: {found.message}")


def _look_again_s(draft: Draft) -> float:
    """Seconds to the next look for a user's ConfigMap: soon at first, then a quarter of the time it has been missing.

    Users' ConfigMaps are not watched; that would take the right to read all of them.
    """
    accepted = draft.conditions.get(ConditionType.ACCEPTED)
    missing_s = (draft.now - accepted.last_transition_time).total_seconds() if accepted is not None else 0.0
    return min(_LAST_LOOK_S, max(_FIRST_LOOK_S, missing_s / 4))


def _not_launched(draft: Draft, reason: Reason, message: str) -> None:
    draft.conditions.set(ConditionType.LAUNCHED, "False", reason, message)


def _when_due(launch: Launch, draft: Draft) -> Plan:
    status, spec = launch.job.status, launch.spec
    limit = spec.active_deadline_seconds
    used = status.active_seconds or 0.0
    failure = status.last_failure
    retried = failure is not None and failure.attempt == launch.attempt
    if limit is not None and used >= limit:
        message = (
            f"The job was active for {used:.0f} s; spec.activeDeadlineSeconds is {limit}. Raise it and apply anew."
        )
        draft.state(finished_at=draft.now)
        draft.conditions.set(ConditionType.FAILED, "True", Reason.DEADLINE_EXCEEDED, message)
        _not_launched(draft, Reason.DEADLINE_EXCEEDED, message)
        return draft.finish("Failed", "fail", message)
    number = launch.attempt + 1 if retried or launch.attempt == 0 else launch.attempt
    if retried and failure is not None:
        # What took the node away is not over sooner for having happened often.
        failures = 1 if failure.interrupted else launch.attempt - (status.interruptions or 0)
        due = failure.at + timedelta(seconds=retry_delay_s(failures, launch.config))
        # A failure is written down before anything follows from it, however long it has been over.
        recorded = draft.before.last_failure == failure
        if draft.clock < due or not recorded:
            message = f"{_ending(launch, failure)}: {failure.message} Attempt {number} starts at {time_told(due)}."
            draft.conditions.set(ConditionType.LAUNCHED, "False", Reason.RETRYING, message)
            draft.look_again_in(seconds_until(due, draft.clock))
            return draft.finish("Retrying", "retry", message)
    return _unless_in_the_way(launch, draft, number, why=_why(launch, number, retried=retried))


def _ending(launch: Launch, failure: FailureInfo) -> str:
    interruptions = launch.job.status.interruptions or 0
    if failure.interrupted:
        return f"Attempt {launch.attempt} was interrupted"
    return f"Attempt {launch.attempt} of {launch.spec.backoff_limit + 1 + interruptions} failed ({failure.reason})"


def retry_delay_s(attempt: int, config: OperatorConfig) -> float:
    """Seconds between the failure of an attempt and the next: the first delay, doubling, up to the longest."""
    return min(config.retry_delay_max_s, config.retry_delay_s * 2.0 ** min(attempt - 1, 30))


def time_told(time: datetime) -> str:
    """A time as messages write it."""
    return time.isoformat().replace("+00:00", "Z")


def _why(launch: Launch, number: int, *, retried: bool) -> str:
    failure = launch.job.status.last_failure
    if retried and failure is not None:
        return f"attempt {failure.attempt} failed with {failure.reason}"
    if launch.job.status.attempts < number:
        return "the spec is accepted"
    known = launch.job.status.job_ref
    workload = known.kind if known is not None else craft_of(launch.job).workload(launch).kind
    return f"attempt {number} has not ended, and its {workload} is gone"


def _unless_in_the_way(launch: Launch, draft: Draft, number: int, *, why: str) -> Plan:
    attempt = Attempt(
        kind=launch.job.kind.kind,
        namespace=launch.job.namespace,
        name=launch.job.name,
        uid=launch.job.uid,
        base=launch.job.base,
        number=number,
        gpu_hours_before=_gpu_hours(draft),
        active_seconds_before=_active_seconds(draft),
    )
    obstacle = _obstacle(launch, draft.now, attempt.job_name)
    if obstacle is not None:
        _not_launched(draft, Reason.WAITING, obstacle)
        draft.look_again_in(_LEFTOVER_S)
        return draft.finish("Waiting", "wait", obstacle)
    craft = craft_of(launch.job)
    document, workload = craft.document(launch), craft.workload(launch)
    runtime = craft.runtime(launch, attempt, document)
    if runtime is not None and digest_of(runtime) != launch.observed.runtime_digest:
        return _prepared(draft, runtime, f"{workload.kind} {attempt.job_name}")
    if launch.attempt == 0 or not launch.observed.document_exists:
        # Every attempt is told the same; a document that exists is only written over before anything has run.
        draft.children.append(_told(launch, document))
    draft.children.append(Create(workload, craft.body(launch, attempt, document)))
    # The newest failed one stays for its logs.
    draft.deletions += [
        Delete(item.kind, item.name, item.uid)
        for item in launch.observed.jobs
        if item.owned and not item.terminating and item.attempt < number - 1
    ]
    return _launched(launch.spec.compute, draft, attempt, workload.kind, why)


def _prepared(draft: Draft, runtime: JsonObject, workload: str) -> Plan:
    """The runtime comes first: Trainer's webhook refuses a TrainJob whose runtime it has not seen yet."""
    draft.children.append(Apply(TRAINING_RUNTIME, runtime))
    message = f"TrainingRuntime {runtime['metadata']['name']} was made for {workload}, which follows."
    _not_launched(draft, Reason.WAITING, message)
    draft.look_again_in(_FIRST_LOOK_S)
    return draft.finish("Waiting", "prepare", message)


def _launched(compute: Compute, draft: Draft, attempt: Attempt, workload: str, why: str) -> Plan:
    draft.state(attempts=attempt.number, job_ref=ChildRef(kind=workload, name=attempt.job_name))
    message = f"{workload} {attempt.job_name} was created."
    draft.conditions.set(ConditionType.LAUNCHED, "True", Reason.JOB_CREATED, message)
    if compute.queue:
        queued(draft, compute, f"{workload} {attempt.job_name}", None)
    return draft.finish("Queued" if compute.queue else "Starting", "launch", f"{attempt.job_name}: {why}")


def _gpu_hours(draft: Draft) -> float:
    return float(draft.stated("gpu_hours") or 0.0)


def _active_seconds(draft: Draft) -> float:
    return float(draft.stated("active_seconds") or 0.0)


def _obstacle(launch: Launch, now: datetime, job_name: str) -> str | None:
    """What has to go before a launch: two processes must never write the same output."""
    if launch.observed.document_foreign:
        name = document_name(launch.job.base)
        return f"ConfigMap {name} belongs to an older resource, or to something else; waiting for it to go."
    for item in launch.observed.jobs:
        if item.name == job_name and not item.owned:
            return f"{item.title} belongs to an older resource, or to something else; waiting for it to go."
        under_way = item.owned and item.state not in ("succeeded", "failed")
        if under_way or (item.name == job_name and item.terminating):
            return f"{item.title} of an earlier launch is still there; waiting for it to go."
    for pod in launch.observed.pods:
        lost = pod.deletion_deadline is not None and now > pod.deletion_deadline + _LOST_POD
        if not pod.ended and not lost:
            return f"Pod {pod.name} of an earlier launch is still running; waiting for it to end."
        if pod.job_name == job_name and not lost:
            return f"Pod {pod.name} of an earlier launch is still there; waiting for it to go."
    return None
