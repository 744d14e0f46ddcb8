"""Query parameters of a request, parsed once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alidade_local.apiserver.errors import (
    FieldError,
    bad_request,
    forbidden_field,
    invalid,
    invalid_options,
    not_supported,
    required,
    too_long,
)

Json = dict[str, Any]

_LONGEST_MANAGER = 128  # bytes


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
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def _dry_run_errors(values: list[str]) -> list[FieldError]:
    if all(value == "All" for value in values):
        return []
    return [not_supported("dryRun", values, ("All",))]


def write_options(query: Mapping[str, str], user_agent: str, kind: str) -> WriteOptions:
    """Options of a write; without fieldManager the client's program name takes its place.

    kind: what the original calls them, `CreateOptions`, `UpdateOptions` or `PatchOptions`.
    """
    validation = query.get("fieldValidation", "") or "Warn"
    manager = query.get("fieldManager", "")
    dry_run = [query["dryRun"]] if query.get("dryRun") else []
    errors = _manager_errors(manager) + _dry_run_errors(dry_run)
    if validation not in ("Strict", "Warn", "Ignore"):
        errors.append(not_supported("fieldValidation", validation, ("", "Ignore", "Strict", "Warn")))
    if errors:
        raise invalid_options(kind, errors)
    return WriteOptions(
        dry_run=bool(dry_run),
        field_manager=manager or user_agent.partition("/")[0][:_LONGEST_MANAGER] or "unknown",
        field_validation=validation,
        force=flag(query, "force") if "force" in query else None,
    )


def _manager_errors(manager: str) -> list[FieldError]:
    errors = [too_long("fieldManager", _LONGEST_MANAGER)] if len(manager.encode()) > _LONGEST_MANAGER else []
    for position, char in enumerate(manager):
        if not char.isprintable():
            errors.append(
                invalid("fieldManager", manager, f"invalid character U+{ord(char):04X} (at position {position})")
            )
    return errors


def check_patch_options(options: WriteOptions, given_manager: str, *, applies: bool) -> None:
    """What holds of one kind of patch only: apply names its manager, and nothing else may be forced."""
    errors = []
    if applies and not given_manager:
        errors.append(required("fieldManager", "is required for apply patch"))
    if not applies and options.force is not None:
        errors.append(forbidden_field("force", "may not be specified for non-apply patch"))
    if errors:
        raise invalid_options("PatchOptions", errors)


def delete_options(query: Mapping[str, str], body: Json) -> DeleteOptions:
    """Options of a delete, from its body and, where that says nothing, its query."""
    grace = body.get("gracePeriodSeconds", _whole(query, "gracePeriodSeconds"))
    propagation = body.get("propagationPolicy") or query.get("propagationPolicy", "")
    orphan = body.get("orphanDependents", flag(query, "orphanDependents") if "orphanDependents" in query else None)
    dry_run = list(body.get("dryRun") or ([query["dryRun"]] if query.get("dryRun") else []))
    errors = []
    if propagation and orphan is not None:
        errors.append(
            invalid("propagationPolicy", propagation, "orphanDependents and deletionPropagation cannot be both set")
        )
    if propagation not in ("", "Background", "Foreground", "Orphan"):
        errors.append(not_supported("propagationPolicy", propagation, ("Foreground", "Background", "Orphan", "nil")))
    errors += _dry_run_errors(dry_run)
    if errors:
        raise invalid_options("DeleteOptions", errors)
    if grace is not None and not isinstance(grace, int):
        raise bad_request(f"gracePeriodSeconds must be a whole number, found {grace!r}")
    wanted = body.get("preconditions") or {}
    return DeleteOptions(
        dry_run=bool(dry_run),
        propagation=propagation or ("Orphan" if orphan else ""),
        grace_period_s=None if grace is None else max(0, grace),
        uid=wanted.get("uid") or "",
        resource_version=wanted.get("resourceVersion") or "",
    )


def _list_errors(query: Mapping[str, str], *, watch: bool) -> list[FieldError]:
    match, version = query.get("resourceVersionMatch", ""), query.get("resourceVersion", "")
    initial = "sendInitialEvents" in query
    path = "resourceVersionMatch"
    errors = []
    if watch and initial and match != "NotOlderThan":
        errors.append(forbidden_field(path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"))
    if watch and match and not initial:
        errors.append(forbidden_field(path, f"{path} is forbidden for watch unless sendInitialEvents is provided"))
    if not watch and match and not version:
        errors.append(forbidden_field(path, f"{path} is forbidden unless resourceVersion is provided"))
    from_state = watch and version in ("", "0")  # the original takes this for `sendInitialEvents`
    if (match or from_state) and query.get("continue"):
        errors.append(forbidden_field(path, f"{path} is forbidden when continue is provided"))
    supported = ("NotOlderThan",) if watch else ("Exact", "NotOlderThan", "")
    if match and match not in supported:
        errors.append(not_supported(path, match, supported))
    if not watch and match == "Exact" and version == "0":
        errors.append(forbidden_field(path, f'{path} "exact" is forbidden for resourceVersion "0"'))
    if not watch and initial:
        errors.append(forbidden_field("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    return errors


def list_options(query: Mapping[str, str], *, watch: bool = False) -> ListOptions:
    """Options of a list or watch."""
    if errors := _list_errors(query, watch=watch):
        raise invalid_options("ListOptions", errors)
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
