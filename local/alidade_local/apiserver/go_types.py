"""Types of the fields that Go structs hold: those of built-in kinds, and metadata of every kind."""

from typing import Any

from alidade_local.apiserver.errors import bad_request
from alidade_local.apiserver.resources import Resource
from alidade_local.apiserver.schema import Schema, object_meta
from alidade_local.apiserver.validation import json_type

Json = dict[str, Any]

_GO_NAMES = {"integer": "int32", "boolean": "bool", "array": "[]", "object": "struct"}
_FOUND_NAMES = {"boolean": "bool", "integer": "number"}


_META = Schema({"type": "object", "properties": {"metadata": object_meta()}})


def check_types(obj: Json, resource: Resource) -> None:
    """Refuse values that fields of Go structs cannot hold, in the words of the original's decoder.

    Nulls are dropped, as Go's zero values are.
    """
    _check(obj, _META if resource.custom else resource.schema, "", resource)


def _check(value: Any, schema: Schema, path: str, resource: Resource) -> None:
    if not _fits(value, schema):
        found = json_type(value)
        wanted = schema.raw.get("format") if schema.type == "integer" else None
        raise bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: json: cannot '
            f"unmarshal {_FOUND_NAMES.get(found, found)} into Go struct field {resource.kind}.{path} of type "
            f"{wanted or _GO_NAMES.get(schema.type, schema.type)}"
        )
    if isinstance(value, dict):
        _check_members(value, schema, path, resource)
    elif isinstance(value, list) and schema.items is not None:
        for item in value:
            _check(item, schema.items, path, resource)


def _check_members(value: Json, schema: Schema, path: str, resource: Resource) -> None:
    for name in list(value):
        child = schema.field(name)
        if child is None:
            continue
        if value[name] is None and not child.is_open:
            del value[name]
        else:
            _check(value[name], child, f"{path}.{name}" if path else name, resource)


def _fits(value: Any, schema: Schema) -> bool:
    wanted = schema.type
    if value is None or not wanted or schema.int_or_string:
        return True
    found = json_type(value)
    return found == wanted or (wanted == "number" and found == "integer")
