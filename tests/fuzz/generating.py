"""Values for JSON schemas, and values that are nearly or not at all right, all drawn from one source of random numbers.

The source is `random.Random(seed)`, so that a number repeats a case, or hypothesis's own, which then makes it smaller.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

Json = dict[str, Any]

# Texts that somebody could mean; a place takes one that its pattern and lengths allow.
_WORDS = (
    "a", "data", "train.json", "x.y-2", "16", "500m", "2Gi", "7B", "f" * 64, "HF_TOKEN", "org/model", "hooks:run",
    "pvc://data/train.json", "pvc://alidade-workspace/x", "hf://org/model@main", "s3://bucket/key", "arena://demo",
    "configmap://data/k", "https://models.example/v1", "2026-11-26T12:00:00Z", "chatml", "auto", "model.layers.*",
    "{{ messages[0]['content'] }}", "überall 你好", "",
)  # fmt: skip
_TEXTS = (
    "../../../etc/passwd", "file:///proc/self/environ", "pvc://data/../../x", "http://169.254.169.254/latest/meta-data",
    "http://0x7f.1/", "https://user:secret@models.example/", "gopher://x", "pvc://", "://", "#sha256=", "-", ".", "..",
    "x\r\nX-Injected: 1", '\n{"level":"critical"}', "\x1b]0;title\x07", "\x00", "\u202egnp.exe", "\ud800", "%00",
    "{{ ''.__class__.__mro__ }}", "{% for i in range(10**9) %}{% endfor %}", "${jndi:ldap://x}", "$(reboot)", "`id`",
    "<script>alert(1)</script>", "' OR 1=1 --", "~", "null", "!!python/object/apply:os.system [id]", "&a [*a,*a]",
    "A" * 5000, "9" * 400,
)  # fmt: skip
_NUMBERS = (0, -1, 1, 2**31, 2**63, -(2**63) - 1, 10**400, 1e308, 1e-320, 1e999, float("nan"), 0.1)
_UNBOUNDED = 3
"""Most items where a schema names no limit; more would only be more of the same."""


@dataclass(frozen=True)
class Place:
    """Where a value stands: holder[key], and the schema of it."""

    holder: Any
    key: Any
    schema: Json


class Generator:
    """Draws values. definitions: what `$ref`s of the schemas point to."""

    def __init__(self, random: Random, definitions: Json | None = None) -> None:
        self.random = random
        self._definitions = definitions or {}

    def value(self, schema: Json) -> Any:
        """A value that the schema's keywords allow; rules among fields may not."""
        schema = self._resolved(schema)
        if "const" in schema or "enum" in schema:
            return self.random.choice(schema.get("enum") or [schema["const"]])
        kind = schema.get("type", "object" if "properties" in schema else None)
        if kind == "object":
            return self._object(schema)
        if kind == "array":
            low = schema.get("minItems", 0)
            most = min(schema.get("maxItems", _UNBOUNDED), low + _UNBOUNDED)
            return [self.value(schema.get("items", {})) for _ in range(self.random.randint(low, most))]
        if kind in ("integer", "number"):
            return self._number(schema, whole=kind == "integer")
        if kind == "string":
            return self._text(schema)
        if kind == "boolean":
            return self.random.random() < 0.5
        return self.anything()

    def anything(self) -> Any:
        """A value of any type, mostly an evil one."""
        kinds: tuple[Any, ...] = (
            self.random.choice(_TEXTS), self.random.choice(_NUMBERS), True, None, [], {}, [[]], {"a": {"b": [None]}},
            [self.random.choice(_TEXTS)] * 3,
        )  # fmt: skip
        return copy.deepcopy(self.random.choice(kinds))

    def places(self, holder: Any, key: Any, schema: Json) -> Iterator[Place]:
        """The places at and below holder[key], with what stands there."""
        schema, value = self._resolved(schema), holder[key]
        yield Place(holder, key, schema)
        if isinstance(value, dict):
            for name in list(value):
                below = schema.get("properties", {}).get(name) or schema.get("additionalProperties") or {}
                yield from self.places(value, name, below if isinstance(below, dict) else {})
        elif isinstance(value, list):
            for index in range(len(value)):
                yield from self.places(value, index, schema.get("items", {}))

    def vary(self, holder: Any, key: Any, schema: Json) -> None:
        """Gives an optional field that is not set a value, or a set one another; the schema still allows it."""
        places = list(self.places(holder, key, schema))
        objects = [one for one in places if isinstance(one.holder[one.key], dict) and one.schema.get("properties")]
        place = self.random.choice(objects)
        name = self.random.choice(sorted(place.schema["properties"]))
        place.holder[place.key][name] = self.value(place.schema["properties"][name])

    def damage(self, holder: Any, key: Any, schema: Json) -> None:
        """Puts one place out of its schema: something else, something just beyond, nothing, or something unknown."""
        place = self.random.choice(list(self.places(holder, key, schema)))
        value = place.holder[place.key]
        way = self.random.randrange(5)
        if way == 0 and isinstance(place.holder, dict) and place.holder is not holder:
            del place.holder[place.key]
        elif way == 1 and isinstance(value, dict):
            value[self.random.choice(("unknown", "", "__proto__", "a" * 300, "nodepool"))] = self.anything()
        elif way == 2 and isinstance(value, list):
            value *= 200
        elif way == 3:
            place.holder[place.key] = self._just_beyond(place.schema, value)
        else:
            place.holder[place.key] = self.anything()

    def _just_beyond(self, schema: Json, value: Any) -> Any:
        if "maximum" in schema or "minimum" in schema:
            return self.random.choice((schema.get("minimum", 0) - 1, schema.get("maximum", 2**53) + 1))
        if isinstance(value, str):
            return self.random.choice((value.upper(), f"{value} ", value * (schema.get("maxLength", 9) + 1)))
        return [value]

    def _resolved(self, schema: Json) -> Json:
        while True:
            if "$ref" in schema:
                schema = self._definitions[schema["$ref"].rpartition("/")[2]]
            elif "anyOf" in schema:
                schema = self.random.choice(schema["anyOf"])
            else:
                return schema

    def _object(self, schema: Json) -> Json:
        known, needed = schema.get("properties", {}), schema.get("required", [])
        made = {name: self.value(one) for name, one in known.items() if name in needed or self.random.random() < 0.3}
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict) and not known:
            made |= {self.random.choice(_WORDS[:8]): self.value(extra) for _ in range(self.random.randrange(3))}
        return made

    def _number(self, schema: Json, *, whole: bool) -> Any:
        low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        high = schema.get("maximum", schema.get("exclusiveMaximum", 2**31))
        low = low if not isinstance(low, bool) else schema["minimum"]
        if whole:
            return self.random.choice((low, min(high, low + 1), self.random.randint(low, high)))
        return self.random.choice((low + (high - low) * 1e-3, low + (high - low) * self.random.random()))

    def _text(self, schema: Json) -> str:
        if schema.get("format") == "date-time":
            return "2026-11-26T12:00:00Z"
        pattern, low, high = schema.get("pattern", ""), schema.get("minLength", 0), schema.get("maxLength", 2**20)
        fitting = [word for word in _WORDS if low <= len(word) <= high and re.search(pattern, word)]
        return self.random.choice(fitting) if fitting else "a" * low
