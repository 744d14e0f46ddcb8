"""Objects and lists in the form that a client asked for."""

from collections.abc import Iterable
from typing import Any

import orjson

from alidade_local.apiserver.builtin_columns import columns_of
from alidade_local.apiserver.listing import Page
from alidade_local.apiserver.negotiation import Form
from alidade_local.apiserver.resources import Resource
from alidade_local.apiserver.storage import Stored
from alidade_local.apiserver.tables import TableMaker
from alidade_local.apiserver.versions import current_form

Json = dict[str, Any]


class Views:
    """Writes objects, lists and watch events of one resource in one form."""

    def __init__(self, resource: Resource, form: Form, include_object: str = "Metadata") -> None:
        self.resource = resource
        self.form = form
        self._table: TableMaker | None = None
        if form.kind == "Table":
            self._table = TableMaker(resource, columns_of(resource), include_object)

    @property
    def shared_key(self) -> str:
        """A name for the form under which encoded events may be shared by watchers; empty when they may not be."""
        if self._table is not None:
            return ""
        return f"{self.resource.api_version} {self.form.kind}"

    def shown(self, obj: Json) -> Json:
        """An object in the version of the resource."""
        if self.resource.convert_out:
            return self.resource.convert_out(obj)
        return {**obj, "apiVersion": self.resource.api_version}

    def item(self, stored: Stored) -> bytes:
        """One object."""
        stored = current_form(self.resource, stored)
        if self._table is not None:
            return self._table.encoded([stored.obj], {"resourceVersion": str(stored.rv)})
        if self.form.kind:
            return orjson.dumps(self._metadata_only(stored.obj))
        if self.resource.convert_out:
            return orjson.dumps(self.shown(stored.obj))
        return stored.data

    def loose(self, obj: Json) -> Json:
        """One object that is not stored as it is (a dry run)."""
        if self._table is not None:
            return self._table.table([obj], {})
        return self._metadata_only(obj) if self.form.kind else self.shown(obj)

    def page(self, page: Page) -> bytes:
        """A list."""
        metadata: Json = {"resourceVersion": str(page.rv)}
        if page.continue_token:
            metadata["continue"] = page.continue_token
            if page.remaining is not None:
                metadata["remainingItemCount"] = page.remaining
        if self._table is not None:
            return self._table.encoded((current_form(self.resource, item).obj for item in page.items), metadata)
        if self.form.kind:
            items: Iterable[bytes] = (orjson.dumps(self._metadata_only(stored.obj)) for stored in page.items)
            kind, api_version = "PartialObjectMetadataList", "meta.k8s.io/v1"
        else:
            items = (self.item(stored) for stored in page.items)
            kind, api_version = self.resource.kind_of_list, self.resource.api_version
        head = orjson.dumps({"kind": kind, "apiVersion": api_version, "metadata": metadata})
        return head[:-1] + b',"items":[' + b",".join(items) + b"]}"

    def _metadata_only(self, obj: Json) -> Json:
        return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
