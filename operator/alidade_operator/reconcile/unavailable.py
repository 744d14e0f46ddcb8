"""Kinds that this release stores but does not act on: they say so, and nothing else."""

from datetime import datetime

from alidade_crds.reasons import ConditionType, Reason
from alidade_crds.status import Condition
from alidade_operator.api import JsonObject, Kind


def unavailable_status(kind: Kind, body: JsonObject, now: datetime) -> JsonObject | None:
    """The status of a resource without a controller, or None when it says so already."""
    generation = int(body["metadata"].get("generation", 1))
    known = (body.get("status") or {}).get("conditions") or []
    before = next((item for item in known if item.get("type") == ConditionType.ACCEPTED), None)
    same = before is not None and before.get("status") == "False"
    condition = Condition(
        type=str(ConditionType.ACCEPTED),
        status="False",
        reason=str(Reason.CONTROLLER_NOT_AVAILABLE),
        message=f"This release stores {kind.kind} resources but does not act on them yet; nothing will be started.",
        observed_generation=generation,
        last_transition_time=before["lastTransitionTime"] if same and before else now.replace(microsecond=0),
    )
    if before is not None and Condition.model_validate(before) == condition:
        return None
    return {"observedGeneration": generation, "phase": "Pending", "conditions": [condition.to_dict()]}
