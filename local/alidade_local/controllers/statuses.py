"""Statuses written by controllers, and known to have been written before the watch tells of it."""

from __future__ import annotations

from alidade_local.client import ApiClient, NotFoundError
from alidade_local.informer import Informer
from alidade_local.objects import Object
from alidade_local.resources import Resource


async def write_status(
    client: ApiClient, informer: Informer, resource: Resource, document: Object, status: Object
) -> None:
    """Write an object's status; one that is gone needs none any more."""
    try:
        written = await client.update_status(resource, {**document, "status": status})
    except NotFoundError:
        return
    informer.absorb(written)
