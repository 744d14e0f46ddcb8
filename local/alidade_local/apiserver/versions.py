"""Stored objects in the version, and with the defaults, of the resource that a request names."""

from typing import Any

from alidade_local.apiserver.defaulting import apply_defaults
from alidade_local.apiserver.encoding import copy_json
from alidade_local.apiserver.resources import Resource
from alidade_local.apiserver.storage import Stored

Json = dict[str, Any]


def current_form(resource: Resource, stored: Stored) -> Stored:
    """The object as the resource shows it: for custom resources, versions and defaults may be newer than the object."""
    if not resource.custom:
        return stored
    newer_schema = stored.rv < resource.schema_rv and resource.schema.has_defaults
    if not newer_schema and stored.api_version == resource.api_version:
        return stored
    if stored.view is not None and stored.view[0] is resource:
        return stored.view[1]
    obj: Json = copy_json(stored.obj)
    obj["apiVersion"] = resource.api_version
    apply_defaults(obj, resource.schema)
    view = Stored(stored.rv, obj)
    stored.view = (resource, view)
    return view


def stored_form(resource: Resource, obj: Json) -> Json:
    """The object as it is stored: in the storage version."""
    if resource.custom and obj["apiVersion"] != resource.storage_api_version:
        return {**obj, "apiVersion": resource.storage_api_version}
    return obj
