"""The stages that an alignment waits for: SFT and reward models, each made by the run, reused, or referred to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from alidade_crds.alignmentrun import RewardSource, StageStatus
from alidade_crds.blocks import Model, ResourceRef
from alidade_crds.reasons import Reason
from alidade_crds.status import JobStatus, ModelInfo
from alidade_operator.api import FINE_TUNE_JOB, REWARD_MODEL, Kind
from alidade_operator.config import OperatorConfig
from alidade_operator.reconcile import progress
from alidade_operator.reconcile.plan import Adjust, Alone, Child, Create, Delete
from alidade_operator.reconcile.run import (
    AlignmentRun,
    MadeStage,
    ResourceView,
    RunObserved,
    child_name,
    inputs_hash,
    model_identity,
)
from alidade_operator.reconcile.runchildren import stage_changes, stage_resource

SFT = "sft"
State = Literal["ready", "pending", "failed"]


@dataclass(frozen=True)
class Stage:
    """What has come of a stage, and what is to be done about it.

    status: None for a model that needs no stage. source: what a later stage names in model.from; None where the model
    is known by its address alone.
    """

    state: State
    reason: str
    message: str
    status: StageStatus | None = None
    model: ModelInfo | None = None
    source: ResourceRef | None = None
    made: MadeStage | None = None
    children: tuple[Child, ...] = ()
    deletions: tuple[Delete, ...] = ()


@dataclass(frozen=True)
class Stages:
    """Those before the alignment; rewards: by the name of the reward, without the programs."""

    sft: Stage
    rewards: dict[str, Stage]

    @property
    def all(self) -> list[Stage]:
        """In order."""
        return [self.sft, *self.rewards.values()]

    @property
    def are_ready(self) -> bool:
        """Whether the alignment has all that it waits for."""
        return all(stage.state == "ready" for stage in self.all)

    @property
    def active_seconds(self) -> float:
        """Seconds that this run's own stages took one after the other; reward models are trained side by side."""
        rewards = [_own_seconds(stage) for stage in self.rewards.values()]
        return _own_seconds(self.sft) + max(rewards, default=0.0)


def _own_seconds(stage: Stage) -> float:
    return (stage.status.active_seconds or 0.0) if stage.status is not None else 0.0


def stages_of(run: AlignmentRun, seen: RunObserved, config: OperatorConfig) -> Stages:
    """The stages before the alignment, as far as they can be told."""
    sft = _sft(run, seen, config)
    rewards = {}
    assert run.spec is not None, "an unreadable spec does not get here"
    for index, reward in enumerate(run.spec.reward_models):
        if reward.function is None and reward.entry_point is None:
            rewards[reward.name] = _reward(run, seen, config, sft, reward, f"spec.rewardModels[{index}]")
    return Stages(sft, rewards)


def _sft(run: AlignmentRun, seen: RunObserved, config: OperatorConfig) -> Stage:
    assert run.spec is not None, "an unreadable spec does not get here"
    sft = run.spec.sft
    if sft.template is None:
        ref = ResourceRef(kind=FINE_TUNE_JOB.kind, name=sft.ref.name) if sft.ref is not None else None
        return _taken(run, seen, SFT, "spec.sft", ref, sft.model)
    spec, inputs = sft.template.to_dict(), _pinned(run, SFT)
    if inputs is None:
        base = _base_of(run, seen, "spec.sft.template", sft.template.model)
        if base.state != "ready":
            return replace(base, status=_waiting(SFT, FINE_TUNE_JOB))
        inputs = inputs_hash(sft.template.chosen(), _identity(base), _data(seen, spec))
    return _made(run, seen, config, MadeStage(SFT, FINE_TUNE_JOB, child_name(run.name, SFT, inputs), inputs, spec), 0.0)


