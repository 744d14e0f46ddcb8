"""The training job of an AlignmentRun: what it is told, and which part of the run's status is its own."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from alidade_crds.alignmentrun import AlignmentRunSpec, AlignmentRunStatus, AlignStep, StageStatus
from alidade_crds.blocks import Model, Output
from alidade_crds.contract import JobAlignment, JobReward
from alidade_crds.reasons import ConditionType
from alidade_crds.status import Condition, JobStatus, ModelInfo
from alidade_crds.text_dataset import TextDataset
from alidade_operator.api import ALIGNMENT_RUN
from alidade_operator.config import OperatorConfig
from alidade_operator.jobspecs import AlignmentJobSpec
from alidade_operator.reconcile.plan import TrainingJob
from alidade_operator.reconcile.run import AlignmentRun, RunObserved, child_name, inputs_hash, model_identity
from alidade_operator.reconcile.runchildren import stage_output
from alidade_operator.reconcile.stages import Stages

ALIGN = "align"
KIND = "Alignment"

# Conditions of the job among the run's; what is Succeeded for the job is Aligned for the run.
_SHARED = (
    ConditionType.ACCEPTED,
    ConditionType.FITS,
    ConditionType.LAUNCHED,
    ConditionType.FAILED,
    ConditionType.SUSPENDED,
)
_OF_JOB = {str(kind): str(kind) for kind in _SHARED} | {str(ConditionType.ALIGNED): str(ConditionType.SUCCEEDED)}
_ACCEPTANCE = frozenset({str(ConditionType.ACCEPTED), str(ConditionType.FITS)})
_ENDS = frozenset({str(ConditionType.SUCCEEDED), str(ConditionType.FAILED)})
_OF_RUN = {job: run for run, job in _OF_JOB.items()}


def step_names(spec: AlignmentRunSpec) -> list[str]:
    """Names of the steps, as the trainer reports them: `1-raft`, `2-ppo`."""
    return [f"{number}-{kind_of(step)}" for number, step in enumerate(spec.align, 1)]


def kind_of(step: AlignStep) -> str:
    """raft, ppo or dpo."""
    return "raft" if step.raft is not None else "ppo" if step.ppo is not None else "dpo"


def alignment_spec(
    spec: AlignmentRunSpec, *, model: Model, rewards: Mapping[str, ModelInfo | str | None], output: str | None
) -> AlignmentJobSpec:
    """The spec of the job.

    rewards: for each reward that is a model, the model, its address, or None while that is not known.
    """
    first_dpo = next((step.dpo for step in spec.align if step.dpo is not None), None)
    dataset = spec.prompts
    if dataset is None and first_dpo is not None:
        # Its prompts are only measured; what filters say of preferences is not meant for them.
        dataset = first_dpo.dataset.model_copy(update={"filters": None})
    assert dataset is not None, "a rule of the schema: without dpo there are prompts"
    return AlignmentJobSpec(
        model=model,
        dataset=TextDataset.of(dataset),
        adapter=spec.adapter,
        training=spec.training,
        deepspeed=spec.deepspeed,
        compute=spec.compute,
        checkpoint=spec.checkpoint,
        tracking=spec.tracking,
        publish=spec.publish,
        output=Output(uri=output) if output is not None else spec.output,
        suspend=spec.suspend,
        backoff_limit=spec.backoff_limit,
        active_deadline_seconds=spec.active_deadline_seconds,
        alignment=JobAlignment(
            steps=spec.align,
            rewards=[
                JobReward(
                    name=reward.name,
                    uri=_address(rewards.get(reward.name)),
                    digest=_digest(rewards.get(reward.name)),
                    function=reward.function,
                    entry_point=reward.entry_point,
                    pattern=reward.pattern,
                    weight=reward.weight,
                )
                for reward in spec.reward_models
            ],
            combine=spec.combine,
            generation=spec.generation,
            guardrails=spec.guardrails,
        ),
        judges=[model.parameters for model in rewards.values() if isinstance(model, ModelInfo)],
    )


def _address(model: ModelInfo | str | None) -> str | None:
    return model.uri if isinstance(model, ModelInfo) else model


def _digest(model: ModelInfo | str | None) -> str | None:
    return model.digest if isinstance(model, ModelInfo) else None


def alignment_job(run: AlignmentRun, stages: Stages, seen: RunObserved, config: OperatorConfig) -> TrainingJob:
    """The job of a run whose stages are ready."""
    spec = run.spec
    assert spec is not None, "an unreadable spec does not get here"
    start = Model(from_=stages.sft.source) if stages.sft.source is not None else spec.sft.model
    assert start is not None, "a model without a resource is one by address"
    rewards = {name: stage.model or _uri_of(spec, name) for name, stage in stages.rewards.items()}
    inputs = _pinned_inputs(run) or _inputs(run, stages, seen)
    place = _place(run, inputs, stages, seen)
    output = f"{spec.output.uri.rstrip('/')}/{place}" if spec.output is not None else None
    return TrainingJob(
        kind=ALIGNMENT_RUN,
        namespace=run.namespace,
        name=run.name,
        uid=run.uid,
        generation=run.generation,
        terminating=run.terminating,
        spec=alignment_spec(
            spec, model=start, rewards=rewards, output=output or stage_output(run, config, f"{ALIGN}-{place}")
        ),
        spec_error="",
        status=status_of_job(run.status, inputs, seconds_before=stages.active_seconds, is_changed=run.is_changed),
        base=child_name(run.name, ALIGN, inputs),
        is_begun=run.is_begun,
    )


def with_acceptance(job: TrainingJob, conditions: Iterable[Condition]) -> TrainingJob:
    """The job with what has just been said of its run's spec; the run's status may still speak of an older one."""
    said = [item for item in conditions if item.type in _ACCEPTANCE]
    others = [item for item in job.status.conditions if item.type not in {item.type for item in said}]
    return replace(job, status=job.status.model_copy(update={"conditions": [*said, *others]}))


def _uri_of(spec: AlignmentRunSpec, reward: str) -> str | None:
    return next((one.model.address for one in spec.reward_models if one.name == reward and one.model is not None), None)


def inputs_of(job: TrainingJob) -> str:
    """The hash of what decides the job's result."""
    return job.base.rpartition("-")[2]


