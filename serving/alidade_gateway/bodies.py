"""Memory for requests' bodies, which are kept until their answers begin so that they can be sent again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from alidade_gateway.waiting import RETRY_AFTER_S
from alidade_serving.front.bodies import read_body
from alidade_serving.front.refusals import overloaded


class Bodies:
    """Reads bodies, each bounded and all of them together."""

    def __init__(self, *, max_bytes: int, max_held_bytes: int, read_timeout_s: float) -> None:
        self._max_bytes = max_bytes
        self._max_held_bytes = max_held_bytes
        self._read_timeout_s = read_timeout_s
        self._held = 0

    @asynccontextmanager
    async def held(self, request: web.Request) -> AsyncIterator[bytes]:
        """A request's body. Raises Refusal: 413 too long, 408 too slow, 429 when the others' take all there is."""
        taken = self._most(request)
        if self._held + taken > self._max_held_bytes:
            raise overloaded(
                f"The bodies of requests that wait take {self._held} of {self._max_held_bytes} bytes; try again later.",
                RETRY_AFTER_S,
            )
        self._held += taken
        try:
            body = await read_body(request, max_bytes=self._max_bytes, timeout_s=self._read_timeout_s)
            # A compressed body is longer than its head says; it is bounded all the same.
            self._held += len(body) - taken
            taken = len(body)
            yield body
        finally:
            self._held -= taken

    def _most(self, request: web.Request) -> int:
        """What a body may take before it was read; one that does not say how long it is may be as long as any."""
        if not request.body_exists:
            return 0
        length = request.content_length
        return self._max_bytes if length is None else min(length, self._max_bytes)
