"""A plan in the making: conditions and fields as they are stated, then the plan that follows from them."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal

from alidade_crds.printing import printable
from alidade_crds.reasons import ConditionType, Reason
from alidade_crds.status import Condition, FailureInfo, JobStatus, ResourceStatus
from alidade_operator.conditions import Conditions
from alidade_operator.reconcile.plan import Child, Decision, Delete, Notice, Plan, ProgressTarget, seconds_until

Phase = Literal[
    "Pending", "Waiting", "Queued", "Starting", "Running", "Retrying", "Suspended", "Succeeded", "Failed"
]  # fmt: skip
"""For people. Waiting: something has to change or come first. Queued: Kueue has not admitted it. Pending: launched, its
pods cannot run yet. Starting: its pods are being made. Retrying: an attempt has failed and the next one follows."""


class StatusDraft:
    """Collects what a plan says of any resource, and compares it with the status there is."""

    told: frozenset[ConditionType] = frozenset(ConditionType)
    """The conditions whose transitions become notices."""
    moving: tuple[str, ...] = ()
    """What moves by itself; a status that differs in nothing else is no decision."""

    before: ResourceStatus

    def __init__(self, status: ResourceStatus, *, generation: int, now: datetime) -> None:
        self.before = status
        self.now = now.replace(microsecond=0)
        self.conditions = Conditions(status.conditions, generation=generation, now=self.now)
        self.children: list[Child] = []
        self.deletions: list[Delete] = []
        self.remarks: list[Notice] = []
        self.taken_notices: list[Notice] = []
        """Events that are told whether or not anything is decided."""
        self._generation = generation
        self._fields: dict[str, Any] = {}
        self._look_again_s: float | None = None

    def state(self, **fields: Any) -> None:
        """Sets fields of the status."""
        self._fields |= fields

    def stated(self, field: str) -> Any:
        """A field of the status as it will read."""
        return self._fields.get(field, getattr(self.before, field))

    def look_again_in(self, seconds: float | None) -> None:
        """Asks for another look after a time; the earliest counts."""
        if seconds is not None:
            self._look_again_s = seconds if self._look_again_s is None else min(self._look_again_s, seconds)

    def _plan(self, phase: str, action: str, why: str) -> Plan:
        """The plan. action and why make the line of the log, if the plan changes anything that is a decision."""
        self.conditions.summarize(phase)
        conditions = self.conditions.list()
        after = self.before.model_copy(
            update={
                **self._fields,
                "phase": phase,
                "conditions": conditions,
                "observed_generation": self._generation,
            }
        )
        known = self.before.model_copy(update={"conditions": _ours(self.before.conditions)})
        changed = after != known
        moved = {name: getattr(after, name) for name in self.moving if name in type(after).model_fields}
        decided = (changed and after != known.model_copy(update=moved)) or self.children or self.deletions
        return Plan(
            status=after if changed else None,
            children=tuple(self.children),
            deletions=tuple(self.deletions),
            notices=(*self.taken_notices, *transitions(self.before.conditions, conditions, self.told)),
            remarks=tuple(self.remarks) if decided else (),
            decisions=(Decision(action, why),) if decided else (),
            look_again_s=self._look_again_s,
        )


def _ours(conditions: list[Condition]) -> list[Condition]:
    """Conditions that we state, in the order in which we state them."""
    order = {str(kind): index for index, kind in enumerate(ConditionType)}
    return sorted((item for item in conditions if item.type in order), key=lambda item: order[item.type])


class Draft(StatusDraft):
    """The draft of a job's plan."""

    moving: tuple[str, ...] = ("progress", "done", "gpu_hours", "cost", "started_at")

    before: JobStatus

    def __init__(self, status: JobStatus, *, generation: int, now: datetime, lifetime_s: int | None = None) -> None:
        """lifetime_s: how long the resource stays after its end; for ever without."""
        super().__init__(status, generation=generation, now=now)
        self.clock = now
        self._lifetime = timedelta(seconds=lifetime_s) if lifetime_s is not None else None

    @property
    def expires_at(self) -> datetime | None:
        """When the finished resource is to be deleted, or None."""
        finished_at = self.stated("finished_at")
        return finished_at + self._lifetime if finished_at is not None and self._lifetime is not None else None

    def finish(self, phase: Phase, action: str, why: str, *, progress: ProgressTarget | None = None) -> Plan:
        """The plan, with what has not been said of a job; as `_plan`."""
        self._complete_conditions()
        if phase in ("Succeeded", "Failed") and self.expires_at is not None and not self.deletions:
            self.look_again_in(seconds_until(self.expires_at, self.clock))
        return replace(self._plan(phase, action, why), progress=progress)

    def _complete_conditions(self) -> None:
        default = self.conditions.set_default
        default(ConditionType.ACCEPTED, "Unknown", Reason.WAITING, "Not looked at yet.")
        default(ConditionType.FITS, "Unknown", Reason.WAITING, "Estimated once the spec is accepted.")
        default(ConditionType.LAUNCHED, "False", Reason.WAITING, "Nothing has been launched yet.")
        default(ConditionType.SUCCEEDED, "False", Reason.NOT_FINISHED, "The job has not finished.")
        default(ConditionType.FAILED, "False", Reason.NOT_FAILED, "The job has not failed.")
        default(ConditionType.SUSPENDED, "False", Reason.NOT_SUSPENDED, "The job is not suspended.")


