"""Server-sent events to clients that may read slowly, or not at all."""

import asyncio
from types import TracebackType
from typing import Any

import orjson
from aiohttp import web


class EventStream:
    """An answer that is written event by event; the headers go out with the first."""

    def __init__(self, request: web.Request, write_timeout_s: float) -> None:
        self._request = request
        self._timeout_s = write_timeout_s
        self.response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        )

    async def __aenter__(self) -> "EventStream":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self._within_timeout(self.response.write_eof())

    @property
    def begun(self) -> bool:
        """Whether the status is on its way, so that an error can only be an event."""
        return self.response.prepared

    async def send(self, event: dict[str, Any]) -> None:
        """One event. Raises ConnectionResetError when the client does not read."""
        await self._send(orjson.dumps(event))

    async def done(self) -> None:
        """OpenAI's mark of the end."""
        await self._send(b"[DONE]")

    async def _send(self, data: bytes) -> None:
        if not self.begun:
            await self.response.prepare(self._request)
        await self._within_timeout(self.response.write(b"data: %b\n\n" % data))

    async def _within_timeout(self, writing: Any) -> None:
        transport = self._request.transport
        if transport is not None and not transport.get_write_buffer_size():
            # All that was written has been taken, so one event more waits for nobody: a timer for each would cost more
            # than the writing.
            await writing
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await writing
        except TimeoutError:
            if transport is not None:
                transport.abort()
            raise ConnectionResetError(f"the client read nothing for {self._timeout_s:g} seconds") from None