def _reward(
    run: AlignmentRun, seen: RunObserved, config: OperatorConfig, sft: Stage, reward: RewardSource, field: str
) -> Stage:
    if reward.template is None:
        ref = ResourceRef(kind=REWARD_MODEL.kind, name=reward.ref.name) if reward.ref is not None else None
        return _taken(run, seen, reward.name, field, ref, reward.model)
    model, inputs = reward.template.model, _pinned(run, reward.name)
    base = sft
    if model is None:
        if sft.state != "ready":
            message = f"Reward {reward.name} starts from the model of stage sft."
            return Stage("pending", Reason.WAITING, message, _waiting(reward.name, REWARD_MODEL))
        model = start_model(run, seen, sft)
    elif inputs is None:
        base = _base_of(run, seen, f"{field}.template", model)
        if base.state != "ready":
            return replace(base, status=_waiting(reward.name, REWARD_MODEL))
    spec = reward.template.model_copy(update={"model": model}).to_dict()
    if inputs is None:
        content = reward.template.model_copy(update={"model": None}).chosen()
        inputs = inputs_hash(content, _identity(base) or model.chosen(), _data(seen, spec))
    made = MadeStage(reward.name, REWARD_MODEL, child_name(run.name, reward.name, inputs), inputs, spec)
    return _made(run, seen, config, made, _own_seconds(sft))


def _waiting(name: str, kind: Kind) -> StageStatus:
    """A stage of which nothing has been made yet."""
    return StageStatus(name=name, kind=_stage_kind(kind), phase="Waiting")


def _identity(base: Stage) -> str:
    """What says which model a template starts from, empty for one at an address."""
    return model_identity(base.model) if base.model is not None else ""


def start_model(run: AlignmentRun, seen: RunObserved, sft: Stage) -> Model:
    """How a later resource names the model of stage sft: by its resource while there is one, else by its address."""
    assert run.spec is not None, "an unreadable spec does not get here"
    named = named_model(seen, sft)
    if named is not None:
        return named
    assert run.spec.sft.model is not None, "a model without a resource is one by address"
    return run.spec.sft.model


def named_model(seen: RunObserved, stage: Stage) -> Model | None:
    """As start_model, of any stage; None for a model at an address of the spec."""
    if stage.source is not None and (stage.source.kind, stage.source.name) in seen.resources:
        return Model(from_=stage.source)
    return Model(uri=stage.model.uri) if stage.model is not None else None


def _pinned(run: AlignmentRun, stage: str) -> str | None:
    """The hash that a stage was begun with: data that changes while a run is under way does not begin it anew."""
    known = run.status.stage_named(stage)
    return known.inputs if known is not None and run.is_begun else None


def _data(seen: RunObserved, spec: dict[str, Any]) -> dict[str, str]:
    """Digests of the ConfigMap data that a spec names."""
    text = str(spec)
    return {uri: digest for uri, digest in sorted(seen.data.items()) if f"'{uri}'" in text}


def _base_of(run: AlignmentRun, seen: RunObserved, field: str, model: Model) -> Stage:
    """The model that a template starts from; its identity is part of the inputs, so it has to be there first."""
    if model.from_ is None:
        return Stage("ready", Reason.VALID, "")
    return _taken(run, seen, "", field, model.from_, None)


def _taken(
    run: AlignmentRun, seen: RunObserved, name: str, field: str, ref: ResourceRef | None, model: Model | None
) -> Stage:
    """A stage that takes what is there already: another resource's model, or one at an address."""
    if ref is None and model is not None:
        ref = model.from_
    if ref is None:
        assert model is not None, "exactly one of ref and model is set"
        return Stage("ready", Reason.VALID, f"It is at {model.uri}.")
    where = f"{ref.kind} {ref.name}"
    known = run.status.stage_named(name)
    if known is not None and run.is_begun and known.model is not None:
        return Stage("ready", Reason.COMPLETED, _is_at(where, known.model), known, known.model, ref)
    view = seen.resources.get((ref.kind, ref.name))
    if view is None:
        return Stage("pending", Reason.REFERENCE_PENDING, f"{field} names {where}, which does not exist yet.")
    if view.has_failed:
        message = f"{field} names {where}, which has failed: {view.message('Failed')}"
        return Stage("failed", Reason.REFERENCE_FAILED, message)
    status = _status_of(name, view, reused=False)
    if not view.has_succeeded:
        return Stage("pending", Reason.REFERENCE_PENDING, f"Waiting for {where} to succeed.", status)
    assert view.status.model is not None, "a success has a model"
    return Stage("ready", Reason.COMPLETED, _is_at(where, view.status.model), status, view.status.model, ref)


