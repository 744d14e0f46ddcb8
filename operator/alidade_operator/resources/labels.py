"""Labels and owner references of what belongs to a resource."""

from typing import Any

from alidade_crds import API_VERSION
from alidade_operator.cache import PARENT_KIND_LABEL, PARENT_NAME_LABEL

MANAGED_BY = "alidade"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
COMPONENT_LABEL = "app.kubernetes.io/component"
ATTEMPT_LABEL = "alidade.dev/attempt"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


def child_labels(kind: str, name: str, component: str) -> dict[str, str]:
    """The recommended labels, and those by which a child finds its resource."""
    return {
        "app.kubernetes.io/name": f"alidade-{component}",
        PARENT_NAME_LABEL: name,
        COMPONENT_LABEL: component,
        "app.kubernetes.io/part-of": "alidade",
        MANAGED_BY_LABEL: MANAGED_BY,
        PARENT_KIND_LABEL: kind,
    }


def owner_reference(kind: str, name: str, uid: str) -> dict[str, Any]:
    """Makes the garbage collector delete the child with its resource."""
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def is_owned_by(metadata: dict[str, Any], uid: str) -> bool:
    """Whether the object's controller is the one of that uid."""
    return any(ref.get("uid") == uid and ref.get("controller") for ref in metadata.get("ownerReferences") or [])
