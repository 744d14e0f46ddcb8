"""A local copy of all objects of one kind, kept current by list and watch."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Collection
from contextlib import aclosing

from alidade_local.client import ApiClient, ApiError, GoneError, UnreachableError
from alidade_local.objects import Key, Object, controller_of, key_of, namespace_of, uid_of, version_of
from alidade_local.resources import Resource

log = logging.getLogger(__name__)

# Called with the object before and after a change; None before its creation and after its deletion.
Listener = Callable[[Object | None, Object | None], None]

FIRST_RECONNECT_S = 0.1
LAST_RECONNECT_S = 10.0
# A kind that is not served yet is asked for at least this often.
LONGEST_WAIT_FOR_KIND_S = 1.0
_NOT_SERVED_YET = (404, 429)
# Deleted objects remembered, so that a late answer to an own write does not bring one back.
REMEMBERED_DELETIONS = 4096


class Informer:
    """The newest known state of every object of a kind; tells its listeners of each change.

    Writes of our own may be put in with `absorb`, so that what follows does not act on the state before them.
    """

    def __init__(self, client: ApiClient, resource: Resource, *, field_selector: str = "") -> None:
        self.resource = resource
        self.synced = asyncio.Event()
        self._client = client
        self._field_selector = field_selector
        self._objects: dict[Key, Object] = {}
        self._controlled: dict[str, dict[Key, Object]] = {}
        self._listeners: list[Listener] = []
        self._deleted_uids: OrderedDict[str, None] = OrderedDict()
        self._version = ""
        self._delay_s = FIRST_RECONNECT_S

    def listen(self, listener: Listener) -> None:
        """Have `listener` called on every later change; objects already known are told to it at once."""
        self._listeners.append(listener)
        for document in list(self._objects.values()):
            listener(None, document)

    def get(self, key: Key) -> Object | None:
        return self._objects.get(key)

    def all(self, namespace: str = "") -> list[Object]:
        """All objects, or those of one namespace. They are shared: copy before changing one."""
        if not namespace:
            return list(self._objects.values())
        return [document for document in self._objects.values() if namespace_of(document) == namespace]

    def controlled_by(self, owner: Object) -> list[Object]:
        """The objects whose managing controller is `owner`."""
        return list(self._controlled.get(uid_of(owner), {}).values())

    def absorb(self, document: Object) -> None:
        """Take in the API server's answer to a write of our own, unless something newer is known."""
        if uid_of(document) not in self._deleted_uids:
            self._put(document)

    def forget(self, document: Object) -> None:
        """Take in that a deletion of our own removed the object."""
        self._drop(document)

    async def run(self) -> None:
        """Follow the API server until cancelled, whatever it does."""
        while True:
            try:
                if not self._version:
                    await self._relist()
                await self._follow()
                continue
            except GoneError:
                self._version = ""
                continue
            except UnreachableError as error:
                log.debug("%s", error)
            except ApiError as error:
                # A kind that is not served yet answers 404, or 429 while it is made; anything else is worth a line.
                self._version = ""
                level = logging.DEBUG if error.status in _NOT_SERVED_YET else logging.WARNING
                log.log(level, "%s: %s", self.resource.plural, error)
                if error.status in _NOT_SERVED_YET:
                    self._delay_s = min(self._delay_s, LONGEST_WAIT_FOR_KIND_S)
            await asyncio.sleep(self._delay_s * random.uniform(0.5, 1.0))
            self._delay_s = min(self._delay_s * 2, LAST_RECONNECT_S)

    async def _relist(self) -> None:
        listing = await self._client.list(self.resource, field_selector=self._field_selector)
        present = {key_of(item): item for item in listing.get("items") or []}
        for key in [key for key in self._objects if key not in present]:
            self._drop(self._objects[key])
        for item in present.values():
            self._put(item)
        self._version = str(listing["metadata"]["resourceVersion"])
        self.synced.set()

    async def _follow(self) -> None:
        """Take in watch events until the stream ends."""
        async with aclosing(
            self._client.watch(self.resource, self._version, field_selector=self._field_selector)
        ) as events:
            async for event in events:
                document = event["object"]
                if event["type"] == "DELETED":
                    self._drop(document)
                elif event["type"] != "BOOKMARK":
                    self._put(document)
                self._version = str(document["metadata"]["resourceVersion"])
                self._delay_s = FIRST_RECONNECT_S

    def _put(self, document: Object) -> None:
        known = self._objects.get(key_of(document))
        if known is not None and uid_of(known) != uid_of(document):
            self._drop(known)
            known = None
        if known is not None and version_of(known) >= version_of(document):
            return
        self._unindex(known)
        self._objects[key_of(document)] = document
        reference = controller_of(document)
        if reference is not None:
            self._controlled.setdefault(reference["uid"], {})[key_of(document)] = document
        self._tell(known, document)

    def _unindex(self, document: Object | None) -> None:
        """Forget whom a document that is replaced or gone belonged to."""
        reference = controller_of(document) if document is not None else None
        if document is None or reference is None:
            return
        siblings = self._controlled.get(reference["uid"], {})
        siblings.pop(key_of(document), None)
        if not siblings:
            self._controlled.pop(reference["uid"], None)

    def _drop(self, document: Object) -> None:
        self._deleted_uids[uid_of(document)] = None
        if len(self._deleted_uids) > REMEMBERED_DELETIONS:
            self._deleted_uids.popitem(last=False)
        known = self._objects.get(key_of(document))
        if known is None or uid_of(known) != uid_of(document):
            return
        self._unindex(known)
        del self._objects[key_of(document)]
        self._tell(document, None)

    def _tell(self, before: Object | None, after: Object | None) -> None:
        for listener in self._listeners:
            listener(before, after)


class Informers:
    """One informer per kind, shared by all controllers of a process."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._informers: dict[Resource, Informer] = {}

    def of(self, resource: Resource) -> Informer:
        if resource not in self._informers:
            self._informers[resource] = Informer(self._client, resource)
        return self._informers[resource]

    def follow(self, resource: Resource) -> asyncio.Task[None] | None:
        """Begin with a kind that was not asked for before: the task that follows it until it is cancelled."""
        if resource in self._informers:
            return None
        task = asyncio.create_task(self.of(resource).run(), name=f"informer of {resource.plural}")
        task.add_done_callback(lambda _: self._informers.pop(resource))
        return task

    async def run(self) -> None:
        """Run all informers asked for so far, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for informer in self._informers.values():
                group.create_task(informer.run())

    async def wait_until_synced(self, *, except_for: Collection[Resource] = ()) -> None:
        """Return once every informer has listed its kind; those excepted may not be served yet."""
        for resource, informer in self._informers.items():
            if resource not in except_for:
                await informer.synced.wait()
