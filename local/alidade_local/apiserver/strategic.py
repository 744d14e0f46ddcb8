"""Strategic merge patch of built-in kinds: maps merge, lists merge by key where the schema says so."""

from typing import Any

from alidade_local.apiserver.errors import bad_request
from alidade_local.apiserver.schema import ANYTHING, Schema

Json = dict[str, Any]

_PATCH = "$patch"
_RETAIN = "$retainKeys"
_DELETE_FROM = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


def strategic_merge(value: Json, patch: Json, schema: Schema) -> Json:
    """The value with the patch merged in; the value may be changed in place."""
    directive = patch.get(_PATCH)
    if directive == "replace":
        return {name: item for name, item in patch.items() if name != _PATCH}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise bad_request(f"Unknown patch type {directive!r} found in map; known are delete, merge, replace")
    if _RETAIN in patch:
        kept = set(patch[_RETAIN])
        value = {name: item for name, item in value.items() if name in kept}
    for name, item in patch.items():
        if name in (_PATCH, _RETAIN):
            continue
        if name.startswith(_DELETE_FROM):
            _remove_scalars(value, name.removeprefix(_DELETE_FROM), item)
        elif not name.startswith(_ORDER):
            _merge_member(value, name, item, schema.field(name) or ANYTHING)
    for name, order in patch.items():
        if name.startswith(_ORDER):
            field = name.removeprefix(_ORDER)
            value[field] = _ordered(value.get(field) or [], order, schema.field(field) or ANYTHING)
    return value


def _remove_scalars(value: Json, name: str, items: list[Any]) -> None:
    if isinstance(value.get(name), list):
        value[name] = [item for item in value[name] if item not in items]


def _merge_member(value: Json, name: str, item: Any, schema: Schema) -> None:
    current = value.get(name)
    if item is None:
        value.pop(name, None)
    elif isinstance(item, dict):
        value[name] = strategic_merge(current if isinstance(current, dict) else {}, item, schema)
    elif isinstance(item, list) and "merge" in schema.merge_strategies:
        value[name] = _merge_list(current if isinstance(current, list) else [], item, schema)
    elif isinstance(item, list):
        value[name] = [entry for entry in item if not (isinstance(entry, dict) and _PATCH in entry and len(entry) == 1)]
    else:
        value[name] = item


def _merge_list(current: list[Any], patch: list[Any], schema: Schema) -> list[Any]:
    key = schema.merge_key
    if not key:
        return _placed(current, list(dict.fromkeys(patch)))
    if any(isinstance(item, dict) and item.get(_PATCH) == "replace" for item in patch):
        return [item for item in patch if _PATCH not in item]
    items = schema.items or ANYTHING
    result = list(current)
    for entry in patch:
        if not isinstance(entry, dict) or key not in entry:
            raise bad_request(f"map: {entry} does not contain declared merge key: {key}")
        at = next((index for index, item in enumerate(result) if item.get(key) == entry[key]), None)
        if entry.get(_PATCH) == "delete":
            result = [item for item in result if item.get(key) != entry[key]]
        elif at is None:
            result.append(strategic_merge({}, {name: item for name, item in entry.items()}, items))
        else:
            result[at] = strategic_merge(result[at], entry, items)
    by_key = {item.get(key): item for item in result}
    order = _placed([item.get(key) for item in current], [entry[key] for entry in patch])
    return [by_key[name] for name in order if name in by_key]


def _placed(current: list[Any], patch: list[Any]) -> list[Any]:
    """What is patched in the patch's order; what is not stays before what it stood before."""
    rest = [item for item in current if item not in patch]
    result = []
    for item in patch:
        if item in current:
            while rest and current.index(rest[0]) < current.index(item):
                result.append(rest.pop(0))
        result.append(item)
    return result + rest


def _ordered(items: list[Any], order: list[Any], schema: Schema) -> list[Any]:
    """Items in the order the client lists them; those it does not know stay where they are among their neighbours."""
    key = schema.merge_key
    wanted = [entry.get(key) if isinstance(entry, dict) and key else entry for entry in order]
    positions = {str(value): index for index, value in enumerate(wanted)}

    def identity(item: Any) -> str:
        return str(item.get(key) if isinstance(item, dict) and key else item)

    known = sorted((item for item in items if identity(item) in positions), key=lambda item: positions[identity(item)])
    result: list[Any] = []
    remaining = iter(known)
    for item in items:
        result.append(next(remaining) if identity(item) in positions else item)
    return result
