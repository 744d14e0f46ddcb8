"""What to do about an AlignmentRun: stages first, then its training job, then evaluation, gate and serving."""

from dataclasses import replace
from datetime import datetime

from alidade_crds.alignmentrun import StageStatus
from alidade_crds.reasons import ConditionType, Reason
from alidade_crds.status import JobStatus, ModelInfo
from alidade_operator.api import ALIGNMENT_RUN, FINE_TUNE_JOB, REWARD_MODEL
from alidade_operator.config import OperatorConfig
from alidade_operator.reconcile import acceptance, alignmentjob, runacceptance, steps
from alidade_operator.reconcile.afteralignment import live_evaluations, plan_after_alignment
from alidade_operator.reconcile.draft import Phase
from alidade_operator.reconcile.launch import refuse, state_suspension
from alidade_operator.reconcile.plan import Delete, Plan, TrainingJob
from alidade_operator.reconcile.run import AlignmentRun, RunObserved
from alidade_operator.reconcile.rundraft import JOB_TOLD, RunDraft, end_failed
from alidade_operator.reconcile.stages import Stage, Stages, stages_of, superseded
from alidade_operator.reconcile.trainingjob import plan_training_job
from alidade_operator.resources.observation import SourceView

_AT_ONCE_S = 0.05
_LEAVING_S = 0.5


def plan_alignment_run(run: AlignmentRun, seen: RunObserved, config: OperatorConfig, now: datetime) -> Plan:
    """The plan for an AlignmentRun. It holds no memory: it can be made at any time, any number of times."""
    if run.terminating:
        return Plan()
    lifetime_s = run.spec.ttl_seconds_after_finished if run.spec is not None else None
    draft = RunDraft(run.status, generation=run.generation, now=now, lifetime_s=lifetime_s)
    if run.has_ended:
        return _after_the_end(run, seen, draft)
    _begin(run, draft)
    if run.spec is None:
        return _refuse(run, seen, draft, acceptance.Refusal(Reason.INVALID_SPEC, run.spec_error))
    state_suspension(draft, suspended=run.spec.suspend)
    draft.state(steps=",".join(alignmentjob.kind_of(step) for step in run.spec.align))
    if runacceptance.is_due(run):
        found = runacceptance.refusal(run, seen, config)
        if found is not None:
            return _refuse(run, seen, draft, found)
        draft.conditions.set(ConditionType.ACCEPTED, "True", Reason.VALID, "Nothing in the spec stands against it.")
        draft.state(data=runacceptance.data_digests(seen))
        verdict = runacceptance.fit(run, seen, config)
        draft.conditions.set(ConditionType.FITS, verdict.status, verdict.reason, verdict.message)
        if verdict.status == "False":
            return draft.finish("Waiting", "refuse", verdict.message)
    return _stages(run, seen, config, draft)


def _after_the_end(run: AlignmentRun, seen: RunObserved, draft: RunDraft) -> Plan:
    """Nothing is launched any more; what still runs goes, and the resource too when its time has come."""
    succeeded = draft.conditions.is_true(ConditionType.SUCCEEDED)
    draft.deletions += _live_jobs(seen) + _live_resources(seen)
    why = "it has finished, and nothing of it may run any more"
    if draft.expires_at is not None and draft.clock >= draft.expires_at:
        draft.deletions.append(Delete(ALIGNMENT_RUN, run.name, run.uid))
        why = "spec.ttlSecondsAfterFinished has passed"
    return draft.finish("Succeeded" if succeeded else "Failed", "clean up", why)


def _refuse(run: AlignmentRun, seen: RunObserved, draft: RunDraft, found: acceptance.Refusal) -> Plan:
    """What an older spec has begun goes on, since the new one may only want a correction, unless it is to stop."""
    suspended = run.spec is not None and run.spec.suspend
    if suspended:
        draft.deletions += [*_live_jobs(seen), *_live_resources(seen)]
    return refuse(draft, found, suspended=suspended)


def _live_jobs(seen: RunObserved) -> list[Delete]:
    jobs = [*seen.other_jobs, *(seen.job.jobs if seen.job is not None else ())]
    return [
        Delete(item.kind, item.name, item.uid)
        for item in jobs
        if item.owned and not item.terminating and item.state not in ("succeeded", "failed")
    ]


def _failed_before(run: AlignmentRun, seen: RunObserved) -> list[Delete]:
    """Alignments that failed under an older spec: a run that comes back to it is to try again, not to fail by them."""
    if run.is_begun and seen.job is None:
        return []
    failed = [item for item in seen.other_jobs if item.owned and not item.terminating and item.state == "failed"]
    return [Delete(item.kind, item.name, item.uid) for item in failed]


