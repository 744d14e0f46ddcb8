"""The plan of a ModelServe in the making, and the words that its parts share."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from alidade_crds.modelserve import ModelServeSpec
from alidade_crds.reasons import ConditionType, Reason
from alidade_crds.status import Condition
from alidade_operator.api import Kind
from alidade_operator.conditions import Conditions
from alidade_operator.config import OperatorConfig
from alidade_operator.reconcile.draft import transitions
from alidade_operator.reconcile.plan import AdapterTarget, Child, Decision, Delete, Notice, Plan, PodTarget
from alidade_operator.reconcile.serve import ChildView, ModelServe, ServeObserved
from alidade_operator.resources.observation import PodView

ServePhase = Literal["Waiting", "Quantizing", "Starting", "Updating", "Canary", "Serving", "Idle", "Stopped", "Failed"]
"""For people. Waiting: something has to change or come first. Starting: nothing answers yet. Updating: replicas of the
newest spec replace older ones. Canary: a new model serves beside the one before. Idle: nobody asks, and the next
request starts a replica. Stopped: spec.replicas is 0."""

# What moves by itself while replicas and jobs come and go; a status that differs in nothing else is no decision.
_MOVING = ("replicas", "ready_replicas", "gateway_ready_replicas", "quantization_job", "canary", "scaling")
# Deleted objects send an event when they go; this look is for the event that gets lost.
LEFTOVER_S = 10.0


@dataclass(frozen=True)
class Situation:
    """A ModelServe and all that its plan depends on."""

    serve: ModelServe
    spec: ModelServeSpec
    seen: ServeObserved
    config: OperatorConfig
    now: datetime


@dataclass(frozen=True)
class Held:
    """How a plan ends that waits: phase, and the line of the log."""

    phase: ServePhase
    action: str
    why: str


class ServeDraft:
    """Collects what a plan says; `finish` compares it with the status there is."""

    def __init__(self, serve: ModelServe, now: datetime) -> None:
        self.before = serve.status
        self.conditions = Conditions(
            serve.status.conditions, generation=serve.generation, now=now.replace(microsecond=0)
        )
        self.children: list[Child] = []
        self.deletions: list[Delete] = []
        self.remarks: list[Notice] = []
        self.readings: tuple[PodTarget, ...] = ()
        self.loading: tuple[AdapterTarget, ...] = ()
        self._look_again_s: float | None = None
        self._generation = serve.generation
        self._fields: dict[str, Any] = {}

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

    def delete(self, kind: Kind, name: str, view: ChildView | None) -> None:
        """Deletes a child of ours that is there."""
        if view is not None and view.owned and not view.terminating:
            self.deletions.append(Delete(kind, name, view.uid))

    def fail(self, reason: Reason, message: str) -> None:
        """States that it does not go on by itself."""
        self.conditions.set(ConditionType.FAILED, "True", reason, message)
        self.conditions.set(ConditionType.PROGRESSING, "False", reason, "See the condition Failed.")

    def has_not_failed(self) -> None:
        """States that nothing stands in the way for good."""
        self.conditions.set(ConditionType.FAILED, "False", Reason.NOT_FAILED, "Nothing has failed for good.")

    def finish(self, phase: ServePhase, action: str, why: str) -> Plan:
        """The plan. action and why make the line of the log, if the plan changes anything that is a decision."""
        conditions = self.conditions.list()
        after = self.before.model_copy(
            update={
                **self._fields,
                "phase": phase,
                "conditions": conditions,
                "observed_generation": self._generation,
            }
        )
        known = self.before.model_copy(update={"conditions": _in_order(self.before.conditions)})
        changed = after != known
        moved_only = after == known.model_copy(update={name: getattr(after, name) for name in _MOVING})
        decided = (changed and not moved_only) or self.children or self.deletions
        return Plan(
            status=after if changed else None,
            children=tuple(self.children),
            deletions=tuple(self.deletions),
            notices=tuple(transitions(self.before.conditions, conditions, frozenset(ConditionType))),
            remarks=tuple(self.remarks) if decided else (),
            decisions=(Decision(action, why),) if decided else (),
            look_again_s=self._look_again_s,
            readings=self.readings,
            loading=self.loading,
        )


def _in_order(conditions: Sequence[Condition]) -> list[Condition]:
    order = {str(kind): index for index, kind in enumerate(ConditionType)}
    return sorted((one for one in conditions if one.type in order), key=lambda one: order[one.type])


def owned(view: ChildView | None) -> ChildView | None:
    """The child, if it is the ModelServe's own."""
    return view if view is not None and view.owned else None


def pod_words(pods: Sequence[PodView]) -> str:
    """What keeps one of the pods from answering, in its own words; empty when nothing is said."""
    for pod in pods:
        last = pod.termination.message.strip().splitlines()[-1:] if pod.termination is not None else []
        if last:
            return f" Pod {pod.name} ended: {last[0][:1000]}"
        if pod.message:
            return f" Pod {pod.name}: {pod.message}"
    return ""


def still(seen: ServeObserved) -> str:
    """The sentence about what goes on being served."""
    own = owned(seen.deployment)
    return f" {own.model} is served as before." if own is not None and own.ready and own.model else ""
