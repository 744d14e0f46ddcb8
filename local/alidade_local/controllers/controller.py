"""The loop of a controller: keys from watches, one worker per key, retries with back-off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from alidade_local.client import ApiError, ConflictError, UnreachableError
from alidade_local.informer import Informers
from alidade_local.objects import Key, Object, controller_of, key_of, namespace_of
from alidade_local.resources import Resource
from alidade_local.workqueue import WorkQueue

log = logging.getLogger(__name__)

# Looks at the object of this key; returns the seconds after which to look again, if any.
Reconcile = Callable[[Key], Awaitable[float | None]]


class Controller:
    """Calls `reconcile` for each key that is enqueued, several keys at once, never one key twice at once."""

    def __init__(self, name: str, reconcile: Reconcile, *, workers: int = 4) -> None:
        self.name = name
        self.queue: WorkQueue[Key] = WorkQueue()
        self._reconcile = reconcile
        self._workers = workers

    def follow(self, informers: Informers, resource: Resource) -> None:
        """Enqueue every object of the kind when it changes."""

        def on_change(before: Object | None, after: Object | None) -> None:
            document = after or before
            if document is not None:
                self.queue.add(key_of(document))

        informers.of(resource).listen(on_change)

    def follow_owned(self, informers: Informers, resource: Resource, owner: Resource) -> None:
        """Enqueue the owner of every object of the kind when that object changes."""

        def on_change(before: Object | None, after: Object | None) -> None:
            for document in (before, after):
                reference = controller_of(document) if document is not None else None
                if document is not None and reference is not None and reference["kind"] == owner.kind:
                    self.queue.add(Key(namespace_of(document), reference["name"]))

        informers.of(resource).listen(on_change)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work())
        finally:
            self.queue.close()

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                again_after_s = await self._reconcile(key)
            except ConflictError:
                self.queue.retry(key)  # something newer is on its way
            except (ApiError, UnreachableError) as error:
                delay_s = self.queue.retry(key)
                log.warning("%s %s: %s; again in %.1f s", self.name, key, error, delay_s)
            except Exception:
                # A mistake of ours about one object must not stop the work on the others.
                delay_s = self.queue.retry(key)
                log.exception("%s %s failed; again in %.1f s", self.name, key, delay_s)
            else:
                self.queue.forget(key)
                if again_after_s is not None:
                    self.queue.add_after(key, again_after_s)
            finally:
                self.queue.done(key)
