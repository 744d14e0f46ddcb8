"""Types of the fields that Go structs hold: those of built-in kinds, and metadata of every kind."""

import re
from typing import Any

from alidade_local.apiserver.errors import ApiError, bad_request
from alidade_local.apiserver.resources import Resource
from alidade_local.apiserver.schema import Schema, object_meta
from alidade_local.apiserver.validation import FORMATS, json_type
from alidade_local.quantities import parse_quantity

Json = dict[str, Any]

_GO_NAMES = {"integer": "int32", "boolean": "bool", "array": "[]", "object": "struct"}
_FOUND_NAMES = {"boolean": "bool", "integer": "number"}
_QUANTITY = re.compile(r"[+-]?[0-9.]+")
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
        raise _undecodable(
            resource,
            f"json: cannot unmarshal {_FOUND_NAMES.get(found, found)} into Go struct field {resource.kind}.{path} of "
            f"type {wanted or _GO_NAMES.get(schema.type, schema.type)}",
        )
    if isinstance(value, str) and "format" in schema.raw:
        _check_format(value, schema.raw["format"], resource)
    if isinstance(value, dict):
        _check_members(value, schema, path, resource)
    elif isinstance(value, list) and schema.items is not None:
        for item in value:
            _check(item, schema.items, path, resource)


def _undecodable(resource: Resource, why: str) -> ApiError:
    return bad_request(f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {why}')


def _check_format(value: str, form: str, resource: Resource) -> None:
    if form == "date-time" and not FORMATS["date-time"](value):
        raise _undecodable(resource, f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse "{value}"')
    if form == "byte" and not FORMATS["byte"](value):
        raise _undecodable(resource, "illegal base64 data")


def _is_quantity(schema: Schema) -> bool:
    choices = schema.raw.get("oneOf") or ()
    return any("number" in choice.get("type", ()) for choice in choices)


def _quantity(value: Any, resource: Resource) -> str:
    """The quantity as text: numbers are allowed in manifests, and stored as the text that they are written as."""
    text = str(value)
    try:
        if isinstance(value, bool) or not _QUANTITY.match(text):
            raise ValueError(text)
        parse_quantity(text)
    except ValueError:
        raise _undecodable(
            resource, "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        ) from None
    return text


def _check_members(value: Json, schema: Schema, path: str, resource: Resource) -> None:
    for name in list(value):
        child = schema.field(name)
        if child is None:
            continue
        if value[name] is None and not child.is_open:
            del value[name]
        elif _is_quantity(child):
            value[name] = _quantity(value[name], resource)
        else:
            _check(value[name], child, f"{path}.{name}" if path else name, resource)


def _fits(value: Any, schema: Schema) -> bool:
    wanted = schema.type
    if value is None or not wanted or schema.int_or_string:
        return True
    found = json_type(value)
    return found == wanted or (wanted == "number" and found == "integer")
