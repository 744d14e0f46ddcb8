"""The status of a PyTorchJob: conditions that replace one another as the training operator's do."""

from __future__ import annotations

from datetime import datetime

from alidade_local.objects import Object, format_time

KIND = "PyTorchJob"


def is_true(status: Object, condition_type: str) -> bool:
    return any(
        condition["type"] == condition_type and condition["status"] == "True"
        for condition in status.get("conditions") or []
    )


def is_finished(status: Object) -> bool:
    return is_true(status, "Succeeded") or is_true(status, "Failed")


def set_condition(
    status: Object, condition_type: str, value: bool, message: str, now: datetime, *, reason: str = ""
) -> None:
    """Put a condition at the end of the list; nothing changes after Failed, or when status and reason are the same.

    Running and Restarting replace each other; an end sets Running to False.
    """
    if is_true(status, "Failed"):
        return
    conditions: list[Object] = status.get("conditions") or []
    reason = f"{KIND}{reason or condition_type}"
    before = next((condition for condition in conditions if condition["type"] == condition_type), None)
    if before is not None and (before["status"], before["reason"]) == (str(value), reason):
        return
    unchanged = before is not None and before["status"] == str(value)
    status["conditions"] = [
        *_others(conditions, condition_type),
        {
            "type": condition_type,
            "status": str(value),
            "reason": reason,
            "message": message,
            "lastUpdateTime": format_time(now),
            "lastTransitionTime": before["lastTransitionTime"] if before and unchanged else format_time(now),
        },
    ]


def _others(conditions: list[Object], condition_type: str) -> list[Object]:
    replaced = {"Running": "Restarting", "Restarting": "Running"}.get(condition_type)
    kept = [dict(entry) for entry in conditions if entry["type"] not in (condition_type, replaced)]
    if condition_type in ("Failed", "Succeeded"):
        for entry in kept:
            if entry["type"] == "Running":
                entry["status"] = "False"
    return kept
