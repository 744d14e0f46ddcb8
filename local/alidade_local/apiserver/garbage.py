"""Garbage collection: dependents go when all their owners are gone, or first, or stay, as the deletion asked."""

from dataclasses import dataclass
from typing import Any

from alidade_local.apiserver.background import Worker
from alidade_local.apiserver.options import DeleteOptions
from alidade_local.apiserver.registry import Registry
from alidade_local.apiserver.rest import FOREGROUND, ORPHAN, Objects, Target
from alidade_local.apiserver.storage import Event, Stored

Json = dict[str, Any]


@dataclass(frozen=True)
class _Place:
    """Where an object is."""

    key: str
    namespace: str
    name: str


class GarbageCollector:
    """Follows every change and keeps the graph of owners; all it holds can be rebuilt from the store."""

    def __init__(self, objects: Objects, registry: Registry) -> None:
        self._objects = objects
        self._registry = registry
        self._places: dict[str, _Place] = {}
        self._dependents: dict[str, set[str]] = {}
        self._owners: dict[str, tuple[str, ...]] = {}
        self.worker: Worker[str] = Worker("garbage collection", objects.store, self._examine)
        for key in objects.store.resources():
            for stored in objects.store.all(key):
                self._note(key, stored)
                if stored.uid in self._owners or _waits_for(stored.obj, FOREGROUND, ORPHAN):
                    self.worker.add(stored.uid)
        objects.store.listen(None, self._changed)

    def _changed(self, event: Event) -> None:
        stored = event.stored
        if event.type == "DELETED":
            self._forget(stored.uid)
            return
        self._note(event.resource, stored)
        if stored.uid in self._owners or stored.obj["metadata"].get("deletionTimestamp"):
            self.worker.add(stored.uid)

    def _note(self, key: str, stored: Stored) -> None:
        uid = stored.uid
        self._places[uid] = _Place(key, stored.namespace, stored.name)
        owners = tuple(owner["uid"] for owner in stored.obj["metadata"].get("ownerReferences") or ())
        before = self._owners.get(uid, ())
        if owners == before:
            return
        for owner in before:
            self._unlink(owner, uid)
        for owner in owners:
            self._dependents.setdefault(owner, set()).add(uid)
        if owners:
            self._owners[uid] = owners
        else:
            self._owners.pop(uid, None)

    def _unlink(self, owner: str, dependent: str) -> None:
        dependents = self._dependents.get(owner)
        if dependents is not None:
            dependents.discard(dependent)
            if not dependents:
                del self._dependents[owner]
        if self._is_ending(owner):
            self.worker.add(owner)

    def _forget(self, uid: str) -> None:
        self._places.pop(uid, None)
        for owner in self._owners.pop(uid, ()):
            self._unlink(owner, uid)
        for dependent in self._dependents.get(uid, ()):
            self.worker.add(dependent)

    def _stored(self, uid: str) -> Stored | None:
        place = self._places.get(uid)
        if place is None:
            return None
        stored = self._objects.store.get(place.key, place.namespace, place.name)
        return stored if stored is not None and stored.uid == uid else None

    def _is_ending(self, uid: str) -> bool:
        stored = self._stored(uid)
        return stored is not None and _waits_for(stored.obj, FOREGROUND, ORPHAN)

    # -- decisions ------------------------------------------------------------------------------------------------

    def _examine(self, uid: str) -> None:
        stored = self._stored(uid)
        if stored is None:
            return
        if _waits_for(stored.obj, ORPHAN):
            self._orphan_dependents(stored)
        elif _waits_for(stored.obj, FOREGROUND):
            self._delete_dependents_first(stored)
        elif uid in self._owners and not stored.obj["metadata"].get("deletionTimestamp"):
            self._examine_owners(stored)

    def _orphan_dependents(self, owner: Stored) -> None:
        for uid in sorted(self._dependents.get(owner.uid, ())):
            dependent = self._stored(uid)
            if dependent is not None:
                self._drop_owners(dependent, {owner.uid})
        self._remove_finalizer(owner, ORPHAN)

    def _delete_dependents_first(self, owner: Stored) -> None:
        blocked = False
        for uid in sorted(self._dependents.get(owner.uid, ())):
            dependent = self._stored(uid)
            if dependent is None:
                continue
            references = dependent.obj["metadata"].get("ownerReferences") or ()
            blocked |= any(item["uid"] == owner.uid and item.get("blockOwnerDeletion") for item in references)
            if not dependent.obj["metadata"].get("deletionTimestamp"):
                self._examine_owners(dependent)
        if not blocked:
            self._remove_finalizer(owner, FOREGROUND)

    def _examine_owners(self, dependent: Stored) -> None:
        solid, waiting, absent = 0, 0, set()
        for reference in dependent.obj["metadata"].get("ownerReferences") or ():
            owner = self._owner_of(dependent, reference["uid"])
            if owner is None:
                absent.add(reference["uid"])
            elif _waits_for(owner.obj, FOREGROUND):
                waiting += 1
            else:
                solid += 1
        if solid:
            if absent:
                self._drop_owners(dependent, absent)
        elif waiting:
            has_dependents = bool(self._dependents.get(dependent.uid))
            self._delete(dependent, "Foreground" if has_dependents else "Background")
        else:
            self._delete(dependent, "Background")

    def _owner_of(self, dependent: Stored, uid: str) -> Stored | None:
        """The owner, unless it is gone or lives in another namespace (which owns nothing here)."""
        owner = self._stored(uid)
        if owner is None or (owner.namespace and owner.namespace != dependent.namespace):
            return None
        return owner

    # -- actions --------------------------------------------------------------------------------------------------

    def _delete(self, stored: Stored, propagation: str) -> None:
        resource = self._registry.of_key(self._places[stored.uid].key)
        if resource is None:
            return
        finalizers = stored.obj["metadata"].get("finalizers") or ()
        if ORPHAN in finalizers:
            propagation = "Orphan"
        elif FOREGROUND in finalizers:
            propagation = "Foreground"
        options = DeleteOptions(propagation=propagation, uid=stored.uid)
        self._objects.delete(Target(resource, stored.namespace, stored.name), options)

    def _drop_owners(self, stored: Stored, uids: set[str]) -> None:
        def without_owners(obj: Json) -> None:
            metadata = obj["metadata"]
            kept = [item for item in metadata.get("ownerReferences") or () if item["uid"] not in uids]
            if kept:
                metadata["ownerReferences"] = kept
            else:
                metadata.pop("ownerReferences", None)

        self._objects.change_internally(self._places[stored.uid].key, stored, without_owners)

    def _remove_finalizer(self, stored: Stored, finalizer: str) -> None:
        self._objects.remove_finalizer(self._places[stored.uid].key, stored, finalizer)


def _waits_for(obj: Json, *finalizers: str) -> bool:
    metadata = obj["metadata"]
    return bool(metadata.get("deletionTimestamp")) and any(
        name in (metadata.get("finalizers") or ()) for name in finalizers
    )
