"""All objects: read from memory, written to the journal, every change numbered and told to the watchers.

Decisions are made on the newest state in memory without waiting, so they need no retries; what is answered to a client
waits until the journal has committed it. Writes that arrive while one commit runs share the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import orjson

from alidade_local.apiserver.errors import ApiError, gone
from alidade_local.apiserver.journal import Journal, Revision

Json = dict[str, Any]
EventType = Literal["ADDED", "MODIFIED", "DELETED"]

_LOG = logging.getLogger(__name__)
_TRIM_STEP = 256  # revisions are dropped this many at a time, so that trimming costs little per write
# Objects take several times the room of their bytes, and time of every full garbage collection: only those that were
# looked into last are kept as objects, too.
_MOST_PARSED = 1024


class Stored:
    """One revision of one object: its bytes are made once and shared by every reader and watcher."""

    __slots__ = ("_obj", "api_version", "data", "labels", "name", "namespace", "rv", "uid", "view")

    def __init__(self, rv: int, obj: Json, data: bytes | None = None) -> None:
        metadata = obj["metadata"]
        self.rv = rv
        self.api_version: str = obj.get("apiVersion", "")
        self.name: str = metadata["name"]
        self.namespace: str = metadata.get("namespace", "")
        self.uid: str = metadata.get("uid", "")
        self.labels: dict[str, str] = metadata.get("labels") or {}
        self.data = orjson.dumps(obj) if data is None else data
        self._obj: Json | None = None
        self._remember(obj)
        self.view: tuple[object, Stored] | None = None
        """The object in another version, with whatever it was made for."""

    @property
    def obj(self) -> Json:
        """The object; shared, so never to be changed in place."""
        if self._obj is None:
            return self._remember(orjson.loads(self.data))
        return self._obj

    def _remember(self, obj: Json) -> Json:
        self._obj = obj
        _parsed.append(self)
        if len(_parsed) > _MOST_PARSED:
            _parsed.popleft().forget_object()
        return obj

    def forget_object(self) -> None:
        """Keep the bytes only; superseded revisions are rarely looked into again."""
        self._obj = None
        self.view = None


_parsed: deque[Stored] = deque()


class Event:
    """One change: what an object became, and what it was before."""

    __slots__ = ("encoded", "previous", "resource", "stored", "type")

    def __init__(self, resource: str, kind: EventType, stored: Stored, previous: Stored | None) -> None:
        self.resource = resource
        self.type: EventType = kind
        self.stored = stored
        self.previous = previous
        self.encoded: dict[str, bytes] = {}

    @property
    def rv(self) -> int:
        """The resource version of the change."""
        return self.stored.rv


class _Collection:
    """The objects of one resource and its recent changes."""

    def __init__(self, floor: int = 0) -> None:
        self.namespaces: dict[str, dict[str, Stored]] = {}
        self._sorted: dict[str | None, list[Stored]] = {}
        self.history: deque[Event] = deque()
        self.floor = floor
        self.listeners: set[Callable[[Event], None]] = set()

    def put(self, stored: Stored) -> None:
        self._sorted.clear()
        self.namespaces.setdefault(stored.namespace, {})[stored.name] = stored

    def remove(self, namespace: str, name: str) -> None:
        self._sorted.clear()
        names = self.namespaces[namespace]
        del names[name]
        if not names:
            del self.namespaces[namespace]

    def get(self, namespace: str, name: str) -> Stored | None:
        return self.namespaces.get(namespace, {}).get(name)

    def all(self, namespace: str | None) -> Iterator[Stored]:
        if namespace is not None:
            yield from self.namespaces.get(namespace, {}).values()
            return
        for names in self.namespaces.values():
            yield from names.values()

    def sorted(self, namespace: str | None) -> list[Stored]:
        """All, by namespace and name; shared, so never to be changed."""
        if namespace not in self._sorted:
            self._sorted[namespace] = sorted(self.all(namespace), key=lambda stored: (stored.namespace, stored.name))
        return self._sorted[namespace]


class Store:
    """The object database of one server."""

    def __init__(self, path: Path, *, history_per_resource: int) -> None:
        self._journal = Journal(path)
        self._history_limit = history_per_resource
        self._collections: dict[str, _Collection] = {}
        self._rv = 0
        self._committed = 0
        self._pending: list[Event] = []
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._work = asyncio.Event()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._listeners: set[Callable[[Event], None]] = set()
        self._closing = False
        self._load()

    def _load(self) -> None:
        for resource, floor in self._journal.floors().items():
            self._collections[resource] = _Collection(floor)
        for row in self._journal.revisions():
            collection = self._collection(row.resource)
            stored = Stored(row.rv, orjson.loads(row.value), row.value)
            previous = collection.get(row.namespace, row.name)
            event = Event(row.resource, _event_type(row.deleted, previous), stored, previous)
            self._apply(collection, event)
            if row.rv > collection.floor:
                collection.history.append(event)
            self._rv = row.rv
        self._committed = self._rv

    def _collection(self, resource: str) -> _Collection:
        if resource not in self._collections:
            self._collections[resource] = _Collection()
        return self._collections[resource]

    @staticmethod
    def _apply(collection: _Collection, event: Event) -> None:
        if event.type == "DELETED":
            if event.previous is not None:
                collection.remove(event.stored.namespace, event.stored.name)
        else:
            collection.put(event.stored)
        if event.previous is not None:
            event.previous.forget_object()

    @property
    def rv(self) -> int:
        """The newest resource version."""
        return self._rv

    def get(self, resource: str, namespace: str, name: str) -> Stored | None:
        """The newest revision of an object."""
        return self._collection(resource).get(namespace, name)

    def all(self, resource: str, namespace: str | None = None) -> list[Stored]:
        """All objects of a resource, by namespace and name."""
        return list(self._collection(resource).sorted(namespace))

    def count(self, resource: str, namespace: str | None = None) -> int:
        """How many objects a resource has."""
        return sum(1 for _ in self._collection(resource).all(namespace))

    def resources(self) -> list[str]:
        """Keys of all resources that have or had objects."""
        return list(self._collections)

    def put(self, resource: str, obj: Json) -> Stored:
        """Create or replace an object; the caller owns it no longer."""
        self._rv += 1
        obj["metadata"]["resourceVersion"] = str(self._rv)
        stored = Stored(self._rv, obj)
        previous = self._collection(resource).get(stored.namespace, stored.name)
        self._record(Event(resource, "ADDED" if previous is None else "MODIFIED", stored, previous))
        return stored

    def delete(self, resource: str, previous: Stored) -> Stored:
        """Remove an object; the returned revision is what watchers see last."""
        self._rv += 1
        obj = dict(previous.obj)
        obj["metadata"] = {**obj["metadata"], "resourceVersion": str(self._rv)}
        stored = Stored(self._rv, obj)
        self._record(Event(resource, "DELETED", stored, previous))
        return stored

    def _record(self, event: Event) -> None:
        collection = self._collection(event.resource)
        self._apply(collection, event)
        collection.history.append(event)
        self._pending.append(event)
        self._work.set()

    async def committed(self, rv: int | None = None) -> None:
        """Wait until the journal holds everything up to this resource version (default: up to the newest).

        To be called right after the write or read in question, without another wait in between: a commit that fails
        is told to those who wait for it.
        """
        target = self._rv if rv is None else rv
        if target <= self._committed or not (self._pending or self._waiters or self._committed < self._rv):
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((target, done))
        await done

    def events_since(self, resource: str, rv: int) -> list[Event]:
        """Changes after a resource version, oldest first; 410 when some of them are forgotten.

        The last ones may not be committed yet: wait for `committed` before telling anybody.
        """
        collection = self._collection(resource)
        if rv < collection.floor:
            raise gone(f"too old resource version: {rv} ({collection.floor})")
        newer: list[Event] = []
        for event in reversed(collection.history):
            if event.rv <= rv:
                break
            newer.append(event)
        return newer[::-1]

    @property
    def committed_rv(self) -> int:
        """The newest resource version that the journal holds."""
        return self._committed

    def snapshot(self, resource: str, namespace: str | None, rv: int) -> list[Stored]:
        """All objects as they were at a resource version within the history."""
        newer = self.events_since(resource, rv)
        if not newer:
            return self.all(resource, namespace)
        state = {(stored.namespace, stored.name): stored for stored in self._collection(resource).all(namespace)}
        for event in reversed(newer):
            if namespace is not None and event.stored.namespace != namespace:
                continue
            key = (event.stored.namespace, event.stored.name)
            if event.previous is None:
                state.pop(key, None)
            else:
                state[key] = event.previous
        return [state[key] for key in sorted(state)]

    def listen(self, resource: str | None, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call back after each commit, for one resource or for all; returns the way to stop."""
        listeners = self._listeners if resource is None else self._collection(resource).listeners
        listeners.add(listener)
        return lambda: listeners.discard(listener)

    async def run(self) -> None:
        """Commit what is written until `close`."""
        loop = asyncio.get_running_loop()
        while True:
            await self._work.wait()
            self._work.clear()
            batch, self._pending = self._pending, []
            if batch:
                obsolete, floors = self._trim()
                rows = [_revision(event) for event in batch]
                try:
                    await loop.run_in_executor(self._executor, self._journal.append, rows, obsolete, floors)
                except Exception as error:
                    self._roll_back(batch, error)
                else:
                    self._publish(batch)
            if self._closing and not self._pending:
                return

    def _publish(self, batch: list[Event]) -> None:
        self._committed = batch[-1].rv
        for event in batch:
            for listener in (*self._collection(event.resource).listeners, *self._listeners):
                _tell(listener, event)
        while self._waiters and self._waiters[0][0] <= self._committed:
            _resolve(self._waiters.popleft()[1], None)

    def _roll_back(self, batch: list[Event], error: Exception) -> None:
        failed, self._pending = batch + self._pending, []
        for event in reversed(failed):
            collection = self._collection(event.resource)
            collection.history.pop()
            if event.previous is not None:
                collection.put(event.previous)
            else:
                collection.remove(event.stored.namespace, event.stored.name)
        self._committed = self._rv  # nothing is outstanding; the numbers of failed writes are never used again
        problem = ApiError(500, "InternalError", f"the object database cannot be written: {error}; free disk space?")
        while self._waiters:
            _resolve(self._waiters.popleft()[1], problem)

    def _trim(self) -> tuple[list[int], dict[str, int]]:
        obsolete: list[int] = []
        floors: dict[str, int] = {}
        for resource, collection in self._collections.items():
            history = collection.history
            if len(history) <= self._history_limit + _TRIM_STEP:
                continue
            while len(history) > self._history_limit:
                event = history.popleft()
                collection.floor = floors[resource] = event.rv
                if event.previous is not None:
                    obsolete.append(event.previous.rv)
                    event.previous = None
                if event.type == "DELETED":
                    obsolete.append(event.rv)
        return obsolete, floors

    async def close(self, runner: asyncio.Task[None]) -> None:
        """Commit what is outstanding and close the file."""
        self._closing = True
        self._work.set()
        await runner
        self._executor.shutdown()
        self._journal.close()


def _tell(listener: Callable[[Event], None], event: Event) -> None:
    """A listener that fails must not keep others from being told, nor the write from being acknowledged."""
    try:
        listener(event)
    except Exception:
        _LOG.exception("what follows from %s %s of %s failed", event.type, event.stored.name, event.resource)


def _event_type(deleted: bool, previous: Stored | None) -> EventType:
    if deleted:
        return "DELETED"
    return "ADDED" if previous is None else "MODIFIED"


def _revision(event: Event) -> Revision:
    stored = event.stored
    return Revision(stored.rv, event.resource, stored.namespace, stored.name, event.type == "DELETED", stored.data)


def _resolve(waiter: asyncio.Future[None], problem: Exception | None) -> None:
    if waiter.done():
        return
    if problem is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(problem)
