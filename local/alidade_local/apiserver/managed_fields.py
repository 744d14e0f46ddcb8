"""metadata.managedFields: who set which field."""

from typing import Any

from alidade_local.apiserver.options import WriteOptions
from alidade_local.apiserver.resources import Resource

Json = dict[str, Any]


def record_update(new: Json, old: Json | None, resource: Resource, options: WriteOptions, subresource: str) -> None:
    """Give the writer of an update the fields that it changed."""
