"""Reading Kubernetes objects: keys, owners, selectors, times.

The local cluster handles objects of every kind as the JSON documents they are; these functions are the one place that
knows where things stand in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

Object = dict[str, Any]


class Key(NamedTuple):
    """Which object of a kind: its namespace (empty for cluster-scoped kinds) and its name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def key_of(document: Object) -> Key:
    metadata = document["metadata"]
    return Key(metadata.get("namespace", ""), metadata["name"])


def name_of(document: Object) -> str:
    return str(document["metadata"]["name"])


def namespace_of(document: Object) -> str:
    return str(document["metadata"].get("namespace", ""))


def uid_of(document: Object) -> str:
    return str(document["metadata"].get("uid", ""))


def labels_of(document: Object) -> dict[str, str]:
    return document["metadata"].get("labels") or {}


def annotations_of(document: Object) -> dict[str, str]:
    return document["metadata"].get("annotations") or {}


def is_deleting(document: Object) -> bool:
    return bool(document["metadata"].get("deletionTimestamp"))


def version_of(document: Object) -> int:
    """The resource version as a number, zero when it is absent or not one."""
    version = str(document["metadata"].get("resourceVersion", ""))
    return int(version) if version.isdigit() else 0


def controller_of(document: Object) -> Object | None:
    """The owner reference that is marked as the managing controller."""
    references: list[Object] = document["metadata"].get("ownerReferences") or []
    return next((reference for reference in references if reference.get("controller")), None)


def is_controlled_by(document: Object, owner: Object) -> bool:
    reference = controller_of(document)
    return reference is not None and reference.get("uid") == uid_of(owner)


def controller_reference(owner: Object, api_version: str, kind: str) -> Object:
    """The owner reference that makes `owner` the managing controller of what carries it."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": name_of(owner),
        "uid": uid_of(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def matches_labels(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether the labels carry each pair of the selector. An empty selector matches everything."""
    return all(labels.get(name) == value for name, value in selector.items())


def matches_selector(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Whether the labels satisfy a LabelSelector (matchLabels and matchExpressions); no selector matches nothing."""
    if selector is None:
        return False
    expressions: list[Object] = selector.get("matchExpressions") or []
    return matches_labels(selector.get("matchLabels") or {}, labels) and all(
        matches_expression(expression, labels) for expression in expressions
    )


def matches_expression(expression: Object, labels: Mapping[str, str]) -> bool:
    """Whether the labels satisfy one requirement of a LabelSelector or a node selector term."""
    value = labels.get(expression["key"])
    values: list[str] = expression.get("values") or []
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return _is_integer(value) and int(str(value)) > int(values[0])
        case "Lt":
            return _is_integer(value) and int(str(value)) < int(values[0])
        case _:
            return False


def _is_integer(value: str | None) -> bool:
    return value is not None and value.lstrip("-").isdigit()


def format_time(moment: datetime) -> str:
    """A time as metav1.Time prints it: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(moment: datetime) -> str:
    """A time as metav1.MicroTime prints it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def created_at(document: Object) -> datetime:
    return parse_time(document["metadata"]["creationTimestamp"])


def condition_of(document: Object, condition_type: str) -> Object | None:
    conditions: list[Object] = (document.get("status") or {}).get("conditions") or []
    return next((condition for condition in conditions if condition["type"] == condition_type), None)


def is_condition_true(document: Object, condition_type: str) -> bool:
    condition = condition_of(document, condition_type)
    return condition is not None and condition["status"] == "True"
