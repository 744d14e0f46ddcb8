"""Watches: changes of a resource as a stream of lines, each object encoded once for all watchers."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import orjson

from alidade_local.apiserver.errors import ApiError
from alidade_local.apiserver.listing import Filter
from alidade_local.apiserver.options import ListOptions
from alidade_local.apiserver.resources import Resource
from alidade_local.apiserver.settings import ApiServerSettings
from alidade_local.apiserver.storage import Event, EventType, Store, Stored
from alidade_local.apiserver.views import Views

Json = dict[str, Any]


class Watch:
    """One client's view on the changes of one resource."""

    def __init__(
        self,
        store: Store,
        resource: Resource,
        namespace: str | None,
        options: ListOptions,
        chosen: Filter,
        *,
        views: Views,
        settings: ApiServerSettings,
    ) -> None:
        self._store = store
        self._resource = resource
        self._namespace = namespace
        self._options = options
        self._chosen = chosen
        self._form = views.shared_key
        self._encode = views.item
        self._settings = settings
        self._queue: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._overflowed = False
        self._closed = False
        self._head = 0

    def _receive(self, event: Event) -> None:
        if event.rv <= self._head:
            return  # part of what the watch started with
        if len(self._queue) >= self._settings.watch_queue_events:
            self._overflowed = True
        else:
            self._queue.append(event)
        self._arrived.set()

    def close(self) -> None:
        """End the stream (the server stops, or the resource is gone)."""
        self._closed = True
        self._arrived.set()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Encoded events until the watch times out; raises 410 before the first when it cannot start."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self._options.timeout_s or self._settings.default_watch_timeout_s)
        self._head = self._store.rv
        stop = self._store.listen(self._resource.key, self._receive)
        try:
            try:
                first = self._start()
            except ApiError as error:
                yield self._wrap("ERROR", orjson.dumps(error.status()))
                return
            await self._store.committed()
            yield b"".join(first)
            next_bookmark = loop.time() + self._settings.bookmark_interval_s
            while not (self._closed or self._overflowed):
                wake_at = min(deadline, next_bookmark) if self._options.bookmarks else deadline
                try:
                    async with asyncio.timeout_at(wake_at):
                        await self._arrived.wait()
                except TimeoutError:
                    if loop.time() >= deadline:
                        return
                    next_bookmark = loop.time() + self._settings.bookmark_interval_s
                    yield self._bookmark(self._store.committed_rv, initial_end=False)
                    continue
                self._arrived.clear()
                pending = b"".join(line for line in self._drain() if line)
                if pending:
                    yield pending
        finally:
            stop()

    def _drain(self) -> list[bytes]:
        lines = []
        while self._queue:
            lines.append(self._line(self._queue.popleft()))
        return lines

    def _start(self) -> list[bytes]:
        """Everything up to now: the state as ADDED events, or the changes since a resource version."""
        options = self._options
        wants_state = options.initial_events is True or (
            options.initial_events is None and options.resource_version in ("", "0")
        )
        if wants_state:
            items = self._store.all(self._resource.key, self._namespace)
            lines = [self._wrap("ADDED", self._encode(item)) for item in items if self._chosen.matches(item)]
            if options.initial_events and options.bookmarks:
                lines.append(self._bookmark(self._head, initial_end=True))
            return lines
        since = int(options.resource_version or 0) or self._head
        return [line for event in self._store.events_since(self._resource.key, since) if (line := self._line(event))]

    def _line(self, event: Event) -> bytes:
        """The event as this watcher sees it; nothing when it concerns others."""
        if self._namespace is not None and event.stored.namespace != self._namespace:
            return b""
        kind = self._kind(event)
        if kind is None:
            return b""
        if kind == "DELETED" and event.type != "DELETED" and event.previous is not None:
            return self._wrap(kind, self._encode(_as_it_was(event.previous, event.rv)))
        if not self._form:
            return self._wrap(kind, self._encode(event.stored))
        key = f"{kind} {self._form}"
        if key not in event.encoded:
            event.encoded[key] = self._wrap(kind, self._encode(event.stored))
        return event.encoded[key]

    def _kind(self, event: Event) -> EventType | None:
        if self._chosen.everything:
            return event.type
        before = event.previous is not None and self._chosen.matches(event.previous)
        if event.type == "DELETED":
            return "DELETED" if before else None
        after = self._chosen.matches(event.stored)
        if after:
            return "MODIFIED" if before else "ADDED"
        return "DELETED" if before else None

    @staticmethod
    def _wrap(kind: str, encoded: bytes) -> bytes:
        return b'{"type":"%s","object":%s}\n' % (kind.encode(), encoded)

    def _bookmark(self, rv: int, *, initial_end: bool) -> bytes:
        metadata: Json = {"resourceVersion": str(rv)}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        obj = {"kind": self._resource.kind, "apiVersion": self._resource.api_version, "metadata": metadata}
        return self._wrap("BOOKMARK", orjson.dumps(obj))


def _as_it_was(previous: Stored, rv: int) -> Stored:
    """An object that no longer is what a watcher asked for, as it was when it still was."""
    obj = previous.obj
    return Stored(rv, {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(rv)}})
