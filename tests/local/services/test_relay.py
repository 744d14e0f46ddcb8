"""Connections through a Service's port, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from alidade_local.services.endpoints import Place
from alidade_local.services.relay import Relay, Turn

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

ADDRESS = "127.99.0.1"
MEGABYTE = 2**20


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[Place]:
    """A program that handles connections."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, ADDRESS, 0)
    yield Place(*server.sockets[0].getsockname())
    server.close()


@asynccontextmanager
async def relaying(*places: Place) -> AsyncIterator[Relay]:
    """A relay to these places, at a free port."""
    free = await asyncio.start_server(lambda _, __: None, ADDRESS, 0)
    place = Place(*free.sockets[0].getsockname())
    free.close()
    await free.wait_closed()
    relay = Relay(place, places)
    await relay.open()
    yield relay
    relay.abort()
    await until_empty(relay)


async def until_empty(relay: Relay) -> None:
    """Return when the relay has no connections any more."""
    for _ in range(6000):
        if not relay.connections:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"{relay.connections} connections are left")


def says(word: bytes) -> Handler:
    async def handler(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(word)

    return handler


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def answer(relay: Relay) -> bytes:
    reader, writer = await asyncio.open_connection(*relay.place)
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_connections_go_to_the_places_in_turn() -> None:
    async with listening(says(b"a")) as a, listening(says(b"b")) as b, relaying(a, b) as relay:
        assert Counter([await answer(relay) for _ in range(10)]) == {b"a": 5, b"b": 5}


async def test_a_place_that_refuses_is_passed_over() -> None:
    async with listening(says(b"a")) as a, listening(says(b"gone")) as gone:
        pass
    async with listening(says(b"b")) as b, relaying(a, gone, b) as relay:
        assert [await answer(relay) for _ in range(6)] == [b"b"] * 6


async def test_a_connection_that_nobody_takes_is_broken_not_ended() -> None:
    async with listening(says(b"a")) as a:
        pass
    async with relaying(a) as relay:
        with pytest.raises(ConnectionResetError):
            await answer(relay)


async def test_a_client_that_has_said_all_still_gets_its_answer() -> None:
    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = await reader.read()
        writer.write(f"{len(said)} bytes".encode())

    async with listening(count) as place, relaying(place) as relay:
        reader, writer = await asyncio.open_connection(*relay.place)
        writer.write(bytes(5 * MEGABYTE))
        writer.write_eof()
        assert await reader.read() == f"{5 * MEGABYTE} bytes".encode()
        writer.close()


async def test_a_program_that_has_said_all_can_still_be_told_something() -> None:
    heard = asyncio.get_running_loop().create_future()

    async def end_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"done")
        writer.write_eof()
        heard.set_result(await reader.read())

    async with listening(end_first) as place, relaying(place) as relay:
        reader, writer = await asyncio.open_connection(*relay.place)
        assert await reader.read() == b"done"
        writer.write(b"thanks")
        writer.close()
        async with asyncio.timeout(60):
            assert await heard == b"thanks"
        await until_empty(relay)


async def test_megabytes_come_through_both_ways_at_once_unchanged() -> None:
    sent = bytes(range(256)) * (16 * MEGABYTE // 256)
    async with listening(echo) as place, relaying(place) as relay:
        reader, writer = await asyncio.open_connection(*relay.place)

        async def send() -> None:
            writer.write(sent)
            await writer.drain()
            writer.write_eof()

        _, received = await asyncio.gather(send(), reader.read())
        assert received == sent
        writer.close()


async def test_a_slow_reader_slows_the_writer_down() -> None:
    written = 0

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        while True:
            writer.write(bytes(65536))
            await writer.drain()
            written += 65536

    async with listening(pour) as place, relaying(place) as relay:
        _, writer = await asyncio.open_connection(*relay.place, limit=1024)  # reads nothing
        before = -1
        async with asyncio.timeout(60):
            while written != before:  # until the buffers of all four sockets are full
                before = written
                await asyncio.sleep(0.2)
        assert 0 < written < 64 * MEGABYTE
        writer.transport.abort()


async def test_a_broken_program_breaks_the_connection() -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.transport.abort()

    async with listening(die) as place, relaying(place) as relay:
        reader, writer = await asyncio.open_connection(*relay.place)
        writer.write(b"12")
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


async def test_a_client_that_leaves_is_noticed_by_the_program() -> None:
    left = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x")
        await reader.read()
        left.set()

    async with listening(wait) as place, relaying(place) as relay:
        reader, writer = await asyncio.open_connection(*relay.place)
        assert await reader.read(1) == b"x"
        writer.close()
        async with asyncio.timeout(60):
            await left.wait()
        await until_empty(relay)


async def test_a_connection_outlives_its_place_and_the_port() -> None:
    async with listening(echo) as place, listening(says(b"other")) as other, relaying(place) as relay:
        reader, writer = await asyncio.open_connection(*relay.place)
        writer.write(b"1")
        assert await reader.readexactly(1) == b"1"
        relay.turn.set([other])
        assert await answer(relay) == b"other"
        writer.write(b"2")
        assert await reader.readexactly(1) == b"2"
        relay.close()
        with pytest.raises(ConnectionRefusedError):
            await answer(relay)
        writer.write(b"3")
        assert await reader.readexactly(1) == b"3"
        relay.abort()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()


async def test_hundreds_of_connections_are_open_at_once() -> None:
    async with listening(echo) as place, relaying(place) as relay:
        opened = await asyncio.gather(*(asyncio.open_connection(*relay.place) for _ in range(200)))
        for number, (_, writer) in enumerate(opened):
            writer.write(number.to_bytes(2))
        said = await asyncio.gather(*(reader.readexactly(2) for reader, _ in opened))
        assert [int.from_bytes(word) for word in said] == list(range(200))
        for _, writer in opened:
            writer.close()


def test_the_turn_goes_on_when_places_come_and_go() -> None:
    a, b, c = (Place("127.0.0.1", port) for port in (1, 2, 3))
    turn = Turn([a, b])
    assert [turn.order()[0] for _ in range(3)] == [a, b, a]
    turn.set([a, b, c])
    assert [turn.order()[0] for _ in range(3)] == [b, c, a]
    turn.set([c])
    assert turn.order() == (c,)
    turn.set([])
    assert turn.order() == ()