def aligned_stage(status: AlignmentRunStatus, inputs: str | None = None) -> StageStatus | None:
    """The step that the aligned model has come from, of these inputs where they are given; None without a model."""
    return next(
        (
            stage
            for stage in reversed(status.stages)
            if stage.kind == KIND and stage.model is not None and inputs in (None, stage.inputs)
        ),
        None,
    )


def _pinned_inputs(run: AlignmentRun) -> str | None:
    if not run.is_begun:
        return None
    return next((stage.inputs for stage in run.status.stages if stage.kind == KIND and stage.inputs), None)


def _place(run: AlignmentRun, inputs: str, stages: Stages, seen: RunObserved) -> str:
    """What the output's folder is named after: the inputs without `publish`, so that a job that is to publish elsewhere
    finds the model and does not train again."""
    assert run.spec is not None, "an unreadable spec does not get here"
    if run.spec.publish is None:
        return inputs
    return _inputs(replace(run, spec=run.spec.model_copy(update={"publish": None})), stages, seen)


def _inputs(run: AlignmentRun, stages: Stages, seen: RunObserved) -> str:
    spec = run.spec
    assert spec is not None, "an unreadable spec does not get here"
    told = alignment_spec(spec, model=Model(), rewards={}, output=None).chosen()
    models = {
        name: model_identity(stage.model) if stage.model is not None else _uri_of(spec, name)
        for name, stage in stages.rewards.items()
    }
    start = model_identity(stages.sft.model) if stages.sft.model is not None else spec.sft.chosen()
    return inputs_hash(told, start, models, dict(sorted(seen.data.items())))


def status_of_job(
    status: AlignmentRunStatus, inputs: str, *, seconds_before: float, is_changed: bool = False
) -> JobStatus:
    """What the run's status says of its job: nothing yet when it speaks of a job with other inputs.

    A failure is no longer final once the spec has changed: the next attempt follows.
    """
    stage = next((stage for stage in status.stages if stage.kind == KIND and stage.inputs == inputs), None)
    if stage is None:
        kept = [item for item in status.conditions if item.type in _ACCEPTANCE]
        return JobStatus(conditions=kept, active_seconds=seconds_before or None)
    fields = status.model_copy(
        update={
            "conditions": [
                item for item in renamed(status.conditions, _OF_JOB) if not (is_changed and item.type in _ENDS)
            ],
            "finished_at": None if is_changed else status.finished_at,
            "started_at": stage.started_at,
            "gpu_hours": stage.gpu_hours,
            "cost": stage.cost,
        }
    )
    return JobStatus(**{name: getattr(fields, name) for name in JobStatus.model_fields})


def conditions_of_run(status: JobStatus) -> list[Condition]:
    """The job's conditions as the run's."""
    return renamed(status.conditions, _OF_RUN)


def renamed(conditions: list[Condition], names: Mapping[str, str]) -> list[Condition]:
    """Those of the conditions that have a new name, under it."""
    return [item.model_copy(update={"type": names[item.type]}) for item in conditions if item.type in names]
