"""The end of a namespace beside a real API server: what is in it goes first."""

from __future__ import annotations

from contextlib import suppress

from alidade_local.client import ApiClient, NotFoundError
from alidade_local.controllers.controller import Controller
from alidade_local.discovery import served_resources
from alidade_local.informer import Informers
from alidade_local.objects import Key, is_deleting
from alidade_local.resources import NAMESPACES

FINALIZER = "kubernetes"
# Pods have their grace periods, and objects the finalizers of others.
LOOK_AGAIN_S = 0.5


class NamespaceLifecycle:
    """Empties namespaces that are being deleted, and then lets them go."""

    def __init__(self, client: ApiClient, informers: Informers) -> None:
        self.controller = Controller("namespaces", self._reconcile)
        self._client = client
        self._namespaces = informers.of(NAMESPACES)
        self.controller.follow(informers, NAMESPACES)

    async def _reconcile(self, key: Key) -> float | None:
        namespace = self._namespaces.get(key)
        if namespace is None or not is_deleting(namespace):
            return None
        if not await self._empty(key.name):
            return LOOK_AGAIN_S
        finalizers = [name for name in namespace["spec"].get("finalizers") or [] if name != FINALIZER]
        final = {**namespace, "spec": {**namespace["spec"], "finalizers": finalizers}}
        with suppress(NotFoundError):
            await self._client.request("PUT", NAMESPACES.path(name=key.name, subresource="finalize"), body=final)
        return None

    async def _empty(self, namespace: str) -> bool:
        """Delete what is in a namespace; whether nothing was."""
        empty = True
        for served in await served_resources(self._client):
            resource = served.resource
            if not resource.namespaced or not served.verbs >= {"list", "deletecollection"}:
                continue
            if (await self._client.list(resource, namespace))["items"]:
                empty = False
                await self._client.request("DELETE", resource.path(namespace))
        return empty