def _live_resources(seen: RunObserved) -> list[Delete]:
    kinds = {kind.kind: kind for kind in (FINE_TUNE_JOB, REWARD_MODEL)}
    resources = [
        Delete(kinds[view.kind], view.name, view.uid)
        for view in seen.made
        if view.owned and not view.has_ended and not view.terminating
    ]
    return [*resources, *live_evaluations(seen)]


def _begin(run: AlignmentRun, draft: RunDraft) -> None:
    """Takes back what was said of an older spec's end."""
    if not run.is_changed:
        return
    draft.state(finished_at=None)
    draft.take_back_stages()
    draft.conditions.set(ConditionType.SUCCEEDED, "False", Reason.NOT_FINISHED, "The run has not finished.")
    draft.conditions.set(ConditionType.FAILED, "False", Reason.NOT_FAILED, "The run has not failed.")


def _stages(run: AlignmentRun, seen: RunObserved, config: OperatorConfig, draft: RunDraft) -> Plan:
    stages = stages_of(run, seen, config)
    _state_stages(draft, stages)
    failed = next((stage for stage in stages.all if stage.state == "failed"), None)
    if failed is not None:
        return _fail_stage(seen, draft, stages, failed)
    for stage in stages.all:
        draft.children += stage.children
        draft.deletions += stage.deletions
        if stage.deletions:
            # Our own deletions come back as no event.
            draft.look_again_in(_AT_ONCE_S)
    draft.deletions += [*superseded(run, seen, stages.all), *_failed_before(run, seen)]
    if not stages.are_ready:
        draft.deletions += [*_live_jobs(seen), *live_evaluations(seen)]
        draft.show(stages, steps.pending(run))
        return _wait(run, draft, stages)
    return _align(run, seen, config, draft, stages)


def _state_stages(draft: RunDraft, stages: Stages) -> None:
    _state_ready(draft, ConditionType.SFT_READY, [stages.sft], nothing="")
    rewards = list(stages.rewards.values())
    programs = "No reward of the run is a model."
    _state_ready(draft, ConditionType.REWARD_MODEL_READY, rewards, nothing=programs)


def _state_ready(draft: RunDraft, kind: ConditionType, stages: list[Stage], *, nothing: str) -> None:
    """The condition says what the first stage says that is not ready, else what all say."""
    if not stages:
        draft.conditions.set(kind, "True", Reason.NOT_ASKED_FOR, nothing)
        return
    waiting = [stage for stage in stages if stage.state != "ready"]
    reason = (
        waiting[0].reason
        if waiting
        else next((s.reason for s in stages if s.reason == Reason.REUSED), stages[0].reason)
    )
    message = " ".join(stage.message for stage in waiting or stages)
    draft.conditions.set(kind, "False" if waiting else "True", reason, message)


def _fail_stage(seen: RunObserved, draft: RunDraft, stages: Stages, failed: Stage) -> Plan:
    draft.show(stages, [])
    draft.deletions += [*_live_jobs(seen), *_live_resources(seen)]
    return end_failed(draft, failed.reason, failed.message)


def _wait(run: AlignmentRun, draft: RunDraft, stages: Stages) -> Plan:
    assert run.spec is not None, "an unreadable spec does not get here"
    waiting = [stage for stage in stages.all if stage.state == "pending"]
    draft.state(**{name: getattr(JobStatus(), name) for name in _FIELDS_OF_JOB})
    draft.conditions.set(
        ConditionType.LAUNCHED, "False", Reason.WAITING, "The alignment job waits for SFTReady and RewardModelReady."
    )
    draft.conditions.set(ConditionType.ALIGNED, "False", Reason.WAITING, "The alignment job has not been launched yet.")
    draft.await_model()
    if run.spec.suspend:
        return draft.finish("Suspended", "wait", "spec.suspend is true")
    running = any(stage.reason == Reason.STAGE_RUNNING for stage in waiting)
    starting = any(stage.children for stage in waiting)
    phase: Phase = "Running" if running else "Waiting"
    return draft.finish(phase, "launch" if starting else "wait", " ".join(stage.message for stage in waiting))


def _align(run: AlignmentRun, seen: RunObserved, config: OperatorConfig, draft: RunDraft, stages: Stages) -> Plan:
    """The stages are ready: the job is launched and followed, unless its model is there already."""
    job = alignmentjob.with_acceptance(alignmentjob.alignment_job(run, stages, seen, config), draft.conditions.list())
    inputs = alignmentjob.inputs_of(job)
    draft.deletions += _live_jobs(replace(seen, job=None))
    known = alignmentjob.aligned_stage(run.status, inputs)
    if known is not None and known.model is not None:
        draft.show(stages, [stage for stage in run.status.stages if stage.kind == alignmentjob.KIND])
        _state_known(run, draft, known, known.model)
        return plan_after_alignment(run, seen, config, draft, stages, known.model)
    assert seen.job is not None, "the job was looked for, since the stages are ready"
    is_under_way = any(item.owned and item.state != "failed" for item in seen.job.jobs)
    other = seen.aligned(inputs)
    if other is not None and not is_under_way:
        return _reuse(run, seen, config, draft, stages, inputs, other)
    draft.deletions += live_evaluations(seen)
    leaving = next((item for item in seen.other_jobs if item.owned and item.state not in ("succeeded", "failed")), None)
    if leaving is not None:
        return _await_leave(run, draft, stages, leaving.title)
    source = SourceView(exists=True, succeeded=True, model=stages.sft.model) if stages.sft.source is not None else None
    inner = plan_training_job(job, replace(seen.job, source=source), config, draft.clock)
    return _merged(run, seen, draft, stages, job, inner)


