"""The scale subresource: replicas of any resource as autoscaling/v1 Scale."""

from typing import Any

from alidade_local.apiserver.errors import FieldError, bad_request, invalid, invalid_object
from alidade_local.apiserver.resources import Resource, ScalePaths

Json = dict[str, Any]


def _at(obj: Json, path: str) -> Any:
    value: Any = obj
    for step in path.strip(".").split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def replica_errors(paths: ScalePaths, obj: Json) -> list[FieldError]:
    """What keeps an object from being scaled."""
    return [
        invalid(path, value, "should be a non-negative integer")
        for path in (paths.spec_replicas, paths.status_replicas)
        if isinstance(value := _at(obj, path), int) and value < 0
    ]


def selector_text(value: Any) -> str:
    """A label selector as one line, in the notation of labelSelector parameters."""
    if isinstance(value, str):
        return value
    terms = [f"{key}={text}" for key, text in sorted(((value or {}).get("matchLabels") or {}).items())]
    for expression in (value or {}).get("matchExpressions") or ():
        key, values = expression["key"], ",".join(expression.get("values") or ())
        terms.append(
            {
                "In": f"{key} in ({values})",
                "NotIn": f"{key} notin ({values})",
                "Exists": key,
                "DoesNotExist": f"!{key}",
            }[expression["operator"]]
        )
    return ",".join(terms)


def scale_of(resource: Resource, obj: Json) -> Json:
    """The Scale of an object."""
    paths = resource.scale or ScalePaths()
    metadata = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Json = {"replicas": _at(obj, paths.status_replicas) or 0}
    if paths.selector:
        selector = selector_text(_at(obj, paths.selector))
        if selector:
            status["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: metadata[name] for name in kept if name in metadata},
        "spec": {"replicas": replicas} if (replicas := _at(obj, paths.spec_replicas)) else {},
        "status": status,
    }


def scaled(resource: Resource, obj: Json, scale: Json) -> Json:
    """The object with the replicas of a Scale."""
    paths = resource.scale or ScalePaths()
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if not isinstance(replicas, int) or isinstance(replicas, bool):
        raise bad_request(f"spec.replicas must be an integer, found {replicas!r}")
    if replicas < 0:
        error = invalid("spec.replicas", replicas, "must be greater than or equal to 0")
        raise invalid_object(resource, obj["metadata"]["name"], [error])
    metadata = scale.get("metadata") or {}
    name = obj["metadata"]["name"]
    if metadata.get("name", name) != name:
        raise bad_request(f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})")
    obj["metadata"]["resourceVersion"] = metadata.get("resourceVersion") or obj["metadata"]["resourceVersion"]
    *parents, last = paths.spec_replicas.strip(".").split(".")
    holder = obj
    for step in parents:
        holder = holder.setdefault(step, {})
    holder[last] = replicas
    return obj
