"""Lists: which objects, as of when, in which pages."""

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import orjson

from alidade_local.apiserver.errors import ApiError, bad_request, gone
from alidade_local.apiserver.options import ListOptions
from alidade_local.apiserver.resources import Resource
from alidade_local.apiserver.selectors import FieldSelector, LabelSelector, parse_fields, parse_labels
from alidade_local.apiserver.storage import Store, Stored

Json = dict[str, Any]


class Filter:
    """The selectors of a list or watch."""

    def __init__(self, resource: Resource, options: ListOptions, name: str = "") -> None:
        self.labels: LabelSelector | None = parse_labels(options.label_selector) if options.label_selector else None
        self.fields: FieldSelector | None = (
            parse_fields(options.field_selector, resource.selectable_fields) if options.field_selector else None
        )
        self.name = name
        self.everything = not (self.labels or self.fields or name)

    def matches(self, stored: Stored) -> bool:
        """Whether the object is meant."""
        if self.everything:
            return True
        if self.name and stored.name != self.name:
            return False
        if self.labels is not None and not self.labels.matches(stored.labels):
            return False
        return self.fields is None or self.fields.matches(stored.obj)


@dataclass(frozen=True)
class Page:
    """The objects of one answer and what the list's metadata says."""

    items: list[Stored]
    rv: int
    continue_token: str = ""
    remaining: int | None = None


def list_page(store: Store, resource: Resource, namespace: str | None, options: ListOptions, chosen: Filter) -> Page:
    """One page of a list; pages of one list are all of the resource version of the first."""
    if options.continue_token:
        if options.resource_version not in ("", "0"):
            raise bad_request("specifying resource version is not allowed when using continue")
        rv, after = _read_token(options.continue_token)
        try:
            found = store.snapshot(resource.key, namespace, rv)
        except ApiError as error:
            raise gone(
                "The provided continue parameter is too old to display a consistent list result. You can start a new "
                "list without the continue parameter."
            ) from error
        found = [stored for stored in found if (stored.namespace, stored.name) > after]
    else:
        rv, found = _first(store, resource, namespace, options)
    matching = found if chosen.everything else [stored for stored in found if chosen.matches(stored)]
    if not options.limit or len(matching) <= options.limit:
        return Page(matching, rv)
    items = matching[: options.limit]
    remaining = len(matching) - options.limit if chosen.everything else None
    return Page(items, rv, _write_token(rv, items[-1]), remaining)


def _first(store: Store, resource: Resource, namespace: str | None, options: ListOptions) -> tuple[int, list[Stored]]:
    wanted = int(options.resource_version or 0)
    match = options.resource_version_match
    if wanted > store.rv:
        raise ApiError(
            504,
            "Timeout",
            f"Too large resource version: {wanted}, current: {store.rv}",
            {
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                "retryAfterSeconds": 1,
            },
        )
    if match == "Exact" and wanted:
        return wanted, store.snapshot(resource.key, namespace, wanted)
    return store.rv, store.all(resource.key, namespace)


def _write_token(rv: int, last: Stored) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([rv, last.namespace, last.name])).decode()


def _read_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        rv, namespace, name = orjson.loads(base64.urlsafe_b64decode(token))
        return int(rv), (str(namespace), str(name))
    except (ValueError, binascii.Error, TypeError):
        raise bad_request(f"continue key is not valid: {token!r}") from None
