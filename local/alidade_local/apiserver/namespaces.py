"""Life of a namespace: what is in every one, and how it ends."""

from typing import Any

from alidade_local.apiserver.background import Worker
from alidade_local.apiserver.options import DeleteOptions
from alidade_local.apiserver.registry import Registry
from alidade_local.apiserver.rest import Objects, Target
from alidade_local.apiserver.storage import Event

Json = dict[str, Any]

NAMESPACES_KEY = "namespaces."
_FINALIZER = "kubernetes"


class NamespaceLifecycle:
    """Gives namespaces their default service account, and empties those that are being deleted."""

    def __init__(self, objects: Objects, registry: Registry) -> None:
        self._objects = objects
        self._store = objects.store
        self._registry = registry
        self._ending: set[str] = set()
        self.worker: Worker[str] = Worker("namespaces", self._store, self._tend)
        for stored in self._store.all(NAMESPACES_KEY):
            self.worker.add(stored.name)
        self._store.listen(None, self._changed)

    def _changed(self, event: Event) -> None:
        if event.resource == NAMESPACES_KEY:
            self.worker.add(event.stored.name)
        elif event.type == "DELETED" and event.stored.namespace in self._ending:
            self.worker.add(event.stored.namespace)

    def _tend(self, name: str) -> None:
        namespace = self._store.get(NAMESPACES_KEY, "", name)
        if namespace is None:
            self._ending.discard(name)
        elif namespace.obj["metadata"].get("deletionTimestamp"):
            self._ending.add(name)
            self._empty(name)
        else:
            self._furnish(name)

    def _furnish(self, name: str) -> None:
        accounts = self._registry.find("", "v1", "serviceaccounts")
        if accounts is not None and self._store.get(accounts.key, name, "default") is None:
            self._objects.create_internally(accounts, name, "default", {})

    def _empty(self, name: str) -> None:
        remaining = False
        for key in self._store.resources():
            resource = self._registry.of_key(key)
            for stored in self._store.all(key, name):
                remaining = True
                if resource is not None and not stored.obj["metadata"].get("deletionTimestamp"):
                    options = DeleteOptions(propagation="Background", uid=stored.uid)
                    self._objects.delete(Target(resource, name, stored.name), options)
        if remaining and any(self._store.count(key, name) for key in self._store.resources()):
            return
        namespace = self._store.get(NAMESPACES_KEY, "", name)
        if namespace is not None:
            self._objects.change_internally(NAMESPACES_KEY, namespace, _finalized)


def _finalized(namespace: Json) -> None:
    spec = namespace.setdefault("spec", {})
    spec["finalizers"] = [item for item in spec.get("finalizers") or () if item != _FINALIZER]
