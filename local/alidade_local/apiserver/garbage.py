"""Garbage collection: dependents go when all their owners are gone, or first, or stay, as the deletion asked."""

from collections.abc import Iterable
from typing import Any

from alidade_local.apiserver.background import Worker
from alidade_local.apiserver.options import DeleteOptions
from alidade_local.apiserver.registry import Registry
from alidade_local.apiserver.rest import Objects, Target
from alidade_local.apiserver.storage import Event, Stored
from alidade_local.ownership import Action, Delete, DropOwners, Node, OwnershipGraph, RemoveFinalizer

Json = dict[str, Any]


class GarbageCollector:
    """Follows every change; all it holds can be rebuilt from the store. An object's place is its resource's key."""

    def __init__(self, objects: Objects, registry: Registry) -> None:
        self._objects = objects
        self._registry = registry
        self._graph: OwnershipGraph[str] = OwnershipGraph()
        self.worker: Worker[str] = Worker("garbage collection", objects.store, self._examine)
        for key in objects.store.resources():
            for stored in objects.store.all(key):
                self._look_at(self._graph.put(key, stored.obj["metadata"]))
        objects.store.listen(None, self._changed)

    def _look_at(self, uids: Iterable[str]) -> None:
        for uid in uids:
            self.worker.add(uid)

    def _changed(self, event: Event) -> None:
        stored = event.stored
        if event.type == "DELETED":
            self._look_at(self._graph.drop(stored.uid))
        else:
            self._look_at(self._graph.put(event.resource, stored.obj["metadata"]))

    def _examine(self, uid: str) -> None:
        for action in self._graph.actions(uid):
            stored = self._stored(action.node)
            if stored is not None:
                self._act(action, stored)

    def _stored(self, node: Node[str]) -> Stored | None:
        stored = self._objects.store.get(node.place, node.namespace, node.name)
        return stored if stored is not None and stored.uid == node.uid else None

    def _act(self, action: Action[str], stored: Stored) -> None:
        key = action.node.place
        match action:
            case Delete():
                resource = self._registry.of_key(key)
                if resource is not None:
                    options = DeleteOptions(propagation=action.propagation, uid=stored.uid)
                    self._objects.delete(Target(resource, stored.namespace, stored.name), options)
            case DropOwners():
                uids = action.uids
                self._objects.change_internally(key, stored, lambda obj: _without_owners(obj, uids))
            case RemoveFinalizer():
                self._objects.remove_finalizer(key, stored, action.finalizer)


def _without_owners(obj: Json, uids: frozenset[str]) -> None:
    metadata = obj["metadata"]
    kept = [item for item in metadata.get("ownerReferences") or () if item["uid"] not in uids]
    if kept:
        metadata["ownerReferences"] = kept
    else:
        metadata.pop("ownerReferences", None)
