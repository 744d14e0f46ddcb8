"""What the status of a resource says: read from the body as the API has it, for whatever kind."""

from typing import Any

Body = dict[str, Any]

# What has to hold before another can; the first that does not is why there is no result yet.
_JOB = ("Accepted", "Fits", "SFTReady", "RewardModelReady", "Launched")
_SERVE = ("Accepted", "Quantized", "Available")
SERVE = "ModelServe"


def condition(body: Body, condition_type: str) -> Body | None:
    """A condition of the status, or None."""
    found: list[Body] = body.get("status", {}).get("conditions", [])
    return next((one for one in found if one["type"] == condition_type), None)


def is_true(body: Body, condition_type: str) -> bool:
    """Whether a condition holds."""
    found = condition(body, condition_type)
    return found is not None and found["status"] == "True"


def is_current(body: Body) -> bool:
    """Whether the status speaks of the newest spec."""
    generation = body.get("metadata", {}).get("generation")
    return bool(body.get("status", {}).get("observedGeneration") == generation)


def serves_spec(body: Body) -> bool:
    """Whether every replica of a ModelServe serves the newest spec, be that none."""
    done = condition(body, "Progressing")
    is_settled = done is not None and done["status"] == "False" and not is_true(body, "Failed")
    return is_settled and is_current(body) and is_true(body, "Accepted") and is_true(body, "Quantized")


def has_succeeded(kind: str, body: Body) -> bool:
    """Whether the resource has come to what it is for: its result, of a ModelServe that its spec is served."""
    return serves_spec(body) if kind == SERVE else is_true(body, "Succeeded")


def has_failed(kind: str, body: Body) -> bool:
    """Whether it does not go on by itself. Of a ModelServe, whose spec may change, what failed may be one before."""
    return is_true(body, "Failed") and (kind != SERVE or is_current(body))


def failure(body: Body) -> tuple[str, str]:
    """Reason and message of the condition Failed; empty without one."""
    found = condition(body, "Failed") or {}
    return str(found.get("reason", "")), str(found.get("message", ""))


def why_not_yet(kind: str, body: Body) -> str:
    """The sentence about what it waits for."""
    for condition_type in _SERVE if kind == SERVE else _JOB:
        found = condition(body, condition_type)
        against = found is not None and (found["status"] != "True" if kind == SERVE else found["status"] == "False")
        if found is not None and against:
            return f"{condition_type} is {found['status']}: {found['message']}"
    return f"it is {body.get('status', {}).get('phase', 'not looked at by an operator yet')}"
