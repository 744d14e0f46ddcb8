"""Clients that do not come to the point, with limits of parts of a second."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from alidade_local.apiserver.server import ApiServer, start_api_server
from alidade_local.apiserver.settings import ApiServerSettings
from alidade_local.pki import Certificates
from tests.local.apiserver.conftest import TOKEN

SOON_S = 30.0
"""Within this everything has happened, on a slow machine too; a server without limits would wait for ever."""
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def impatient(settings: Callable[..., ApiServerSettings]) -> AsyncIterator[ApiServer]:
    server = await start_api_server(settings(headers_timeout_s=0.3, request_timeout_s=0.2))
    yield server
    await server.stop()


@asynccontextmanager
async def connected(server: ApiServer, certificates: Certificates) -> AsyncIterator[Streams]:
    context = ssl.create_default_context(cafile=str(certificates.ca))
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.close()


async def everything(reader: asyncio.StreamReader) -> bytes:
    """What is said until the other side hangs up, by whatever way."""
    said = b""
    try:
        async with asyncio.timeout(SOON_S):
            while part := await reader.read(65536):
                said += part
    except ConnectionError:
        pass
    return said


def head(*headers: str) -> bytes:
    lines = ("POST /api/v1/namespaces/default/configmaps HTTP/1.1", "Host: h", f"Authorization: Bearer {TOKEN}")
    return "\r\n".join((*lines, *headers)).encode()


@pytest.mark.parametrize("started", [b"", head()], ids=["nothing", "half of the headers"])
async def test_who_says_no_whole_request_is_hung_up_on(
    impatient: ApiServer, certificates: Certificates, started: bytes
) -> None:
    async with connected(impatient, certificates) as (reader, writer):
        writer.write(started)
        assert await everything(reader) == b""


async def test_headers_that_drip_are_not_waited_for(impatient: ApiServer, certificates: Certificates) -> None:
    async with connected(impatient, certificates) as (reader, writer):
        writer.write(head())
        ended = asyncio.create_task(everything(reader))
        while not ended.done():
            writer.write(b"\r\nX: y")
            await asyncio.sleep(0.02)
        assert await ended == b""


async def test_a_body_that_does_not_come_is_answered_504(impatient: ApiServer, certificates: Certificates) -> None:
    async with connected(impatient, certificates) as (reader, writer):
        writer.write(head("Content-Type: application/json", "Content-Length: 100", "", '{"metadata":'))
        said, _, body = (await everything(reader)).partition(b"\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 504 ")
        status = json.loads(body)
        assert (status["kind"], status["code"], status["reason"]) == ("Status", 504, "Timeout")


async def test_who_has_made_a_request_is_not_hurried(impatient: ApiServer, certificates: Certificates) -> None:
    async with connected(impatient, certificates) as (reader, writer):
        for pause_s in (0.0, 0.6):
            await asyncio.sleep(pause_s)
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200 ")