_WARNINGS = {
    (ConditionType.ACCEPTED, "False"),
    (ConditionType.FITS, "False"),
    (ConditionType.FAILED, "True"),
    (ConditionType.GATE_PASSED, "False"),
}
_NORMAL = {
    (ConditionType.ACCEPTED, "Unknown"),
    (ConditionType.SUCCEEDED, "True"),
    (ConditionType.SUSPENDED, "True"),
    (ConditionType.LAUNCHED, "True"),
    (ConditionType.SFT_READY, "True"),
    (ConditionType.REWARD_MODEL_READY, "True"),
    (ConditionType.ALIGNED, "True"),
    (ConditionType.EVALUATED, "True"),
    (ConditionType.GATE_PASSED, "True"),
    (ConditionType.SERVED, "True"),
    (ConditionType.QUANTIZED, "True"),
    (ConditionType.AVAILABLE, "True"),
}
# Succeeded tells the end; Valid is told by the launch that follows; what was not asked for is no news.
_SILENT = frozenset({Reason.VALID, Reason.NOT_ASKED_FOR})


def transitions(before: list[Condition], after: list[Condition], told: frozenset[ConditionType]) -> list[Notice]:
    """Notices for those of the conditions whose status or reason is new and worth telling."""
    known = {condition.type: (condition.status, condition.reason) for condition in before}
    notices = []
    for condition in after:
        same = known.get(condition.type) == (condition.status, condition.reason)
        if same or condition.type not in told:
            continue
        fact = (condition.type, condition.status)
        if (fact in _WARNINGS and condition.reason != Reason.WAITING) or condition.reason in (
            Reason.RETRYING,
            Reason.PODS_PENDING,
            Reason.FEWER_WORKERS,
            Reason.INTERRUPTED,
        ):
            notices.append(Notice("Warning", condition.reason, condition.message))
        elif fact in _NORMAL and not _is_silent(condition):
            notices.append(Notice("Normal", condition.reason, condition.message))
    return notices


def _is_silent(condition: Condition) -> bool:
    after_the_end = condition.type == ConditionType.LAUNCHED and condition.reason == Reason.COMPLETED
    return after_the_end or condition.reason in _SILENT


def failure_info(
    attempt: int, *, reason: str, message: str, exit_code: int | None, at: datetime, interrupted: bool
) -> FailureInfo:
    """The newest failed attempt, with its message cut to what the status may hold."""
    return FailureInfo(
        attempt=attempt,
        reason=printable(reason)[:256],
        message=printable(message)[:4096],
        exit_code=exit_code,
        interrupted=interrupted or None,
        at=at.replace(microsecond=0),
    )
