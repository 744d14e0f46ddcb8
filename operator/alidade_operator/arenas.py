"""Addresses `arena://NAME`: the preferences that people voted for in the arena of ModelServe NAME."""

import re
from typing import Any

from alidade_operator.api import JsonObject
from alidade_operator.config import OperatorConfig

_ARENA = re.compile(r"arena://([a-z0-9](?:[-a-z0-9]*[a-z0-9])?)/?")


def votes_folder(name: str, config: OperatorConfig) -> str:
    """Where votes in the arena of that name lie; by name alone: votes outlive the ModelServe they were cast in."""
    return f"pvc://{config.workspace_claim}/arenas/{name}"


def with_arenas_resolved(body: JsonObject, config: OperatorConfig) -> JsonObject:
    """The resource, with every `arena://NAME` of its spec replaced by the folder of the votes."""
    return body | {"spec": _resolved(body["spec"], config)} if body.get("spec") else body


def _resolved(value: Any, config: OperatorConfig) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(item, config) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, config) for item in value]
    found = _ARENA.fullmatch(value) if isinstance(value, str) else None
    return votes_folder(found[1], config) if found is not None else value