def _is_at(where: str, model: ModelInfo) -> str:
    return f"{where} has succeeded: {model.uri}."


def _made(
    run: AlignmentRun, seen: RunObserved, config: OperatorConfig, made: MadeStage, seconds_before: float
) -> Stage:
    """A stage whose resource the run makes, unless the same has been made before."""
    known = run.status.stage_named(made.stage)
    if known is not None and known.inputs == made.inputs and known.model is not None:
        # Its model is what counts; the resource may be gone by now.
        source = ResourceRef(kind=made.kind.kind, name=known.ref or made.name)
        message = _is_at(f"{source.kind} {source.name}", known.model)
        return Stage("ready", _why_ready(reused=known.reused), message, known, known.model, source, made)
    deadline_s = _deadline_s(run, made, seconds_before)
    body = stage_resource(run, made, config, deadline_s=deadline_s)
    own = seen.resources.get((made.kind.kind, made.name))
    if own is not None and not own.owned:
        what = f"{own.kind} {own.name} belongs to something else; waiting for it to go."
        return Stage("pending", Reason.WAITING, what, made=made)
    if own is None:
        return _reused_or_new(run, seen, made, Create(made.kind, body))
    why = _why_anew(run, made, own)
    if why:
        message = f"{own.kind} {own.name} {why}; it is made anew."
        deletions = () if own.terminating else (Delete(made.kind, own.name, own.uid),)
        return Stage("pending", Reason.WAITING, message, _status_of(made.stage, own), made=made, deletions=deletions)
    wanted = (run.spec.suspend if run.spec is not None else False, run.generation, deadline_s)
    is_as_wanted = own.has_ended or wanted == (own.suspended, own.run_generation, own.deadline_s)
    changes = () if is_as_wanted else (Adjust(made.kind, stage_changes(body, own.uid)),)
    return _followed(made, own, reused=False, children=changes)


def _why_anew(run: AlignmentRun, made: MadeStage, own: ResourceView) -> str:
    """Why what was made has to go, so that it can be made again; empty where it may stay."""
    if own.has_failed and own.run_generation < run.generation:
        return "has failed before the spec was changed"
    if own.terminating:
        return "is being deleted"
    waits = any(item.type == "Accepted" and item.reason == Reason.REFERENCE_PENDING for item in own.status.conditions)
    if waits and not own.has_ended and "from" not in made.spec["model"]:
        return "waits for a resource that is gone, whose model is there"
    return ""


def _deadline_s(run: AlignmentRun, made: MadeStage, seconds_before: float) -> int | None:
    """Seconds that the stage may take: its own limit, and what is left of the run's."""
    assert run.spec is not None, "an unreadable spec does not get here"
    limits = [made.spec.get("activeDeadlineSeconds")]
    if run.spec.active_deadline_seconds is not None:
        limits.append(max(1, int(run.spec.active_deadline_seconds - seconds_before)))
    return min((limit for limit in limits if limit is not None), default=None)


def _reused_or_new(run: AlignmentRun, seen: RunObserved, made: MadeStage, new: Create) -> Stage:
    """The newest resource that was made from the same inputs, finished ones first; else one of the run's own."""
    alike = seen.alike(made.inputs)
    usable = [view for view in alike if view.kind == made.kind.kind and not view.has_failed and not view.terminating]
    if usable:
        best = max(usable, key=lambda view: (view.has_succeeded, view.name))
        return _followed(made, best, reused=True)
    suspended = run.spec is not None and run.spec.suspend
    if suspended:
        return Stage("pending", Reason.SUSPENDED_BY_USER, f"{made.kind.kind} {made.name} is not made yet.", made=made)
    status = StageStatus(
        name=made.stage, kind=_stage_kind(made.kind), ref=made.name, phase="Starting", inputs=made.inputs
    )
    child = Create(new.kind, new.body, Alone(made.inputs, frozenset(view.uid for view in alike)))
    message = f"{made.kind.kind} {made.name} was made."
    return Stage("pending", Reason.STAGE_RUNNING, message, status, made=made, children=(child,))


