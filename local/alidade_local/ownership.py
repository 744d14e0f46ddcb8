"""Who owns whom, and what follows when owners go: the rules of Kubernetes' garbage collector, without acts.

The local API server collects by them in its store; beside a real one, a controller does over the API.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from alidade_local.objects import Object

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"

Place = TypeVar("Place")


@dataclass(frozen=True, slots=True)
class Node(Generic[Place]):
    """An object: where it is, and of its metadata what counts here. owners: its owner references."""

    place: Place
    uid: str
    namespace: str
    name: str
    owners: tuple[Object, ...]
    finalizers: tuple[str, ...]
    is_deleting: bool

    @classmethod
    def of(cls, place: Place, metadata: Object) -> Node[Place]:
        return cls(
            place,
            metadata["uid"],
            metadata.get("namespace", ""),
            metadata["name"],
            tuple(metadata.get("ownerReferences") or ()),
            tuple(metadata.get("finalizers") or ()),
            bool(metadata.get("deletionTimestamp")),
        )

    def waits_for(self, *finalizers: str) -> bool:
        """Whether it is being deleted and stays for one of these finalizers."""
        return self.is_deleting and any(name in self.finalizers for name in finalizers)


@dataclass(frozen=True)
class Delete(Generic[Place]):
    """The node is to be deleted, since none of its owners is left. uids: those that are not known any more."""

    node: Node[Place]
    uids: frozenset[str]
    propagation: str


@dataclass(frozen=True)
class DropOwners(Generic[Place]):
    """The node is to lose its references to these owners."""

    node: Node[Place]
    uids: frozenset[str]


@dataclass(frozen=True)
class RemoveFinalizer(Generic[Place]):
    """The node waits for nothing of ours any more."""

    node: Node[Place]
    finalizer: str


Action = Delete[Place] | DropOwners[Place] | RemoveFinalizer[Place]


class OwnershipGraph(Generic[Place]):
    """All objects by uid, with their dependents. Each change answers with the uids that have to be looked at."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node[Place]] = {}
        self._dependents: dict[str, set[str]] = {}

    def put(self, place: Place, metadata: Object) -> Collection[str]:
        """Take in an object as it is now."""
        node = Node.of(place, metadata)
        before = self._owner_uids(node.uid)
        self._nodes[node.uid] = node
        after = self._owner_uids(node.uid)
        for owner in after - before:
            self._dependents.setdefault(owner, set()).add(node.uid)
        touched = {owner for owner in before - after if self._unlink(owner, node.uid)}
        return touched | {node.uid} if after or node.is_deleting else touched

    def drop(self, uid: str) -> Collection[str]:
        """Take in that an object is gone."""
        owners = self._owner_uids(uid)
        self._nodes.pop(uid, None)
        return {owner for owner in owners if self._unlink(owner, uid)} | self._dependents.get(uid, set())

    def has(self, uid: str) -> bool:
        """Whether an object of this uid is known."""
        return uid in self._nodes

    def actions(self, uid: str) -> list[Action[Place]]:
        """What is to be done about an object and its dependents, in this order; nothing for one that is gone."""
        node = self._nodes.get(uid)
        if node is None:
            return []
        if node.waits_for(ORPHAN):
            freed = [DropOwners(dependent, frozenset([uid])) for dependent in self._dependents_of(uid)]
            return [*freed, RemoveFinalizer(node, ORPHAN)]
        if node.waits_for(FOREGROUND):
            return self._dependents_first(node)
        return self._of_owners(node) if node.owners and not node.is_deleting else []

    def _dependents_first(self, owner: Node[Place]) -> list[Action[Place]]:
        found: list[Action[Place]] = []
        blocked = False
        for dependent in self._dependents_of(owner.uid):
            blocked |= any(item["uid"] == owner.uid and item.get("blockOwnerDeletion") for item in dependent.owners)
            if not dependent.is_deleting:
                found += self._of_owners(dependent)
        return found if blocked else [*found, RemoveFinalizer(owner, FOREGROUND)]

    def _of_owners(self, node: Node[Place]) -> list[Action[Place]]:
        owners = {reference["uid"]: self._owner_of(node, reference["uid"]) for reference in node.owners}
        absent = frozenset(uid for uid, owner in owners.items() if owner is None)
        present = [owner for owner in owners.values() if owner is not None]
        if any(not owner.waits_for(FOREGROUND) for owner in present):
            return [DropOwners(node, absent)] if absent else []
        first = bool(present) and bool(self._dependents.get(node.uid))
        return [Delete(node, absent, _propagation(node, "Foreground" if first else "Background"))]

    def _owner_of(self, node: Node[Place], uid: str) -> Node[Place] | None:
        """The owner, unless it is gone or lives in another namespace (which owns nothing here)."""
        owner = self._nodes.get(uid)
        is_elsewhere = owner is not None and owner.namespace and owner.namespace != node.namespace
        return None if is_elsewhere else owner

    def _dependents_of(self, uid: str) -> Iterator[Node[Place]]:
        return (self._nodes[dependent] for dependent in sorted(self._dependents.get(uid, ())))

    def _owner_uids(self, uid: str) -> set[str]:
        node = self._nodes.get(uid)
        return {reference["uid"] for reference in node.owners} if node is not None else set()

    def _unlink(self, owner: str, dependent: str) -> bool:
        """Forget a dependent; True when the owner waited for that."""
        dependents = self._dependents.get(owner, set())
        dependents.discard(dependent)
        if not dependents:
            self._dependents.pop(owner, None)
        node = self._nodes.get(owner)
        return node is not None and node.waits_for(FOREGROUND, ORPHAN)


def _propagation(node: Node[Place], otherwise: str) -> str:
    """How an object is deleted: as it was asked to be by its finalizers."""
    if ORPHAN in node.finalizers:
        return "Orphan"
    return "Foreground" if FOREGROUND in node.finalizers else otherwise
