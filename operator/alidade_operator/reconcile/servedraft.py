"""The plan of a ModelServe in the making, and the words that its parts share."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from alidade_crds.modelserve import ModelServeSpec, ModelServeStatus
from alidade_crds.reasons import ConditionType, Reason
from alidade_operator.api import Kind
from alidade_operator.config import OperatorConfig
from alidade_operator.reconcile.draft import StatusDraft
from alidade_operator.reconcile.plan import AdapterTarget, Delete, Plan, PodTarget
from alidade_operator.reconcile.serve import ChildView, ModelServe, ServeObserved
from alidade_operator.resources.observation import PodView

ServePhase = Literal["Waiting", "Quantizing", "Starting", "Updating", "Canary", "Serving", "Idle", "Stopped", "Failed"]
"""For people. Waiting: something has to change or come first. Starting: nothing answers yet. Updating: replicas of the
newest spec replace older ones. Canary: a new model serves beside the one before. Idle: nobody asks, and the next
request starts a replica. Stopped: spec.replicas is 0."""

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


class ServeDraft(StatusDraft):
    """The draft of a ModelServe's plan."""

    moving: tuple[str, ...] = (
        "replicas",
        "ready_replicas",
        "gateway_ready_replicas",
        "quantization_job",
        "canary",
        "scaling",
    )

    before: ModelServeStatus

    def __init__(self, serve: ModelServe, now: datetime) -> None:
        super().__init__(serve.status, generation=serve.generation, now=now)
        self.readings: tuple[PodTarget, ...] = ()
        self.loading: tuple[AdapterTarget, ...] = ()

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
        """The plan, with the pods that are asked and told things; as `_plan`."""
        return replace(self._plan(phase, action, why), readings=self.readings, loading=self.loading)


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
