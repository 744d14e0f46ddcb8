"""Defaults and nulls of structural schemas."""

from typing import Any

from alidade_local.apiserver.encoding import copy_json
from alidade_local.apiserver.schema import Schema

Json = dict[str, Any]


def apply_defaults(value: Any, schema: Schema) -> None:
    """Fill in absent fields that have a default, in place; a null where null is no value counts as absent."""
    if isinstance(value, dict):
        _default_members(value, schema)
    elif isinstance(value, list) and schema.items is not None:
        for item in value:
            if isinstance(item, dict | list):
                apply_defaults(item, schema.items)


def _default_members(value: Json, schema: Schema) -> None:
    for name, child in schema.properties.items():
        if value.get(name) is None and (name not in value or not child.nullable):
            if "default" in child.raw:
                value[name] = copy_json(child.raw["default"])
            elif name in value:
                del value[name]
        item = value.get(name)
        if isinstance(item, dict | list):
            apply_defaults(item, child)
    if schema.additional is not None:
        default = schema.additional.raw.get("default")
        for name, item in value.items():
            if name in schema.properties:
                continue
            if item is None and default is not None and not schema.additional.nullable:
                value[name] = copy_json(default)
            elif isinstance(item, dict | list):
                apply_defaults(item, schema.additional)
