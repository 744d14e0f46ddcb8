"""Work that follows from changes, done one key at a time."""

import asyncio
import logging
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from alidade_local.apiserver.errors import ApiError

_LOG = logging.getLogger(__name__)
_RETRY_S = 1.0


Key = TypeVar("Key", bound=Hashable)


class Worker(Generic[Key]):
    """Handles each waiting key once, however often it was added; keys whose handling failed are tried again."""

    def __init__(self, name: str, handle: Callable[[Key], None]) -> None:
        self._name = name
        self._handle = handle
        self._waiting: dict[Key, None] = {}
        self._arrived = asyncio.Event()

    def add(self, key: Key) -> None:
        """Have the key handled soon."""
        self._waiting[key] = None
        self._arrived.set()

    async def run(self) -> None:
        """Handle keys until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                key = next(iter(self._waiting))
                del self._waiting[key]
                try:
                    self._handle(key)
                except ApiError as error:
                    _LOG.warning("%s: %r is tried again: %s", self._name, key, error.message)
                    asyncio.get_running_loop().call_later(_RETRY_S, self.add, key)
                except Exception:
                    _LOG.exception("%s: %r is left as it is", self._name, key)
                await asyncio.sleep(0)  # requests go first
