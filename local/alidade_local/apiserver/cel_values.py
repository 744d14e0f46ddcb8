"""Objects as CEL rules see them: typed by their schema, with field names that are identifiers."""

import base64
import binascii
import re
from datetime import timedelta
from functools import lru_cache
from typing import Any

from alidade_local.apiserver import timestamps
from alidade_local.apiserver.schema import Schema

_RESERVED = frozenset(
    (
        *("as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let", "loop"),
        *("namespace", "null", "package", "return", "true", "var", "void", "while"),
    )
)
_SPECIAL_FORMATS = ("date-time", "duration", "byte")
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


@lru_cache(maxsize=4096)
def escaped(name: str) -> str:
    """A field name as CEL rules write it (`__namespace__`, `a__dash__b`)."""
    if name in _RESERVED:
        return f"__{name}__"
    return (
        name.replace("__", "__underscores__").replace(".", "__dot__").replace("-", "__dash__").replace("/", "__slash__")
    )


def is_plain(schema: Schema) -> bool:
    """Whether values of this schema are the same for CEL as in JSON."""
    known = schema.notes.get("plain for CEL")
    if known is None:
        known = schema.notes["plain for CEL"] = _decide_plain(schema)
    return known


def _decide_plain(schema: Schema) -> bool:
    if schema.type == "number" or schema.raw.get("format") in _SPECIAL_FORMATS or schema.preserves_unknown:
        return False
    if any(escaped(name) != name or child.nullable for name, child in schema.properties.items()):
        return False
    parts = (*schema.properties.values(), schema.additional, schema.items)
    return all(part is None or is_plain(part) for part in parts)


def cel_value(value: Any, schema: Schema) -> Any:
    """The value for CEL: fields unknown to the schema are hidden, null fields absent, numbers doubles."""
    if is_plain(schema):
        return value
    if isinstance(value, dict):
        return _fields(value, schema)
    if isinstance(value, list):
        items = schema.items
        return value if items is None else [cel_value(item, items) for item in value]
    if schema.type == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str):
        return _text(value, schema.raw.get("format", ""))
    return value


def _fields(value: dict[str, Any], schema: Schema) -> dict[str, Any]:
    if schema.additional is not None and not schema.properties:
        return {name: cel_value(item, schema.additional) for name, item in value.items()}
    result = {
        escaped(name): cel_value(value[name], child)
        for name, child in schema.properties.items()
        if value.get(name) is not None
    }
    if schema.embedded_resource:
        result |= {name: value[name] for name in ("apiVersion", "kind", "metadata") if name in value}
    return result


def _text(value: str, form: str) -> Any:
    try:
        if form == "date-time":
            return timestamps.parsed(value)
        if form == "duration":
            return _duration(value)
        if form == "byte":
            return base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        return value  # refused by validation; rules see it as it is
    return value


def _duration(text: str) -> timedelta:
    body = text.lstrip("+-")
    if body == "0":
        return timedelta()
    if not body or _DURATION.sub("", body):
        raise ValueError(text)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(body))
    return timedelta(seconds=-seconds if text.startswith("-") else seconds)
