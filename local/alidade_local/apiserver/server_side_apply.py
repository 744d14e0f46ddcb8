"""Server-side apply: the configuration merged into the live object, ownership decided, what was given up removed.

The algorithm is that of structured-merge-diff (KEP-555): merge; remove what this manager applied before, applies no
longer, and nobody else owns; refuse to change what others own unless forced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from alidade_local.apiserver import managed_fields, timestamps
from alidade_local.apiserver.encoding import copy_json
from alidade_local.apiserver.errors import ApiError, quoted, shown
from alidade_local.apiserver.field_sets import (
    Comparison,
    FieldSet,
    all_fields,
    is_granular_list,
    is_granular_map,
    item_key,
    item_step,
    member_schema,
)
from alidade_local.apiserver.managed_fields import Managed, ManagerKey, Managers
from alidade_local.apiserver.options import WriteOptions
from alidade_local.apiserver.pruning import prune
from alidade_local.apiserver.resources import Resource
from alidade_local.apiserver.schema import ANYTHING, Schema

Json = dict[str, Any]


def applied(live: Json, config: Json, resource: Resource, options: WriteOptions, subresource: str) -> Json:
    """A copy of the live object with the configuration applied and managedFields brought up to date."""
    _check_typed(config, resource)
    config = _within(config, resource, subresource)
    writer = ManagerKey(options.field_manager, "Apply", resource.api_version, subresource)
    managers = managed_fields.read(live)
    if not managers and live["metadata"]:
        managers = managed_fields.before_first_apply(live, resource)
    before = managers.get(writer)
    own = managed_fields.tracked(all_fields(config, resource.schema))
    merged: Json = merge(copy_json(live), config, resource.schema)
    merged["metadata"].pop("managedFields", None)
    if before is not None:
        owned = own
        for key, managed in managers.items():
            if key != writer:
                owned = owned.union(managed.fields)
        _remove(merged, resource.schema, before.fields.difference(own), owned)
    others = {key: managed for key, managed in managers.items() if key != writer}
    bare = {**live, "metadata": {k: v for k, v in live["metadata"].items() if k != "managedFields"}}
    comparison = Comparison(bare, merged, resource.schema)
    conflicts = _conflicts(others, comparison)
    if conflicts and not options.force:
        raise _conflict_error(conflicts)
    result = managed_fields.take_over(others, comparison, writer)
    unchanged = before is not None and before.fields == own
    result[writer] = before if unchanged and before is not None else Managed(own, timestamps.now())
    managed_fields.write(merged, result)
    return merged


def _within(config: Json, resource: Resource, subresource: str) -> Json:
    """The part of a configuration that the request may apply."""
    if subresource == "status":
        return {name: value for name, value in config.items() if name == "status"}
    if resource.has_status:
        return {name: value for name, value in config.items() if name != "status"}
    return config


def _check_typed(config: Json, resource: Resource) -> None:
    unknown = prune(copy_json(config), resource.schema)
    undeclared = [f".{path}: field not declared in schema" for path in unknown]
    metadata = config["metadata"]
    group = resource.group or ""
    where = f"/{metadata.get('name', '')}; {group}/{resource.version}, Kind={resource.kind}"
    problems = [*_list_problems(config, resource.schema, ""), *undeclared]
    if not problems:
        return
    text = problems[0] if len(problems) == 1 else "errors:\n" + "\n".join(f"  {problem}" for problem in problems)
    raise ApiError(500, "", f"failed to create typed patch object ({where}): {text}")


def _list_problems(value: Any, schema: Schema, path: str) -> Iterator[str]:
    """What keeps lists from having an item for each key."""
    if is_granular_map(value, schema):
        for name, item in value.items():
            yield from _list_problems(item, member_schema(schema, name), f"{path}.{name}")
    elif is_granular_list(value, schema):
        seen: set[str] = set()
        for index, item in enumerate(value):
            if schema.list_type == "map" and all(item_key(item, key, schema) is None for key in schema.list_keys):
                keys = " ".join(quoted(key) for key in schema.list_keys)
                yield (
                    f"{path}: element {index}: associative list with keys has an element that omits all key fields "
                    f"[{keys}] (and doesn't have default values for any key fields)"
                )
                continue
            step = item_step(item, schema)
            if step in seen:
                yield f"{path}: duplicate entries for key {_key_text(item, schema)}"
            seen.add(step)
            yield from _list_problems(item, schema.items or ANYTHING, f"{path}[{index}]")


def _key_text(item: Any, schema: Schema) -> str:
    if schema.list_type == "set":
        return f"[={shown(item)}]"
    return "[" + ",".join(f"{key}={shown(item_key(item, key, schema))}" for key in schema.list_keys) + "]"


def merge(live: Any, config: Any, schema: Schema) -> Any:
    """The configuration laid over the live value, which may be changed in place."""
    if is_granular_map(config, schema) and isinstance(live, dict):
        for name, item in config.items():
            below = member_schema(schema, name)
            live[name] = merge(live[name], item, below) if name in live else merge(None, item, below)
        return live
    if is_granular_map(config, schema):
        return {name: merge(None, item, member_schema(schema, name)) for name, item in config.items()}
    if is_granular_list(config, schema):
        return _merge_list(live if isinstance(live, list) else [], config, schema)
    return copy_json(config)


def _merge_list(live: list[Any], config: list[Any], schema: Schema) -> list[Any]:
    items = schema.items or ANYTHING
    merged = {item_step(item, schema): item for item in live}
    before, wanted = list(merged), []
    for item in config:
        step = item_step(item, schema)
        wanted.append(step)
        merged[step] = merge(merged.get(step), item, items)
    return [merged[step] for step in _interleaved(before, wanted)]


def _interleaved(live: list[str], wanted: list[str]) -> list[str]:
    """Items in the configuration's order; those that only the live list has stay before what they stood before."""
    result: list[str] = []
    shared = [step for step in wanted if step in set(live)]
    at = 0
    for step in wanted:
        while at < len(live) and live[at] != step:
            if live[at] not in wanted:
                result.append(live[at])
            elif shared and shared[0] == live[at]:
                break
            at += 1
        if at < len(live) and live[at] == step:
            at += 1
        if shared and shared[0] == step:
            shared.pop(0)
        result.append(step)
    return result + [step for step in live[at:] if step not in wanted]


