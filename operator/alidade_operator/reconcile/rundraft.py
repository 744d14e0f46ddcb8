"""The plan for an AlignmentRun in the making: its own conditions, and its stages as the status lists them."""

from collections.abc import Iterable

from alidade_crds.alignmentrun import AlignmentRunStatus, StageStatus
from alidade_crds.reasons import ConditionType, Reason
from alidade_crds.status import Condition, Progress
from alidade_operator.reconcile.draft import Draft, Phase
from alidade_operator.reconcile.plan import Plan, ProgressTarget
from alidade_operator.reconcile.progress import number
from alidade_operator.reconcile.stages import Stages
from alidade_operator.reconcile.usage import total_cost

JOB_TOLD = frozenset(
    {
        ConditionType.ACCEPTED,
        ConditionType.FITS,
        ConditionType.LAUNCHED,
        ConditionType.ALIGNED,
        ConditionType.FAILED,
        ConditionType.SUSPENDED,
    }
)
"""Conditions whose transitions the plan of the training job tells of, while there is one."""

_TO_ALIGNMENT = (
    (ConditionType.SFT_READY, "The model to start from is not there yet."),
    (ConditionType.REWARD_MODEL_READY, "The rewards are not there yet."),
    (ConditionType.ALIGNED, "There is no aligned model yet."),
)
_AFTER_ALIGNMENT = (
    (ConditionType.EVALUATED, "There is no aligned model to evaluate yet."),
    (ConditionType.GATE_PASSED, "There are no results to judge yet."),
    (ConditionType.SERVED, "There is no model that may be served yet."),
)
_ENDED = ("Succeeded", "Failed", "Skipped", "Passed", "Serving")
_REWARDS = ("evalReward", "reward", "promptReward")


class RunDraft(Draft):
    """As Draft, with the stages of a run; `finish` counts what they have cost."""

    moving = (*Draft.moving, "stages", "reward", "metrics")

    before: AlignmentRunStatus

    def show(self, stages: Stages, alignment: Iterable[StageStatus]) -> None:
        """States the stages up to the alignment; what comes after it is added by `add_stage`."""
        listed = [stage.status for stage in stages.all if stage.status is not None]
        steps = list(alignment)
        self.state(stages=[*listed, *steps])
        # What others have made began before this run, if not before there was one.
        own = [stage.status for stage in stages.all if stage.status is not None and stage.made is not None]
        began = [stage.started_at for stage in (*own, *steps) if not stage.reused and stage.started_at is not None]
        self.state(started_at=min(began, default=None))

    def add_stage(self, stage: StageStatus) -> None:
        """States a further stage."""
        self.state(stages=[*self.stated("stages"), stage])

    def take_back_stages(self) -> None:
        """Takes back what was said of the stages of an older spec."""
        for kind, what in (*_TO_ALIGNMENT, *_AFTER_ALIGNMENT):
            self.conditions.set(kind, "False", Reason.WAITING, what)

    def take(self, inner: Plan, conditions: Iterable[Condition]) -> None:
        """Makes what the plan of the run's training job wants part of this one."""
        self.children += inner.children
        self.deletions += inner.deletions
        self.taken_notices += inner.notices
        self.remarks += inner.remarks
        for condition in conditions:
            kind = next(kind for kind in ConditionType if kind == condition.type)
            self.conditions.set(kind, condition.status, condition.reason, condition.message)
        self.look_again_in(inner.look_again_s)

    def await_model(self) -> None:
        """States that what follows the alignment waits for it, whatever an older spec came to."""
        for kind, what in _AFTER_ALIGNMENT:
            self.conditions.set(kind, "False", Reason.WAITING, what)

    def finish(self, phase: Phase, action: str, why: str, *, progress: ProgressTarget | None = None) -> Plan:
        """As Draft.finish."""
        listed: list[StageStatus] = self.stated("stages")
        current = next((stage for stage in listed if stage.phase not in _ENDED), None)
        hours = [stage.gpu_hours for stage in listed if stage.gpu_hours is not None]
        self.state(
            stage=current.name if current is not None else None,
            done=_done(current, self.stated("progress")),
            gpu_hours=round(sum(hours), 4) if hours else None,
            cost=total_cost([stage.cost for stage in listed if stage.cost is not None and not stage.reused]),
            reward=_reward(listed),
        )
        return super().finish(phase, action, why, progress=progress)

    def _complete_conditions(self) -> None:
        super()._complete_conditions()
        for kind, what in (*_TO_ALIGNMENT, *_AFTER_ALIGNMENT):
            self.conditions.set_default(kind, "False", Reason.WAITING, what)


def _done(stage: StageStatus | None, progress: Progress | None) -> str | None:
    """What the present stage has done, as `327/600`; None where that is not known."""
    if stage is None:
        return None
    if stage.kind == "Alignment":
        known = progress if progress is not None and progress.align_step == stage.name else None
        return f"{known.iteration}/{known.total_iterations}" if known is not None and known.total_iterations else None
    total = stage.metrics.get("total_steps")
    return f"{stage.metrics['step']:.0f}/{total:.0f}" if total else None


def _reward(stages: Iterable[StageStatus]) -> float | None:
    """The newest mean reward, on held-out prompts where there are any."""
    for stage in reversed(list(stages)):
        if stage.kind == "Alignment":
            for name in _REWARDS:
                if name in stage.metrics:
                    return number(stage.metrics[name])
    return None


def end_failed(draft: RunDraft, reason: str, message: str) -> Plan:
    """The plan for a run that has failed for good."""
    draft.state(finished_at=draft.now)
    draft.conditions.set(ConditionType.FAILED, "True", reason, message)
    draft.conditions.set(ConditionType.SUCCEEDED, "False", reason, message)
    return draft.finish("Failed", "fail", f"{reason}: {message}")