def _await_leave(run: AlignmentRun, draft: RunDraft, stages: Stages, job: str) -> Plan:
    """An alignment of an older spec holds the GPUs until it is gone."""
    draft.show(stages, steps.pending(run))
    draft.state(**{field: getattr(JobStatus(), field) for field in _FIELDS_OF_JOB})
    draft.await_model()
    message = f"{job} of an older spec is still there; waiting for it to go."
    draft.conditions.set(ConditionType.LAUNCHED, "False", Reason.WAITING, message)
    draft.conditions.set(ConditionType.ALIGNED, "False", Reason.WAITING, message)
    # Our own deletions come back as no event.
    draft.look_again_in(_LEAVING_S)
    return draft.finish("Suspended" if run.spec is not None and run.spec.suspend else "Waiting", "wait", message)


def _state_known(run: AlignmentRun, draft: RunDraft, stage: StageStatus, model: ModelInfo) -> None:
    """Aligned is what it was; where it was taken back in between, it is stated again."""
    before = next((item for item in run.status.conditions if item.type == ConditionType.ALIGNED), None)
    if before is not None and before.status == "True":
        draft.conditions.set(ConditionType.ALIGNED, "True", before.reason, before.message)
    else:
        reason = Reason.REUSED if stage.reused else Reason.COMPLETED
        draft.conditions.set(ConditionType.ALIGNED, "True", reason, f"The model is at {model.uri} ({model.digest}).")


def _reuse(
    run: AlignmentRun,
    seen: RunObserved,
    config: OperatorConfig,
    draft: RunDraft,
    stages: Stages,
    inputs: str,
    other: tuple[str, StageStatus],
) -> Plan:
    name, stage = other
    model = stage.model
    assert model is not None, "an aligned stage has a model"
    draft.show(stages, steps.reused(run, inputs, name, stage))
    draft.state(metrics=stage.metrics, job_ref=None, attempts=0, progress=None)
    message = f"AlignmentRun {name} has aligned the same model from the same inputs: {model.uri}."
    draft.conditions.set(ConditionType.ALIGNED, "True", Reason.REUSED, message)
    draft.conditions.set(ConditionType.LAUNCHED, "True", Reason.REUSED, "An earlier alignment is taken.")
    return plan_after_alignment(run, seen, config, draft, stages, model)


_FIELDS_OF_JOB = (
    "progress",
    "model",
    "metrics",
    "attempts",
    "last_failure",
    "active_seconds",
    "job_ref",
    "report_uri",
    "published",
)


def _merged(
    run: AlignmentRun, seen: RunObserved, draft: RunDraft, stages: Stages, job: TrainingJob, inner: Plan
) -> Plan:
    """The job's plan as the run's: its children, its deletions, and its status in its place."""
    status = inner.status or job.status
    assert isinstance(status, JobStatus), "the plan of a job"
    draft.take(inner, alignmentjob.conditions_of_run(status))
    draft.told -= JOB_TOLD
    draft.state(**{name: getattr(status, name) for name in _FIELDS_OF_JOB})
    document = seen.job.progress if seen.job is not None else None
    draft.show(stages, steps.followed(run, alignmentjob.inputs_of(job), status, document))
    draft.await_model()
    draft.conditions.set_default(
        ConditionType.ALIGNED, "False", Reason.NOT_FINISHED, "The alignment job has not finished."
    )
    if draft.conditions.is_true(ConditionType.FAILED):
        failed = draft.conditions.get(ConditionType.FAILED)
        assert failed is not None, "it is true"
        return end_failed(draft, failed.reason, failed.message)
    if draft.conditions.is_true(ConditionType.ALIGNED):
        draft.look_again_in(_AT_ONCE_S)
        return draft.finish("Running", "align", _words(inner, "the model is aligned"), progress=inner.progress)
    phase: Phase = status.phase if status.phase is not None else "Waiting"  # type: ignore[assignment]
    decision = inner.decisions[0].action if inner.decisions else "report"
    return draft.finish(phase, decision, _words(inner, "the alignment job goes on"), progress=inner.progress)


def _words(inner: Plan, otherwise: str) -> str:
    return inner.decisions[0].why if inner.decisions else otherwise
