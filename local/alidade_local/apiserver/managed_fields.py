"""metadata.managedFields: who set which field."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from alidade_local.apiserver import timestamps
from alidade_local.apiserver.errors import bad_request
from alidade_local.apiserver.field_sets import Comparison, FieldSet
from alidade_local.apiserver.options import WriteOptions
from alidade_local.apiserver.resources import Resource

Json = dict[str, Any]

_UNTRACKED_METADATA = frozenset(
    f"f:{name}"
    for name in (
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "managedFields",
        "resourceVersion",
        "selfLink",
    )
)
_UPDATERS_LIMIT = 10  # as in the original: more Update managers than this share one entry
_ANCIENT = "ancient-changes"


@dataclass(frozen=True)
class ManagerKey:
    """Who: one entry of managedFields."""

    manager: str
    operation: str
    api_version: str
    subresource: str


@dataclass(frozen=True)
class Managed:
    """What somebody owns, since when."""

    fields: FieldSet
    time: str


Managers = dict[ManagerKey, Managed]


def read(obj: Json) -> Managers:
    """The managers of an object; the entry `{}` that clients send to reset them is none."""
    managers: Managers = {}
    for entry in obj["metadata"].get("managedFields") or ():
        if not entry:
            continue
        if entry.get("operation") not in ("Apply", "Update"):
            raise bad_request(
                f"metadata.managedFields: operation {entry.get('operation')!r}: must be `Apply` or `Update`"
            )
        key = ManagerKey(
            entry.get("manager", ""), entry["operation"], entry.get("apiVersion", ""), entry.get("subresource", "")
        )
        fields = FieldSet.from_v1(entry.get("fieldsV1") or {})
        managers[key] = Managed(fields, entry.get("time", ""))
    return managers


def write(obj: Json, managers: Managers) -> None:
    """Put the managers into the object: appliers first, then by age, as the original sorts them."""
    entries = []
    order = sorted(managers.items(), key=lambda item: (item[0].operation, item[1].time, item[0].manager))
    for key, managed in order:
        if not managed.fields:
            continue
        entry: Json = {
            "manager": key.manager,
            "operation": key.operation,
            "apiVersion": key.api_version,
            "time": managed.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": managed.fields.to_v1(),
        }
        if key.subresource:
            entry["subresource"] = key.subresource
        entries.append(entry)
    if entries:
        obj["metadata"]["managedFields"] = entries
    else:
        obj["metadata"].pop("managedFields", None)


def tracked(fields: FieldSet) -> FieldSet:
    """The set without fields that the server owns."""
    children = dict(fields.children)
    metadata = children.pop("f:metadata", None)
    if metadata is not None:
        rest = FieldSet(
            metadata.members - _UNTRACKED_METADATA,
            {step: child for step, child in metadata.children.items() if step not in _UNTRACKED_METADATA},
        )
        if rest:
            children["f:metadata"] = rest
    return FieldSet(fields.members - {"f:apiVersion", "f:kind", "f:metadata"}, children)


def take_over(managers: Managers, comparison: Comparison, writer: ManagerKey) -> Managers:
    """The managers after everybody else lost what the writer changed or removed."""
    changed, removed = tracked(comparison.changed), tracked(comparison.removed)
    result: Managers = {}
    for key, managed in managers.items():
        fields = managed.fields
        if key != writer and changed:
            fields = fields.difference(changed)
        if removed:
            fields = fields.difference(removed)
        result[key] = managed if fields == managed.fields else replace(managed, fields=fields)
    return result


def record_update(new: Json, old: Json | None, resource: Resource, options: WriteOptions, subresource: str) -> None:
    """Give the writer of an update the fields that it changed."""
    if old is not None and not read(old) and not read(new):
        write(new, {})  # whoever reset the managers wants none until somebody applies
        return
    writer = ManagerKey(options.field_manager, "Update", resource.api_version, subresource)
    before_it = _without_managers(old) if old is not None else _nothing(new, resource)
    comparison = Comparison(before_it, _without_managers(new), resource.schema)
    managers = take_over(read(new), comparison, writer)
    before = managers.get(writer)
    own = before.fields if before is not None else FieldSet()
    own = own.union(tracked(comparison.changed))
    if before is None or own != before.fields:
        managers[writer] = Managed(own, timestamps.now())
    write(new, _limited(managers))


def before_first_apply(live: Json, resource: Resource) -> Managers:
    """Who owns a live object of which nobody knows who wrote it, when it is applied for the first time."""
    fields = tracked(Comparison(_nothing(live, resource), live, resource.schema).changed)
    return {ManagerKey("before-first-apply", "Update", resource.api_version, ""): Managed(fields, timestamps.now())}


def _nothing(obj: Json, resource: Resource) -> Json:
    return {} if resource.custom else _zero(obj)


# Structs that Go's types hold by value: an object without them has them all the same, so nobody makes them.
_STRUCTS = (
    *("spec", "status", "roleRef", "involvedObject", "source", "status.loadBalancer", "spec.strategy"),
    *("spec.template", "spec.template.metadata", "spec.template.spec", "spec.resources"),
    *("spec.containers", "spec.template.spec.containers"),
)


def _zero(obj: Json) -> Json:
    """The object of a built-in kind before anything of it was written."""
    empty: Json = {}
    for path in _STRUCTS:
        place, value = empty, obj
        for name in path.split("."):
            if name == "containers" and name in value:
                place[name] = []
            if not isinstance(value.get(name), dict):
                break
            place, value = place.setdefault(name, {}), value[name]
    return empty


def _without_managers(obj: Json) -> Json:
    """A view without the entry that would otherwise be compared with itself."""
    if "metadata" not in obj:
        return obj
    metadata = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    return {**obj, "metadata": metadata}


def _limited(managers: Managers) -> Managers:
    updaters = [key for key in managers if key.operation == "Update" and managers[key].fields]
    if len(updaters) <= _UPDATERS_LIMIT:
        return managers
    updaters.sort(key=lambda key: managers[key].time)
    for key in updaters[: len(updaters) - _UPDATERS_LIMIT + 1]:
        managed = managers.pop(key)
        merged = replace(key, manager=_ANCIENT)
        known = managers.get(merged)
        fields = managed.fields if known is None else known.fields.union(managed.fields)
        managers[merged] = Managed(fields, managed.time)
    return managers
