"""Events as events.k8s.io/v1 shows them: other field names on the same stored core/v1 objects."""

from typing import Any

Json = dict[str, Any]

_NEW_TO_CORE = {
    "note": "message",
    "regarding": "involvedObject",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_CORE_TO_NEW = {core: new for new, core in _NEW_TO_CORE.items()}


def to_core(obj: Json) -> Json:
    """The core/v1 form of an events.k8s.io/v1 event."""
    return {_NEW_TO_CORE.get(name, name): value for name, value in obj.items()} | {"apiVersion": "v1"}


def from_core(obj: Json) -> Json:
    """The events.k8s.io/v1 form of a stored event."""
    return {_CORE_TO_NEW.get(name, name): value for name, value in obj.items()} | {"apiVersion": "events.k8s.io/v1"}
