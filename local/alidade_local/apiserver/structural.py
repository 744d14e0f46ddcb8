"""Whether a CRD's schema is structural: typed everywhere, with keywords of the right shape and rules that compile."""

import re
from collections.abc import Iterator
from typing import Any

from alidade_local.apiserver.errors import FieldError, forbidden_field, invalid, not_supported, required
from alidade_local.apiserver.pruning import has_unknown
from alidade_local.apiserver.schema import Schema
from alidade_local.apiserver.validation import validate

Json = dict[str, Any]

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_TEXT = ("description", "format", "pattern", "title", "type", "x-kubernetes-list-type", "x-kubernetes-map-type")
_NUMBER = ("maximum", "minimum", "multipleOf")
_COUNT = ("maxItems", "maxLength", "maxProperties", "minItems", "minLength", "minProperties")
_FLAG = (
    "exclusiveMaximum",
    "exclusiveMinimum",
    "nullable",
    "uniqueItems",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
)
_NESTED = ("items", "not")
_LISTED = ("allOf", "anyOf", "oneOf")
_OTHER = (
    "additionalProperties",
    "default",
    "enum",
    "example",
    "externalDocs",
    "properties",
    "required",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
)
_FORBIDDEN = ("$ref", "$schema", "additionalItems", "definitions", "dependencies", "id", "patternProperties")
_KNOWN = frozenset((*_TEXT, *_NUMBER, *_COUNT, *_FLAG, *_NESTED, *_LISTED, *_OTHER))


def structural_errors(raw: Json, path: str) -> list[FieldError]:
    """What keeps the schema of a version from being structural."""
    errors: list[FieldError] = []
    _check(raw, path, errors, root=True)
    return errors or list(_default_errors(raw, path))


def _check(raw: Any, path: str, errors: list[FieldError], *, root: bool = False) -> None:
    if not isinstance(raw, dict):
        errors.append(invalid(path, raw, "must be a schema object"))
        return
    _check_keywords(raw, path, errors)
    _check_type(raw, path, errors, root=root)
    _check_list(raw, path, errors)
    if raw.get("x-kubernetes-validations"):
        _check_rules(raw["x-kubernetes-validations"], f"{path}.x-kubernetes-validations", errors)
    for name, below in (raw.get("properties") or {}).items():
        _check(below, f"{path}.properties[{name}]", errors)
    if isinstance(raw.get("items"), dict):
        _check(raw["items"], f"{path}.items", errors)
    extra = raw.get("additionalProperties")
    if isinstance(extra, dict):
        _check(extra, f"{path}.additionalProperties", errors)
        if raw.get("properties"):
            errors.append(forbidden_field(f"{path}.additionalProperties", "must not be set together with properties"))


def _check_rules(rules: list[Json], path: str, errors: list[FieldError]) -> None:
    from alidade_local.apiserver import cel_rules  # takes a third of a second to load; only schemas with rules need it

    for index, rule in enumerate(rules):
        errors.extend(cel_rules.compile_errors(rule, f"{path}[{index}]"))


def _check_keywords(raw: Json, path: str, errors: list[FieldError]) -> None:
    for name, value in raw.items():
        where = f"{path}.{name}"
        if name in _FORBIDDEN:
            errors.append(forbidden_field(where, f"{name} is not supported"))
        elif name not in _KNOWN:
            errors.append(invalid(where, value, "is no keyword of a structural schema"))
        elif not _has_shape(name, value):
            errors.append(invalid(where, value, "has the wrong type for this keyword"))
    if isinstance(raw.get("pattern"), str):
        try:
            re.compile(raw["pattern"])
        except re.error as error:
            errors.append(invalid(f"{path}.pattern", raw["pattern"], f"must be a valid regular expression: {error}"))


def _has_shape(name: str, value: Any) -> bool:
    if name in _TEXT:
        return isinstance(value, str)
    if name in _FLAG:
        return isinstance(value, bool)
    if name in _NUMBER:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if name in _COUNT:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if name in ("required", "x-kubernetes-list-map-keys"):
        return isinstance(value, list) and all(isinstance(item, str) for item in value)
    if name in ("enum", *_LISTED, "x-kubernetes-validations"):
        return isinstance(value, list)
    if name in ("properties", *_NESTED):
        return isinstance(value, dict)
    return True


def _check_type(raw: Json, path: str, errors: list[FieldError], *, root: bool) -> None:
    kind = raw.get("type")
    if kind is not None and kind not in _TYPES:
        errors.append(not_supported(f"{path}.type", kind, _TYPES))
    free = raw.get("x-kubernetes-int-or-string") or raw.get("x-kubernetes-preserve-unknown-fields")
    if not kind and (root or not free):
        errors.append(
            required(f"{path}.type", "must not be empty for specified " + ("object fields" if not root else "root"))
        )
    if root and kind not in (None, "object"):
        errors.append(invalid(f"{path}.type", kind, "must be object at the root"))
    if raw.get("x-kubernetes-embedded-resource") and kind != "object":
        errors.append(invalid(f"{path}.type", kind or "", "must be object if x-kubernetes-embedded-resource is true"))
    if raw.get("x-kubernetes-int-or-string") and kind:
        errors.append(invalid(f"{path}.type", kind, "must be empty if x-kubernetes-int-or-string is true"))


def _check_list(raw: Json, path: str, errors: list[FieldError]) -> None:
    if raw.get("type") == "array" and not isinstance(raw.get("items"), dict):
        errors.append(required(f"{path}.items", "must be specified"))
    list_type = raw.get("x-kubernetes-list-type")
    if list_type not in (None, "atomic", "map", "set"):
        errors.append(not_supported(f"{path}.x-kubernetes-list-type", list_type, ("atomic", "map", "set")))
    if raw.get("uniqueItems"):
        errors.append(
            forbidden_field(
                f"{path}.uniqueItems",
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            )
        )
    keys = raw.get("x-kubernetes-list-map-keys") or []
    if list_type == "map" and not keys:
        errors.append(
            required(f"{path}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map")
        )
    items = raw.get("items")
    if list_type == "map" and isinstance(items, dict):
        for index, key in enumerate(keys):
            if key not in (items.get("properties") or {}):
                errors.append(
                    invalid(
                        f"{path}.x-kubernetes-list-map-keys[{index}]",
                        key,
                        "entries must all be names of item properties",
                    )
                )
            elif key not in (items.get("required") or ()) and "default" not in items["properties"][key]:
                errors.append(
                    required(
                        f"{path}.items.properties[{key}].default",
                        "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required "
                        "property",
                    )
                )


def _default_errors(raw: Json, path: str) -> Iterator[FieldError]:
    """What is wrong with defaults as they stand: as in the original, nothing inside them is filled in before."""
    if raw.get("default") is not None:
        yield from _errors_of(raw["default"], Schema(raw), f"{path}.default")
    if isinstance(raw.get("items"), dict):
        yield from _default_errors(raw["items"], f"{path}.items")
    for name, below in (raw.get("properties") or {}).items():
        yield from _default_errors(below, f"{path}.properties[{name}]")


def _errors_of(default: Any, schema: Schema, path: str) -> list[FieldError]:
    if isinstance(default, dict | list) and has_unknown(default, schema):
        return [invalid(path, default, "must not have unknown fields")]
    errors = validate(default, schema, path)
    if errors or not schema.has_rules:
        return errors
    from alidade_local.apiserver import cel_rules

    return cel_rules.check_default(default, schema, path)
