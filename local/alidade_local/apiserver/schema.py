"""One typed view on both kinds of schema: the OpenAPI definitions of built-in kinds and the structural ones of CRDs.

Everything that has to know what a field is (strict decoding, pruning, defaulting, validation, strategic merge,
server-side apply, `kubectl explain`) asks the same object.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

Json = dict[str, Any]

_REF = "#/$defs/"


class Schema:
    """The schema of one value; its parts are built when first asked for, because built-in kinds refer in circles."""

    def __init__(self, raw: Json, definitions: "Definitions | None" = None) -> None:
        self.raw = raw
        self._definitions = definitions
        self.notes: dict[str, bool] = {}
        """What others found out about this schema and need not find out again."""

    def _child(self, raw: Json) -> "Schema":
        if self._definitions is not None and "$ref" in raw:
            return self._definitions.field(raw)
        return Schema(raw, self._definitions)

    @cached_property
    def type(self) -> str:
        """`object`, `array`, `string`, `integer`, `number`, `boolean`, or "" where anything goes."""
        declared = self.raw.get("type", "")
        if isinstance(declared, list):
            return next((item for item in declared if item != "null"), "")
        return str(declared)

    @cached_property
    def nullable(self) -> bool:
        """Whether null is a value of its own here."""
        return bool(self.raw.get("nullable"))

    @cached_property
    def int_or_string(self) -> bool:
        """Whether both an integer and a string are good."""
        return bool(self.raw.get("x-kubernetes-int-or-string")) or self.raw.get("format") == "int-or-string"

    @cached_property
    def preserves_unknown(self) -> bool:
        """Whether fields that are not named here are kept."""
        return bool(self.raw.get("x-kubernetes-preserve-unknown-fields"))

    @cached_property
    def embedded_resource(self) -> bool:
        """Whether the value is a Kubernetes object with apiVersion, kind and metadata of its own."""
        return bool(self.raw.get("x-kubernetes-embedded-resource"))

    @cached_property
    def properties(self) -> dict[str, "Schema"]:
        """Named fields."""
        return {name: self._child(raw) for name, raw in (self.raw.get("properties") or {}).items()}

    @cached_property
    def additional(self) -> "Schema | None":
        """Schema of a map's values, when the object is a map."""
        extra = self.raw.get("additionalProperties")
        if isinstance(extra, Mapping):
            return self._child(dict(extra))
        return Schema({}) if extra is True else None

    @cached_property
    def items(self) -> "Schema | None":
        """Schema of a list's items."""
        raw = self.raw.get("items")
        return self._child(raw) if isinstance(raw, dict) else None

    @cached_property
    def is_open(self) -> bool:
        """Whether any value is accepted unseen: no type, or an object of a built-in kind whose fields nobody names."""
        if self.preserves_unknown:
            return True
        if self.type == "object":
            return not self.properties and self.additional is None and self._definitions is not None
        return not self.type and not self.int_or_string

    @cached_property
    def list_type(self) -> str:
        """`atomic`, `set` or `map`: how lists merge."""
        return str(self.raw.get("x-kubernetes-list-type", "atomic"))

    @cached_property
    def list_keys(self) -> tuple[str, ...]:
        """Fields that identify an item of a map list."""
        return tuple(self.raw.get("x-kubernetes-list-map-keys", ()))

    @cached_property
    def atomic(self) -> bool:
        """Whether a map or struct has one owner as a whole."""
        return self.raw.get("x-kubernetes-map-type") == "atomic"

    @cached_property
    def merge_key(self) -> str:
        """Key by which strategic merge patch pairs items; empty when lists are replaced or are lists of scalars."""
        return str(self.raw.get("x-kubernetes-patch-merge-key", ""))

    @cached_property
    def merge_strategies(self) -> frozenset[str]:
        """Strategic merge patch strategies: `merge`, `replace`, `retainKeys`."""
        return frozenset(str(self.raw.get("x-kubernetes-patch-strategy", "")).split(",")) - {""}

    def field(self, name: str) -> "Schema | None":
        """Schema of one member of an object, or nothing when it is unknown here."""
        return self.properties.get(name) or self.additional

    @cached_property
    def required(self) -> frozenset[str]:
        """Members that an object must have."""
        return frozenset(self.raw.get("required") or ())

    @cached_property
    def has_defaults(self) -> bool:
        """Whether a default is declared anywhere below (CRDs only: built-in kinds are defaulted by their rules)."""
        if self._definitions is not None:
            return False
        return self._below("default", "has_defaults")

    @cached_property
    def has_rules(self) -> bool:
        """Whether a CEL rule is declared anywhere below."""
        return self._definitions is None and self._below("x-kubernetes-validations", "has_rules")

    def _below(self, key: str, attribute: str) -> bool:
        children = [*self.properties.values(), self.additional, self.items]
        return key in self.raw or any(child is not None and getattr(child, attribute) for child in children)


class Definitions:
    """Named schemas that refer to one another."""

    def __init__(self, raw: Mapping[str, Json]) -> None:
        self.raw = raw
        self._built: dict[str, Schema] = {}

    def named(self, name: str) -> Schema:
        """The schema of a definition."""
        if name not in self._built:
            self._built[name] = Schema(self.raw[name], self)
        return self._built[name]

    def field(self, raw: Json) -> Schema:
        """The schema of a field that is a reference, with what the field itself adds (description, merge hints)."""
        name = str(raw["$ref"]).removeprefix(_REF)
        own = {key: value for key, value in raw.items() if key not in ("$ref", "description")}
        if not own:
            return self.named(name)
        return Schema({**self.raw[name], **own}, self)


ANYTHING = Schema({"x-kubernetes-preserve-unknown-fields": True})


def object_meta() -> Json:
    """Structural schema of metadata as embedded resources and custom resources have it."""
    text = {"type": "string"}
    texts = {"type": "object", "additionalProperties": text}
    return {
        "type": "object",
        "properties": {
            "name": text,
            "generateName": text,
            "namespace": text,
            "uid": text,
            "resourceVersion": text,
            "selfLink": text,
            "generation": {"type": "integer"},
            "creationTimestamp": {"type": "string", "nullable": True},
            "deletionTimestamp": {"type": "string", "nullable": True},
            "deletionGracePeriodSeconds": {"type": "integer"},
            "labels": texts,
            "annotations": texts,
            "finalizers": {"type": "array", "items": text, "x-kubernetes-list-type": "set"},
            "ownerReferences": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["uid"],
                "items": {
                    "type": "object",
                    "x-kubernetes-map-type": "atomic",
                    "properties": {
                        "apiVersion": text,
                        "kind": text,
                        "name": text,
                        "uid": text,
                        "controller": {"type": "boolean"},
                        "blockOwnerDeletion": {"type": "boolean"},
                    },
                },
            },
            "managedFields": {
                "type": "array",
                "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            },
        },
    }
