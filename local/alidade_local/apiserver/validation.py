"""Structural schemas applied to values, with the messages of kube-apiserver."""

import base64
import binascii
import ipaddress
import json
import math
import re
from collections.abc import Callable, Iterable
from datetime import date, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from alidade_local.apiserver.errors import (
    FieldError,
    duplicate,
    invalid,
    not_supported,
    required,
    shown,
    too_long,
    too_many,
    type_invalid,
)
from alidade_local.apiserver.schema import Schema

Json = dict[str, Any]


_NO_OLD = object()
_COMBINATIONS = frozenset(("allOf", "anyOf", "oneOf", "not"))


def validate(value: Any, schema: Schema, path: str = "", old: Any = _NO_OLD) -> list[FieldError]:
    """Every violation of the schema below a value.

    What is equal to the old value is not looked at again, so that a schema may become stricter without blocking
    updates of objects that were good before (validation ratcheting).
    """
    errors: list[FieldError] = []
    _check(value, schema, path, errors, old)
    return errors


def json_type(value: Any) -> str:
    """The value's JSON schema type; whole floats are integers, as for the original."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list):
        return "array"
    return "null" if value is None else "object"


def _body(path: str) -> str:
    return f"{path} in body" if path else "in body"


def _check(value: Any, schema: Schema, path: str, errors: list[FieldError], old: Any = _NO_OLD) -> None:
    if (value is None and schema.nullable) or (old is not _NO_OLD and value == old):
        return
    if not _check_type(value, schema, path, errors):
        return
    raw = schema.raw
    if "enum" in raw and not any(_same(value, choice) for choice in raw["enum"]):
        errors.append(not_supported(path, value, raw["enum"]))
    if isinstance(value, str):
        _check_string(value, schema, path, errors)
    elif isinstance(value, bool):
        pass
    elif isinstance(value, int | float):
        _check_number(value, raw, path, errors)
    elif isinstance(value, list):
        _check_list(value, schema, path, errors, old)
    elif isinstance(value, dict):
        _check_object(value, schema, path, errors, old)
    if not _COMBINATIONS.isdisjoint(raw):
        _check_combinations(value, raw, path, errors)


def _check_type(value: Any, schema: Schema, path: str, errors: list[FieldError]) -> bool:
    found = json_type(value)
    if schema.int_or_string:
        if found in ("integer", "string"):
            return True
        wanted = "integer,string"
    else:
        wanted = schema.type
        if not wanted or found == wanted or (wanted == "number" and found == "integer"):
            return True
    errors.append(type_invalid(path, found, f"{_body(path)} must be of type {wanted}: {shown(found)}"))
    return False


def _same(value: Any, choice: Any) -> bool:
    return value == choice and isinstance(value, bool) is isinstance(choice, bool)


@lru_cache(maxsize=2048)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text.replace("\\z", "\\Z"))


def _check_string(value: str, schema: Schema, path: str, errors: list[FieldError]) -> None:
    raw = schema.raw
    if len(value) > raw.get("maxLength", math.inf):
        errors.append(too_long(path, raw["maxLength"]))
    if len(value) < raw.get("minLength", 0):
        errors.append(invalid(path, value, f"{_body(path)} should be at least {raw['minLength']} chars long"))
    if "pattern" in raw and not _pattern(raw["pattern"]).search(value):
        errors.append(invalid(path, value, f"{_body(path)} should match '{raw['pattern']}'"))
    check = FORMATS.get(raw.get("format", ""))
    if check is not None and not check(value):
        errors.append(type_invalid(path, value, f"{_body(path)} must be of type {raw['format']}: {shown(value)}"))


def _check_number(value: float, raw: Json, path: str, errors: list[FieldError]) -> None:
    if "minimum" in raw:
        low, exclusive = raw["minimum"], raw.get("exclusiveMinimum") is True
        if value < low or (exclusive and value == low):
            how = "greater than" if exclusive else "greater than or equal to"
            errors.append(invalid(path, value, f"{_body(path)} should be {how} {low}"))
    if "maximum" in raw:
        high, exclusive = raw["maximum"], raw.get("exclusiveMaximum") is True
        if value > high or (exclusive and value == high):
            how = "less than" if exclusive else "less than or equal to"
            errors.append(invalid(path, value, f"{_body(path)} should be {how} {high}"))
    step = raw.get("multipleOf")
    if step and not math.isclose(value / step, round(value / step), rel_tol=0, abs_tol=1e-9):
        errors.append(invalid(path, value, f"{_body(path)} should be a multiple of {step}"))
    bits = {"int32": 31, "int64": 63}.get(raw.get("format", ""))
    if bits is not None and not -(2**bits) <= value < 2**bits:
        errors.append(invalid(path, value, f"{_body(path)} should be a {raw['format']} integer"))


def _check_list(value: list[Any], schema: Schema, path: str, errors: list[FieldError], old: Any) -> None:
    raw = schema.raw
    if len(value) > raw.get("maxItems", math.inf):
        errors.append(too_many(path, len(value), raw["maxItems"]))
    if len(value) < raw.get("minItems", 0):
        errors.append(invalid(path, len(value), f"{_body(path)} should have at least {raw['minItems']} items"))
    if schema.items is not None:
        known = _by_keys(old, schema)
        for index, item in enumerate(value):
            _check(item, schema.items, f"{path}[{index}]", errors, known.get(_keys(item, schema), _NO_OLD))
    _check_list_identity(value, schema, path, errors)


def _keys(item: Any, schema: Schema) -> str | None:
    if schema.list_type != "map" or not isinstance(item, dict):
        return None
    return _identity({key: item.get(key) for key in schema.list_keys})


def _by_keys(old: Any, schema: Schema) -> dict[str | None, Any]:
    """Old items by their keys; items of other lists than map lists have no identity, and so no past."""
    if schema.list_type != "map" or not isinstance(old, list):
        return {}
    return {_keys(item, schema): item for item in old}


def _check_list_identity(value: list[Any], schema: Schema, path: str, errors: list[FieldError]) -> None:
    if schema.list_type == "atomic":
        if schema.raw.get("uniqueItems") and len({_identity(item) for item in value}) < len(value):
            errors.append(invalid(path, value, f"{_body(path)} shouldn't contain duplicates"))
        return
    seen: set[str] = set()
    for index, item in enumerate(value):
        shown_item: Any = item
        if schema.list_type == "map":
            if not isinstance(item, dict):
                continue
            shown_item = {key: item.get(key) for key in schema.list_keys}
        identity = _identity(shown_item)
        if identity in seen:
            errors.append(duplicate(f"{path}[{index}]", shown_item))
        seen.add(identity)


def _identity(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _check_object(value: Json, schema: Schema, path: str, errors: list[FieldError], old: Any) -> None:
    raw = schema.raw
    if len(value) > raw.get("maxProperties", math.inf):
        errors.append(too_many(path, len(value), raw["maxProperties"]))
    if len(value) < raw.get("minProperties", 0):
        errors.append(invalid(path, value, f"{_body(path)} should have at least {raw['minProperties']} properties"))
    for name in raw.get("required") or ():
        if name not in value:
            errors.append(required(f"{path}.{name}" if path else name))
    if schema.embedded_resource:
        errors.extend(
            required(f"{path}.{name}", "must not be empty") for name in ("apiVersion", "kind") if not value.get(name)
        )
    properties, additional = schema.properties, schema.additional
    before = old if isinstance(old, dict) else {}
    for name, item in value.items():
        child = properties.get(name, additional)
        if child is not None:
            _check(item, child, f"{path}.{name}" if path else name, errors, before.get(name, _NO_OLD))


def _check_combinations(value: Any, raw: Json, path: str, errors: list[FieldError]) -> None:
    where = shown(path)
    for part in raw.get("allOf") or ():
        found = _value_errors(value, part, path)
        if found:
            errors.append(invalid(path, _outline(value), f"{where} must validate all the schemas (allOf)"))
            errors.extend(found)
    if raw.get("anyOf") and not _any(value, raw["anyOf"], path):
        errors.append(invalid(path, _outline(value), f"{where} must validate at least one schema (anyOf)"))
    if raw.get("oneOf"):
        count = sum(not _value_errors(value, part, path) for part in raw["oneOf"])
        if count != 1:
            found_text = "Found none valid" if count == 0 else f"Found {count} valid alternatives"
            errors.append(
                invalid(path, _outline(value), f"{where} must validate one and only one schema (oneOf). {found_text}")
            )
    if raw.get("not") is not None and not _value_errors(value, raw["not"], path):
        errors.append(invalid(path, _outline(value), f"{where} must not validate the schema (not)"))


def _any(value: Any, parts: Iterable[Json], path: str) -> bool:
    return any(not _value_errors(value, part, path) for part in parts)


def _value_errors(value: Any, part: Json, path: str) -> list[FieldError]:
    return validate(value, Schema(part), path)


def _outline(value: Any) -> Any:
    return value if not isinstance(value, dict | list) else json_type(value)


def _parses(parse: Callable[[str], Any]) -> Callable[[str], bool]:
    def check(text: str) -> bool:
        try:
            parse(text)
        except (ValueError, binascii.Error):
            return False
        return True

    return check


def _date_time(text: str) -> None:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})", text):
        raise ValueError(text)
    datetime.fromisoformat(re.sub(r"\.\d+", "", text).upper().replace("Z", "+00:00"))


def _matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda text: compiled.fullmatch(text) is not None


def _is_uri(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme) or text.startswith("/")


FORMATS: dict[str, Callable[[str], bool]] = {
    "date-time": _parses(_date_time),
    "datetime": _parses(_date_time),
    "date": _parses(date.fromisoformat),
    "duration": _matches(r"[-+]?(0|((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h|d|w))+)"),
    "uuid": _parses(UUID),
    "uri": _is_uri,
    "byte": _parses(lambda text: base64.b64decode(text, validate=True)),
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "cidr": _parses(lambda text: ipaddress.ip_network(text, strict=False)),
    "email": _matches(r"[^@\s]+@[^@\s]+"),
    "hostname": _matches(
        r"(?=.{1,253}$)([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*"
    ),
    "mac": _matches(r"([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}"),
    "int64": lambda _: True,
}