def _followed(made: MadeStage, view: ResourceView, *, reused: bool, children: tuple[Child, ...] = ()) -> Stage:
    """A stage as its resource tells of it."""
    where = f"{view.kind} {view.name}"
    status = _status_of(made.stage, view, reused=reused, inputs=made.inputs)
    if view.has_failed:
        message = f"{where} has failed: {view.message('Failed')}"
        return Stage("failed", Reason.STAGE_FAILED, message, status, made=made, children=children)
    if not view.has_succeeded:
        return Stage("pending", Reason.STAGE_RUNNING, _how_it_is(view), status, made=made, children=children)
    model = view.status.model
    assert model is not None, "a success has a model"
    source = ResourceRef(kind=made.kind.kind, name=view.name)
    return Stage("ready", _why_ready(reused=reused), _is_at(where, model), status, model, source, made, children)


def _why_ready(*, reused: bool) -> Reason:
    return Reason.REUSED if reused else Reason.COMPLETED


def _how_it_is(view: ResourceView) -> str:
    """A resource on its way, with what keeps it where something does."""
    for condition in view.status.conditions:
        stuck = condition.type in ("Accepted", "Fits") and condition.status == "False"
        if stuck or condition.reason in (Reason.PODS_PENDING, Reason.RETRYING, Reason.LAUNCH_REFUSED):
            return f"{view.kind} {view.name} is {view.status.phase}: {condition.message}"
    return f"{view.kind} {view.name} is {view.status.phase or 'new'}."


def _stage_kind(kind: Kind) -> Literal["FineTuneJob", "RewardModel"]:
    return "FineTuneJob" if kind is FINE_TUNE_JOB else "RewardModel"


def _status_of(name: str, view: ResourceView, *, reused: bool = False, inputs: str | None = None) -> StageStatus | None:
    """A stage's entry in the status; None for what is no stage, the base of a template."""
    if not name:
        return None
    status, is_own = view.status, view.owned and not reused
    return StageStatus(
        name=name,
        kind=view.kind,
        ref=view.name,
        phase=status.phase or "Pending",
        reused=reused,
        inputs=inputs,
        model=status.model if view.has_succeeded else None,
        started_at=status.started_at,
        finished_at=_whole(status.finished_at),
        active_seconds=status.active_seconds if is_own else None,
        gpu_hours=status.gpu_hours if is_own else None,
        cost=status.cost if is_own else None,
        metrics=_metrics(status),
    )


def _whole(time: datetime | None) -> datetime | None:
    return time.replace(microsecond=0) if time is not None else None


_SHOWN_METRICS = ("train_loss", "eval_loss", "accuracy", "meanMargin", "expectedCalibrationError", "tokens_per_second")
"""Final metrics that a stage repeats; the resource, and the report beside its model, have them all."""


def _metrics(status: JobStatus) -> dict[str, float]:
    if status.metrics:
        shown = {name: status.metrics[name] for name in _SHOWN_METRICS if name in status.metrics}
        return progress.finite(shown)
    done = status.progress
    if done is None:
        return {}
    values = {"step": float(done.step), "total_steps": float(done.total_steps), "loss": done.loss}
    return {name: value for name, value in values.items() if value is not None}


def superseded(run: AlignmentRun, seen: RunObserved, stages: Sequence[Stage]) -> list[Delete]:
    """Deletions of what the run has made for an older spec and what has not ended: nobody waits for it any more."""
    wanted = {(stage.made.kind.kind, stage.made.name) for stage in stages if stage.made is not None}
    return [
        Delete(FINE_TUNE_JOB if view.kind == FINE_TUNE_JOB.kind else REWARD_MODEL, view.name, view.uid)
        for view in seen.made
        if view.owned
        and not view.has_ended
        and not view.terminating
        and view.run_generation < run.generation
        and (view.kind, view.name) not in wanted
    ]
