"""Query parameters of a request, parsed once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alidade_local.apiserver.errors import bad_request

Json = dict[str, Any]


@dataclass(frozen=True)
class WriteOptions:
    """Parameters of create, update and patch."""

    dry_run: bool = False
    field_manager: str = ""
    field_validation: str = "Warn"
    force: bool | None = None


@dataclass(frozen=True)
class DeleteOptions:
    """The body and parameters of a delete."""

    dry_run: bool = False
    propagation: str = ""
    grace_period_s: int | None = None
    uid: str = ""
    resource_version: str = ""


@dataclass(frozen=True)
class ListOptions:
    """Parameters of list and watch."""

    label_selector: str = ""
    field_selector: str = ""
    resource_version: str = ""
    resource_version_match: str = ""
    limit: int = 0
    continue_token: str = ""
    timeout_s: float | None = None
    bookmarks: bool = False
    initial_events: bool | None = None


def flag(query: Mapping[str, str], name: str) -> bool:
    """Whether a parameter is true, in any of the spellings that Go accepts (Python's clients write `True`)."""
    return query.get(name, "") in ("true", "1", "True", "TRUE", "t", "T")


def _whole(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    if not text.lstrip("-").isdigit():
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax (parameter {name})')
    return int(text)


def _dry_run(values: list[str]) -> bool:
    for value in values:
        if value != "All":
            raise bad_request(f'dryRun: Unsupported value: "{value}": supported values: "All"')
    return bool(values)


def write_options(query: Mapping[str, str], user_agent: str) -> WriteOptions:
    """Options of a write; without fieldManager the client's program name takes its place."""
    validation = query.get("fieldValidation", "") or "Warn"
    if validation not in ("Strict", "Warn", "Ignore"):
        raise bad_request(
            f'fieldValidation: Unsupported value: "{validation}": supported values: "Ignore", "Strict", "Warn"'
        )
    manager = query.get("fieldManager", "")
    if len(manager) > 128:
        raise bad_request("fieldManager: Too long: may not be more than 128 bytes")
    return WriteOptions(
        dry_run=_dry_run([query["dryRun"]] if query.get("dryRun") else []),
        field_manager=manager or user_agent.partition("/")[0][:128] or "unknown",
        field_validation=validation,
        force=flag(query, "force") if "force" in query else None,
    )


def delete_options(query: Mapping[str, str], body: Json) -> DeleteOptions:
    """Options of a delete, from its body and, where that says nothing, its query."""
    grace = body.get("gracePeriodSeconds", _whole(query, "gracePeriodSeconds"))
    propagation = body.get("propagationPolicy") or query.get("propagationPolicy", "")
    if propagation not in ("", "Background", "Foreground", "Orphan"):
        raise bad_request(
            f'propagationPolicy: Unsupported value: "{propagation}": supported values: "Background", "Foreground", '
            '"Orphan"'
        )
    if not propagation and body.get("orphanDependents", flag(query, "orphanDependents")):
        propagation = "Orphan"
    if grace is not None and (not isinstance(grace, int) or grace < 0):
        raise bad_request(f"gracePeriodSeconds: Invalid value: {grace}: must be greater than or equal to 0")
    wanted = body.get("preconditions") or {}
    dry_run = body.get("dryRun") or ([query["dryRun"]] if query.get("dryRun") else [])
    return DeleteOptions(
        dry_run=_dry_run(list(dry_run)),
        propagation=propagation,
        grace_period_s=grace,
        uid=wanted.get("uid") or "",
        resource_version=wanted.get("resourceVersion") or "",
    )


def list_options(query: Mapping[str, str]) -> ListOptions:
    """Options of a list or watch."""
    timeout = _whole(query, "timeoutSeconds")
    version = query.get("resourceVersion", "")
    if version and not version.isdigit():
        raise bad_request(
            f'resourceVersion: Invalid value: "{version}": strconv.ParseUint: parsing "{version}": invalid syntax'
        )
    return ListOptions(
        label_selector=query.get("labelSelector", ""),
        field_selector=query.get("fieldSelector", ""),
        resource_version=version,
        resource_version_match=query.get("resourceVersionMatch", ""),
        limit=max(0, _whole(query, "limit") or 0),
        continue_token=query.get("continue", ""),
        timeout_s=float(timeout) if timeout else None,
        bookmarks=flag(query, "allowWatchBookmarks"),
        initial_events=flag(query, "sendInitialEvents") if "sendInitialEvents" in query else None,
    )
