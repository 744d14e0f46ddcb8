"""How long a stream may stand still, at either end, watched by one timer a stream and none a chunk."""

import asyncio
from collections.abc import Callable
from types import TracebackType


class Patience:
    """Calls back once an end has kept the stream waiting for too long: at most a quarter of its limit later."""

    def __init__(
        self,
        *,
        write_timeout_s: float,
        read_timeout_s: float,
        on_slow_reader: Callable[[], None],
        on_slow_writer: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._limits = {True: (write_timeout_s, on_slow_reader), False: (read_timeout_s, on_slow_writer)}
        self._period_s = max(0.01, min(write_timeout_s, read_timeout_s) / 4)
        self._writing = False
        self._since = self._loop.time()
        self._timer = self._loop.call_later(self._period_s, self._look)

    def writing(self) -> None:
        """From now on the client is waited for."""
        self._writing = True
        self._since = self._loop.time()

    def reading(self) -> None:
        """From now on the backend is waited for."""
        self._writing = False
        self._since = self._loop.time()

    def _look(self) -> None:
        limit_s, too_slow = self._limits[self._writing]
        if self._loop.time() - self._since >= limit_s:
            too_slow()
        else:
            self._timer = self._loop.call_later(self._period_s, self._look)

    def __enter__(self) -> "Patience":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
