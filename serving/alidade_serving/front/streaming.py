"""Server-sent events to clients that may read slowly, or not at all."""

import asyncio
import json
from types import TracebackType
from typing import Any

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
        await self._send(json.dumps(event, ensure_ascii=False, separators=(",", ":")))

    async def done(self) -> None:
        """OpenAI's mark of the end."""
        await self._send("[DONE]")

    async def _send(self, data: str) -> None:
        if not self.begun:
            await self.response.prepare(self._request)
        await self._within_timeout(self.response.write(f"data: {data}\n\n".encode()))

    async def _within_timeout(self, writing: Any) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await writing
        except TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionResetError(f"the client read nothing for {self._timeout_s:g} seconds") from None
