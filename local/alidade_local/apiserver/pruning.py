"""Fields that a schema does not know: found, named, and dropped."""

from typing import Any

from alidade_local.apiserver.encoding import copy_json
from alidade_local.apiserver.schema import Schema, object_meta

Json = dict[str, Any]

_META = Schema(object_meta())
_TYPE_META = ("apiVersion", "kind", "metadata")


def prune(obj: Json, schema: Schema) -> list[str]:
    """Drop unknown fields of a whole object in place; returns their paths, as `spec.containers[0].foo`."""
    unknown: list[str] = []
    _prune_members(obj, schema, "", unknown, keep=_TYPE_META)
    metadata = obj.get("metadata")
    if isinstance(metadata, dict):
        _prune_members(metadata, _META, "metadata", unknown, keep=())
    return unknown


def has_unknown(value: Any, schema: Schema) -> bool:
    """Whether there are unknown fields in a part of an object."""
    unknown: list[str] = []
    _prune(copy_json(value), schema, "", unknown)
    return bool(unknown)


def drop_empty(value: Json, schema: Schema) -> None:
    """Drop lists and maps without content, which Go's types do not write; structs stay: `emptyDir: {}` says a lot."""
    for name, child in schema.properties.items():
        item = value.get(name)
        if isinstance(item, list):
            if not item and name not in schema.required:
                del value[name]
            elif child.items is not None:
                for element in item:
                    if isinstance(element, dict):
                        drop_empty(element, child.items)
        elif isinstance(item, dict):
            if not item and child.additional is not None and name not in schema.required:
                del value[name]
            else:
                drop_empty(item, child)


def _prune(value: Any, schema: Schema, path: str, unknown: list[str]) -> None:
    if isinstance(value, dict):
        if schema.embedded_resource:
            _prune_members(value, schema, path, unknown, keep=_TYPE_META)
        elif schema.properties or schema.additional is not None or not schema.is_open:
            _prune_members(value, schema, path, unknown, keep=())
    elif isinstance(value, list) and schema.items is not None:
        items = schema.items
        for index, item in enumerate(value):
            if isinstance(item, dict | list):
                _prune(item, items, f"{path}[{index}]", unknown)


def _prune_members(value: Json, schema: Schema, path: str, unknown: list[str], *, keep: tuple[str, ...]) -> None:
    if schema.additional is not None and not schema.properties:
        for key, item in value.items():
            if isinstance(item, dict | list):
                _prune(item, schema.additional, f"{path}.{key}" if path else key, unknown)
        return
    open_here = schema.preserves_unknown or (schema.is_open and not schema.properties)
    for key in list(value):
        if key in keep:
            continue
        child = schema.properties.get(key)
        here = f"{path}.{key}" if path else key
        if child is not None:
            if isinstance(value[key], dict | list):
                _prune(value[key], child, here, unknown)
        elif not open_here:
            unknown.append(here)
            del value[key]
