"""Gauges of what the resources' statuses say: what troubles them, how long they queue, what they have used."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from prometheus_client import Gauge

from alidade_crds.metric_names import ResourceMetric
from alidade_crds.reasons import ConditionType, FailureReason, Reason
from alidade_operator.api import PARENT_KINDS, JsonObject

_RESOURCE = ["namespace", "name", "kind"]
PROBLEM = Gauge(ResourceMetric.PROBLEM, ResourceMetric.PROBLEM.meaning, [*_RESOURCE, "condition", "reason"])
QUEUED = Gauge(ResourceMetric.QUEUED, ResourceMetric.QUEUED.meaning, _RESOURCE)
GPU_HOURS = Gauge(ResourceMetric.GPU_HOURS, ResourceMetric.GPU_HOURS.meaning, _RESOURCE)
COST = Gauge(ResourceMetric.COST, ResourceMetric.COST.meaning, [*_RESOURCE, "currency"])

# Conditions that are False because something has to be mended, but for what only waits for its turn.
_WAITS = frozenset({Reason.WAITING, Reason.REFERENCE_PENDING, Reason.NOT_FINISHED})
_TO_BE_MENDED = frozenset({ConditionType.ACCEPTED, ConditionType.FITS})
_TROUBLES = frozenset(
    {
        Reason.LAUNCH_REFUSED,
        Reason.RETRYING,
        Reason.METRIC_MISSING,
        Reason.METRIC_OUT_OF_BOUNDS,
        Reason.NO_REPLICA_READY,
        Reason.CANARY_WORSE,
        FailureReason.KL_CEILING,
        FailureReason.LENGTH_COLLAPSED,
        FailureReason.DIVERSITY_COLLAPSED,
        FailureReason.REWARD_OVER_OPTIMIZED,
    }
)
_OWN_KINDS = frozenset(kind.kind for kind in PARENT_KINDS)


def refresh(resources: Iterable[JsonObject], now: datetime) -> None:
    """Sets the gauges to what the resources say; whatever is not among them is gone."""
    for gauge in (PROBLEM, QUEUED, GPU_HOURS, COST):
        gauge.clear()
    for body in resources:
        metadata, status = body["metadata"], body.get("status") or {}
        place = (metadata["namespace"], metadata["name"], body["kind"])
        conditions = status.get("conditions") or []
        for condition, reason in problems(conditions):
            PROBLEM.labels(*place, condition, reason).set(1)
        queued_s = _queued_s(conditions, now)
        if queued_s is not None:
            QUEUED.labels(*place).set(queued_s)
        if not _is_made_by_ours(metadata):
            if status.get("gpuHours"):
                GPU_HOURS.labels(*place).set(status["gpuHours"])
            for currency, amount in costs(status.get("cost") or ""):
                COST.labels(*place, currency).set(amount)


def problems(conditions: Iterable[JsonObject]) -> Iterator[tuple[str, str]]:
    """(condition, reason) of each condition that says why a resource is in trouble."""
    for item in conditions:
        kind, is_true, reason = item["type"], item["status"] == "True", item["reason"]
        if kind == ConditionType.FAILED:
            troubled = is_true
        elif kind in _TO_BE_MENDED:
            troubled = item["status"] == "False" and reason not in _WAITS
        else:
            troubled = reason in _TROUBLES
        if troubled:
            yield kind, reason


def costs(text: str) -> Iterator[tuple[str, float]]:
    """(currency, amount) of each part of a cost such as `12.50 USD + 3.00 EUR`."""
    for part in text.split(" + ") if text else ():
        amount, _, currency = part.partition(" ")
        yield currency, float(amount)


def _queued_s(conditions: Iterable[JsonObject], now: datetime) -> float | None:
    """Seconds since the queue began to hold the resource back; None for one that it does not."""
    for item in conditions:
        if item["type"] == ConditionType.SUSPENDED and item["reason"] == Reason.SUSPENDED_BY_QUEUE:
            since = datetime.fromisoformat(item["lastTransitionTime"].replace("Z", "+00:00"))
            return max(0.0, (now - since).total_seconds()) if item["status"] == "True" else None
    return None


def _is_made_by_ours(metadata: dict[str, Any]) -> bool:
    references = metadata.get("ownerReferences") or []
    return any(reference.get("controller") and reference.get("kind") in _OWN_KINDS for reference in references)
