"""How far one step of an alignment is, as it stands in a checkpoint."""

from dataclasses import dataclass, field
from typing import Any

from alidade_crds.reasons import FailureReason
from alidade_trainer.align.guardrails import Measures, Trip, Watch


@dataclass
class StepState:
    """How far one step is, as it stands in a checkpoint."""

    step_index: int
    optimizer_steps: int
    """Done over the whole job."""
    iterations: int = 0
    """Of this step, done."""
    algorithm: dict[str, Any] = field(default_factory=dict)
    watch: Watch = field(default_factory=Watch)
    before: list[str] = field(default_factory=list)
    """Greedy answers of the model that the job started from."""
    after: list[str] = field(default_factory=list)
    """Those of the newest evaluation."""
    sound: list[str] = field(default_factory=list)
    """Those of the newest sound iteration."""
    has_ended: bool = False
    """Whether the step is over before its last iteration."""
    trip: Trip | None = None
    """The guard rail that ended it."""

    @classmethod
    def load(cls, document: dict[str, Any]) -> "StepState":
        """What `asdict` made of a state."""
        watch = dict(document["watch"])
        watch["first"] = Measures(**watch["first"]) if watch["first"] else None
        trip = document["trip"]
        if trip is not None:
            reason = next(one for one in FailureReason if one == trip["reason"])
            trip = Trip(reason, trip["message"])
        return cls(**{**document, "watch": Watch(**watch), "trip": trip})