def _remove(value: Any, schema: Schema, given_up: FieldSet, owned: FieldSet) -> None:
    """Remove in place what the writer gave up and nobody owns; containers go when they are left empty."""
    if is_granular_map(value, schema):
        for name in list(value):
            step, below = f"f:{name}", member_schema(schema, name)
            is_gone = name not in schema.properties and _is_given_up(step, given_up, owned)
            if is_gone or _removable(value[name], below, step, given_up, owned):
                del value[name]
    elif is_granular_list(value, schema):
        items = schema.items or ANYTHING
        kept = []
        for item in value:
            step = item_step(item, schema)
            if not _is_given_up(step, given_up, owned) and not _removable(item, items, step, given_up, owned):
                kept.append(item)
        value[:] = kept


def _is_given_up(step: str, given_up: FieldSet, owned: FieldSet) -> bool:
    """Whether an entry of a list or map goes, with whatever others own inside it: that it is there is a field, too."""
    return step in given_up.members and step not in owned.members


def _removable(value: Any, schema: Schema, step: str, given_up: FieldSet, owned: FieldSet) -> bool:
    if step not in given_up.members and step not in given_up.children:
        return False
    below_given, below_owned = given_up.children.get(step), owned.children.get(step)
    if below_given is not None:
        _remove(value, schema, below_given, below_owned or FieldSet())
    if step in owned.members or below_owned:
        return False
    if step in given_up.members and not (is_granular_map(value, schema) or is_granular_list(value, schema)):
        return True
    return not value


def _conflicts(others: Managers, comparison: Comparison) -> list[tuple[ManagerKey, str]]:
    changed = managed_fields.tracked(comparison.changed)
    found = [(key, path) for key, managed in others.items() for path in managed.fields.intersection(changed).paths()]
    return sorted(found, key=lambda item: (_shown(item[0]), item[1]))


def _shown(key: ManagerKey) -> str:
    text = quoted(key.manager)
    if key.subresource:
        text += f" with subresource {quoted(key.subresource)}"
    if key.operation == "Update":
        text += f" using {key.api_version}"
    return text


def _conflict_error(conflicts: list[tuple[ManagerKey, str]]) -> ApiError:
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {_shown(key)}", "field": path}
        for key, path in conflicts
    ]
    if len(conflicts) == 1:
        summary = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        by_manager: dict[str, list[str]] = {}
        for key, path in conflicts:
            by_manager.setdefault(_shown(key), []).append(path)
        summary = f"Apply failed with {len(conflicts)} conflicts: {_listed(by_manager)}"
    return ApiError(409, "Conflict", summary, {"causes": causes})


def _listed(by_manager: Mapping[str, list[str]]) -> str:
    lines: list[str] = []
    for manager, paths in by_manager.items():
        lines.append(f"conflicts with {manager}:")
        lines.extend(f"- {path}" for path in paths)
    return "\n".join(lines)
