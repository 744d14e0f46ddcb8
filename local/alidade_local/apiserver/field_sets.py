"""Sets of field paths, as managedFields keeps them (FieldsV1 of structured-merge-diff)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from alidade_local.apiserver.schema import ANYTHING, Schema

Json = dict[str, Any]


class FieldSet:
    """A set of paths; each step is written as in FieldsV1: `f:name`, `k:{"name":"x"}`, `v:1`, `i:0`."""

    __slots__ = ("children", "members")

    def __init__(self, members: set[str] | None = None, children: dict[str, FieldSet] | None = None) -> None:
        self.members: set[str] = members if members is not None else set()
        self.children: dict[str, FieldSet] = children if children is not None else {}

    def __bool__(self) -> bool:
        return bool(self.members) or bool(self.children)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FieldSet):
            return NotImplemented
        return self.members == other.members and self.children == other.children

    __hash__ = None  # type: ignore[assignment]  # sets change in place

    @staticmethod
    def from_v1(fields: Json) -> FieldSet:
        """The set of a fieldsV1 value."""
        result = FieldSet()
        for step, below in fields.items():
            if step == ".":
                continue
            if not below or "." in below:
                result.members.add(step)
            if below:
                child = FieldSet.from_v1(below)
                if child:
                    result.children[step] = child
        return result

    def to_v1(self) -> Json:
        """The fieldsV1 value of the set."""
        result: Json = {}
        for step in sorted(self.members | set(self.children)):
            child = self.children.get(step)
            below = child.to_v1() if child is not None else {}
            result[step] = {".": {}, **below} if below and step in self.members else below
        return result

    def below(self, step: str) -> FieldSet:
        """The part below a step, created when absent; drop it with `tidy` if it stays empty."""
        return self.children.setdefault(step, FieldSet())

    def tidy(self) -> FieldSet:
        """The set without empty parts."""
        for step, child in list(self.children.items()):
            if not child.tidy():
                del self.children[step]
        return self

    def union(self, other: FieldSet) -> FieldSet:
        """Paths in either set."""
        children = dict(self.children)
        for step, child in other.children.items():
            children[step] = children[step].union(child) if step in children else child
        return FieldSet(self.members | other.members, children)

    def difference(self, other: FieldSet) -> FieldSet:
        """Paths of this set that the other lacks."""
        children: dict[str, FieldSet] = {}
        for step, child in self.children.items():
            theirs = other.children.get(step)
            rest = child if theirs is None else child.difference(theirs)
            if rest:
                children[step] = rest
        return FieldSet(self.members - other.members, children)

    def intersection(self, other: FieldSet) -> FieldSet:
        """Paths in both sets."""
        children: dict[str, FieldSet] = {}
        for step in self.children.keys() & other.children.keys():
            both = self.children[step].intersection(other.children[step])
            if both:
                children[step] = both
        return FieldSet(self.members & other.members, children)

    def paths(self, prefix: str = "") -> Iterator[str]:
        """All paths in the notation of messages: `.spec.containers[name="x"].image`."""
        for step in sorted(self.members):
            yield prefix + shown_step(step)
        for step in sorted(self.children):
            yield from self.children[step].paths(prefix + shown_step(step))


def shown_step(step: str) -> str:
    """One step as messages show it."""
    kind, _, rest = step.partition(":")
    if kind == "f":
        return f".{rest}"
    if kind == "k":
        pairs = orjson.loads(rest)
        return "[" + ",".join(f"{key}={orjson.dumps(value).decode()}" for key, value in sorted(pairs.items())) + "]"
    return f"[={rest}]" if kind == "v" else f"[{rest}]"


def item_step(item: Any, schema: Schema) -> str:
    """The step that leads to an item of a set or map list."""
    if schema.list_type == "set":
        return "v:" + orjson.dumps(item).decode()
    keys = {key: item_key(item, key, schema) for key in schema.list_keys}
    return "k:" + orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode()


def item_key(item: Any, key: str, schema: Schema) -> Any:
    """A key field of an item; an absent one has its default (`protocol` of a port is TCP)."""
    value = item.get(key) if isinstance(item, dict) else None
    if value is not None:
        return value
    field = schema.items.properties.get(key) if schema.items is not None else None
    if field is not None and "default" in field.raw:
        return field.raw["default"]
    return "TCP" if key == "protocol" else None


def is_granular_map(value: Any, schema: Schema) -> bool:
    """Whether the fields of a map have owners of their own."""
    return isinstance(value, dict) and not schema.atomic


def is_granular_list(value: Any, schema: Schema) -> bool:
    """Whether the items of a list have owners of their own."""
    return isinstance(value, list) and schema.list_type in ("set", "map")


def member_schema(schema: Schema, name: str) -> Schema:
    """Schema of a field; below an open value everything is open."""
    return schema.field(name) or ANYTHING


def all_fields(value: Any, schema: Schema) -> FieldSet:
    """Every field that an applied configuration speaks of."""
    result = FieldSet()
    if is_granular_map(value, schema):
        for name, item in value.items():
            _collect(item, member_schema(schema, name), f"f:{name}", result)
            if name not in schema.properties and item:  # an entry, not a field: it is there because of who says so
                result.members.add(f"f:{name}")
    elif is_granular_list(value, schema):
        for item in value:
            step = item_step(item, schema)
            result.members.add(step)
            if isinstance(item, dict):
                below = all_fields(item, schema.items or ANYTHING)
                if below:
                    result.children[step] = below
    return result


def _collect(value: Any, schema: Schema, step: str, result: FieldSet) -> None:
    if value and (is_granular_map(value, schema) or is_granular_list(value, schema)):
        result.children[step] = all_fields(value, schema)
    elif value or not is_granular_list(value, schema):  # of a list without items there is nothing to own
        result.members.add(step)


class Comparison:
    """What differs between two objects."""

    def __init__(self, old: Json, new: Json, schema: Schema) -> None:
        self.removed = FieldSet()
        self.changed = FieldSet()
        """Fields that were added or got another value."""
        _compare_maps(old, new, schema, self.removed, self.changed)
        self.removed.tidy()
        self.changed.tidy()


def _compare_maps(old: Json, new: Json, schema: Schema, removed: FieldSet, changed: FieldSet) -> None:
    for name, item in new.items():
        before = old.get(name, _ABSENT)
        if item is not before:
            _compare(before, item, member_schema(schema, name), f"f:{name}", removed, changed)
    for name, before in old.items():
        if name not in new:
            _compare(before, _ABSENT, member_schema(schema, name), f"f:{name}", removed, changed)


_ABSENT = object()


def _compare(old: Any, new: Any, schema: Schema, step: str, removed: FieldSet, changed: FieldSet) -> None:
    if old is _ABSENT:
        changed.members.add(step)
    elif new is _ABSENT:
        removed.members.add(step)
    maps = (old is _ABSENT or is_granular_map(old, schema)) and (new is _ABSENT or is_granular_map(new, schema))
    lists = (old is _ABSENT or is_granular_list(old, schema)) and (new is _ABSENT or is_granular_list(new, schema))
    if maps:
        before = old if old is not _ABSENT else {}
        after = new if new is not _ABSENT else {}
        _compare_maps(before, after, schema, removed.below(step), changed.below(step))
    elif lists:
        before = {item_step(item, schema): item for item in old} if old is not _ABSENT else {}
        after = {item_step(item, schema): item for item in new} if new is not _ABSENT else {}
        _compare_items(before, after, schema, removed.below(step), changed.below(step))
    elif old is not _ABSENT and new is not _ABSENT and old != new:
        changed.members.add(step)


def _compare_items(old: Json, new: Json, schema: Schema, removed: FieldSet, changed: FieldSet) -> None:
    items = schema.items or ANYTHING
    for step in (*new, *(step for step in old if step not in new)):
        _compare(old.get(step, _ABSENT), new.get(step, _ABSENT), items, step, removed, changed)
