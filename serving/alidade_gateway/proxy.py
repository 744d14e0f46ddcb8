"""Requests passed on to a backend and answers passed back, chunk by chunk."""

import socket
import struct
from http import HTTPStatus
from time import monotonic

from aiohttp import ClientError, hdrs, web

from alidade_gateway.bodies import Bodies
from alidade_gateway.forwarding import Answer, Forwarder, Order
from alidade_gateway.gateway import Gateway
from alidade_gateway.headers import forwarded, passed_back
from alidade_gateway.patience import Patience
from alidade_serving.front.refusals import malformed

# A short answer that is there whole goes out with its head in one write. Longer ones may have to wait for their reader:
# asyncio takes 64 KiB before it says so.
_SENT_AT_ONCE_BYTES = 32768
# vLLM takes these from whoever reaches it; the operator asks the replicas themselves.
_NOT_FOR_CLIENTS = frozenset({"/v1/load_lora_adapter", "/v1/unload_lora_adapter"})


class Proxy:
    """Passes on whatever is not the gateway's own."""

    def __init__(self, gateway: Gateway) -> None:
        settings = gateway.settings
        self._gateway = gateway
        self._write_timeout_s = settings.write_timeout_s
        self._answer_timeout_s = settings.answer_timeout_s
        self._bodies = Bodies(
            max_bytes=settings.max_body_bytes,
            max_held_bytes=settings.max_held_bytes,
            read_timeout_s=settings.read_timeout_s,
        )

    async def handle(self, request: web.Request, forwarder: Forwarder) -> web.StreamResponse:
        """A backend's answer. Raises Refusal when there is none, ConnectionResetError when it is not whole."""
        with self._gateway.visit(), await self._answer(request, forwarder) as answer:
            return await self._pass_back(request, answer)

    async def _answer(self, request: web.Request, forwarder: Forwarder) -> Answer:
        target = request.rel_url.raw_path_qs
        if not target.startswith("/"):
            raise malformed(f"{request.method} {target[:100]}: the target of a request begins with a slash.")
        if request.path.rstrip("/") in _NOT_FOR_CLIENTS:
            raise web.HTTPNotFound
        async with self._bodies.held(request) as body:
            order = Order(request.method, target, forwarded(request), body, counted=request.method == "POST")
            request["order"] = order
            answer = await forwarder.open(order, self._gateway.backends.drawn())
        order.body = b""  # the answer has begun: it is not sent again
        return answer

    async def _pass_back(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        source, backend = answer.response, answer.backend.name
        request["backend"] = backend
        request["first_byte_s"] = monotonic() - request["arrived"]
        self._gateway.metrics.first_byte(backend, request["first_byte_s"])
        headers = passed_back(source.headers, request_id=request["id"], backend=backend)
        response: web.StreamResponse
        if source.content.at_eof() and 0 < len(answer.first) <= _SENT_AT_ONCE_BYTES:
            headers.popall(hdrs.CONTENT_LENGTH, None)  # which is what the body's will be
            response = web.Response(body=answer.first, status=source.status, reason=source.reason, headers=headers)
        else:
            response = web.StreamResponse(status=source.status, reason=source.reason, headers=headers)
        if self._gateway.draining:
            response.force_close()
        if not isinstance(response, web.Response):
            await self._stream(request, response, answer)
        answer.ended()
        self._gateway.metrics.whole(backend, monotonic() - request["arrived"])
        return response

    async def _stream(self, request: web.Request, response: web.StreamResponse, answer: Answer) -> None:
        patience = Patience(
            write_timeout_s=self._write_timeout_s,
            read_timeout_s=self._answer_timeout_s,
            on_slow_reader=lambda: _hang_up(request),
            on_slow_writer=answer.response.close,
        )
        with patience:
            await response.prepare(request)
            await self._copy(request, response, answer, patience)

    async def _copy(
        self, request: web.Request, response: web.StreamResponse, answer: Answer, patience: Patience
    ) -> None:
        read, write = answer.response.content.readany, response.write
        chunk = answer.first
        while chunk:
            patience.writing()
            await write(chunk)
            patience.reading()
            try:
                chunk = await read()
            except (ClientError, OSError) as error:
                answer.broke()
                request["code"] = int(HTTPStatus.BAD_GATEWAY)
                _break_off(request, response)
                raise ConnectionResetError(f"{answer.backend.name} ended in the middle of an answer") from error
        patience.writing()
        await response.write_eof()


def _break_off(request: web.Request, response: web.StreamResponse) -> None:
    """Ends the connection so that what was sent does not look like all there is."""
    if request.transport is None:
        return
    if "Transfer-Encoding" not in response.headers and response.content_length is None:
        # HTTP/1.0 has no other mark of an answer's end than an orderly end of the connection: it is reset.
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    request.transport.close()


def _hang_up(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
