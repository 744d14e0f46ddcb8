"""The garbage collector beside a real API server: it looks at the objects of all kinds, over the API.

Kubernetes has it in kube-controller-manager; the API server of this project collects by the same rules in its store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from functools import partial

from alidade_local.client import ApiClient, ApiError, NotFoundError, UnreachableError
from alidade_local.controllers.controller import Controller
from alidade_local.discovery import served_resources
from alidade_local.informer import Informers
from alidade_local.objects import Key, Object, uid_of
from alidade_local.ownership import Action, Delete, DropOwners, Node, OwnershipGraph, RemoveFinalizer
from alidade_local.resources import CUSTOM_RESOURCE_DEFINITIONS, EVENTS, Resource

log = logging.getLogger(__name__)

# Kinds of which no definition tells are found after this.
LOOK_AGAIN_S = 30.0
# An owner that is there, but has not been seen yet, is looked for again after this.
UNSEEN_OWNER_S = 1.0
_NEEDED_VERBS = frozenset(("list", "watch", "delete", "patch"))


class GarbageCollector:
    """Follows all objects; the keys of its queue are their uids, as names."""

    def __init__(self, client: ApiClient, informers: Informers) -> None:
        self.controller = Controller("garbage collector", self._examine)
        self._client = client
        self._informers = informers
        self._graph: OwnershipGraph[Resource] = OwnershipGraph()
        self._kinds: dict[tuple[str, str], Resource] = {}
        self._followed: dict[Resource, asyncio.Task[None] | None] = {}
        self._definitions_changed = asyncio.Event()
        informers.of(CUSTOM_RESOURCE_DEFINITIONS).listen(lambda _before, _after: self._definitions_changed.set())

    async def run(self) -> None:
        """Collect until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow())
                group.create_task(self.controller.run())
        finally:
            for resource in list(self._followed):
                self._unfollow(resource)

    async def _follow(self) -> None:
        """Follow the kinds that there are."""
        while True:
            self._definitions_changed.clear()
            try:
                await self._follow_present()
            except (ApiError, UnreachableError) as error:
                log.warning("the kinds of the API could not be read: %s", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await self._definitions_changed.wait()

    async def _follow_present(self) -> None:
        served = await served_resources(self._client)
        self._kinds = {(entry.resource.group, entry.resource.kind): entry.resource for entry in served}
        # Events own nothing and belong to nobody, and there are many of them.
        collected = [entry for entry in served if entry.resource.plural != EVENTS.plural]
        wanted = {entry.resource for entry in collected if entry.verbs >= _NEEDED_VERBS}
        for resource in self._followed.keys() - wanted:
            self._unfollow(resource)
        for resource in wanted - self._followed.keys():
            self._followed[resource] = self._informers.follow(resource)
            self._informers.of(resource).listen(partial(self._changed, resource))

    def _unfollow(self, resource: Resource) -> None:
        task = self._followed.pop(resource)
        if task is not None:
            task.cancel()

    def _changed(self, resource: Resource, before: Object | None, after: Object | None) -> None:
        if after is not None:
            self._look_at(self._graph.put(resource, after["metadata"]))
        elif before is not None:
            self._look_at(self._graph.drop(uid_of(before)))

    def _look_at(self, uids: Iterable[str]) -> None:
        for uid in uids:
            self.controller.queue.add(Key("", uid))

    async def _examine(self, key: Key) -> float | None:
        for resource in list(self._followed):  # what has not been listed yet may be a dependent
            await self._informers.of(resource).synced.wait()
        for action in self._graph.actions(key.name):
            if isinstance(action, Delete | DropOwners) and not await self._are_gone(action.node, action.uids):
                return UNSEEN_OWNER_S
            await self._act(action)
        return None

    async def _are_gone(self, node: Node[Resource], uids: frozenset[str]) -> bool:
        """Whether owners that were not seen are not there either: kinds are watched one by one, in no order."""
        for reference in node.owners:
            if reference["uid"] not in uids or self._graph.has(reference["uid"]):
                continue
            resource = self._kinds.get((reference["apiVersion"].rpartition("/")[0], reference["kind"]))
            if resource is None or (resource.namespaced and not node.namespace):
                return False  # as the original: what cannot be looked up is not known to be gone
            key = Key(node.namespace if resource.namespaced else "", reference["name"])
            owner = await self._client.find(resource, key)
            if owner is not None and uid_of(owner) == reference["uid"]:
                return False
        return True

    async def _act(self, action: Action[Resource]) -> None:
        node = action.node
        key = Key(node.namespace, node.name)
        if isinstance(action, Delete):
            await self._client.delete(node.place, key, uid=node.uid, propagation=action.propagation)
            return
        current = await self._client.find(node.place, key)
        if current is None or uid_of(current) != node.uid:
            return
        metadata = current["metadata"]
        changes: Object = {"uid": node.uid, "resourceVersion": metadata["resourceVersion"]}
        if isinstance(action, DropOwners):
            references = metadata.get("ownerReferences") or []
            changes["ownerReferences"] = [item for item in references if item["uid"] not in action.uids] or None
        elif isinstance(action, RemoveFinalizer):
            finalizers = metadata.get("finalizers") or []
            changes["finalizers"] = [name for name in finalizers if name != action.finalizer] or None
        with suppress(NotFoundError):  # gone meanwhile
            await self._client.patch(node.place, key, {"metadata": changes})
