"""Kubernetes Events about a resource, as `kubectl describe` shows them."""

import hashlib
from datetime import datetime

from alidade_crds import API_VERSION
from alidade_crds.printing import printable
from alidade_operator.api import EVENT, FIELD_MANAGER, JsonObject, Kind
from alidade_operator.reconcile.plan import Notice

# The API server refuses longer ones.
_MESSAGE_LIMIT = 1024
_NAME_LIMIT = 253


def event_body(kind: Kind, resource: JsonObject, notice: Notice, now: datetime) -> JsonObject:
    """The Event of a notice. The same notice at the same time has the same name, so that it cannot be posted twice."""
    metadata = resource["metadata"]
    time = now.replace(microsecond=0).isoformat().replace("+00:00", "Z")
    digest = hashlib.sha256("\0".join((metadata["uid"], notice.reason, notice.message, time)).encode()).hexdigest()
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {
            "name": f"{metadata['name'][: _NAME_LIMIT - 17]}.{digest[:16]}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": kind.kind,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata.get("resourceVersion", ""),
        },
        "type": notice.type,
        "reason": notice.reason,
        "message": _cut(printable(notice.message)),
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "reportingInstance": FIELD_MANAGER,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }


def _cut(message: str) -> str:
    return message if len(message.encode()) <= _MESSAGE_LIMIT else message[: _MESSAGE_LIMIT // 4 - 1] + "…"
