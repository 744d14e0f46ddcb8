"""Work that follows from changes, done one key at a time."""

import asyncio
import logging
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from alidade_local.apiserver.errors import ApiError
from alidade_local.apiserver.storage import Store
from alidade_local.workqueue import WorkQueue

_LOG = logging.getLogger(__name__)
_COMMITS_AT_ONCE = 8  # keys whose writes may share one commit


Key = TypeVar("Key", bound=Hashable)


class Worker(Generic[Key]):
    """Handles each waiting key once, however often it was added.

    A key whose handling failed, or whose writes could not be committed, is tried again with back-off until it succeeds:
    nothing else would bring it back.
    """

    def __init__(self, name: str, store: Store, handle: Callable[[Key], None]) -> None:
        self._name = name
        self._store = store
        self._handle = handle
        self._queue: WorkQueue[Key] = WorkQueue()

    def add(self, key: Key) -> None:
        """Have the key handled soon."""
        self._queue.add(key)

    async def run(self) -> None:
        """Handle keys until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_COMMITS_AT_ONCE):
                    group.create_task(self._work())
        finally:
            self._queue.close()

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            try:
                await self._handle_lastingly(key)
            except ApiError as error:
                delay_s = self._queue.retry(key)
                _LOG.warning("%s: %r is tried again in %.1f s: %s", self._name, key, delay_s, error.message)
            except Exception:
                # A mistake of ours about one object must not stop the work on the others.
                delay_s = self._queue.retry(key)
                _LOG.exception("%s: %r failed and is tried again in %.1f s", self._name, key, delay_s)
            else:
                self._queue.forget(key)
            finally:
                self._queue.done(key)
            await asyncio.sleep(0)  # requests go first

    async def _handle_lastingly(self, key: Key) -> None:
        """Handle the key and wait until what was written for it is committed; ApiError when it is undone."""
        before = self._store.rv
        self._handle(key)
        if self._store.rv != before:
            await self._store.committed()
