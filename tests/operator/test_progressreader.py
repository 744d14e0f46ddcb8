"""Rules of reading progress."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from alidade_operator.progressreader import ProgressReader
from alidade_operator.reconcile.plan import ProgressTarget

DOCUMENT: dict[str, Any] = {
    "version": "alidade.dev/progress/v1",
    "state": "training",
    "step": 1,
    "totalSteps": 10,
    "updatedAt": "2026-11-21T12:00:00Z",
}


class Reports:
    """Which keys had news, in order."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str] = asyncio.Queue()

    async def next(self) -> str:
        return await asyncio.wait_for(self.queue.get(), 10)


@asynccontextmanager
async def trainer(address: str, answer: Any) -> AsyncIterator[None]:
    """A pod that answers GET /progress."""
    app = web.Application()
    app.add_routes([web.get("/progress", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, address, 8080).start()
    try:
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def reading() -> AsyncIterator[tuple[ProgressReader[str], Reports]]:
    reports = Reports()
    reader: ProgressReader[str] = ProgressReader(interval_s=0.02, on_change=reports.queue.put_nowait)
    task = asyncio.create_task(reader.run())
    try:
        yield reader, reports
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_news_is_told_and_what_has_not_moved_is_not() -> None:
    document = dict(DOCUMENT)
    asked = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        # A new time alone is no news.
        return web.json_response(document | {"updatedAt": f"2026-11-21T12:00:{asked % 60:02}Z"})

    async with trainer("127.94.0.1", answer), reading() as (reader, reports):
        reader.watch("a", ProgressTarget("pod", "127.94.0.1"))
        assert await reports.next() == "a"
        assert reader.documents["pod"].step == 1
        told_at = asked
        while asked < told_at + 5:  # noqa: ASYNC110  # the server counts
            await asyncio.sleep(0.01)
        assert reports.queue.empty()
        document["step"] = 2
        assert await reports.next() == "a"
        assert reader.documents["pod"].step == 2


async def test_a_pod_that_does_not_answer_is_asked_until_it_does() -> None:
    async with reading() as (reader, reports):
        reader.watch("a", ProgressTarget("pod", "127.94.0.2"))
        await asyncio.sleep(0.1)
        assert reports.queue.empty()

        async def answer(request: web.Request) -> web.Response:
            return web.json_response(DOCUMENT)

        async with trainer("127.94.0.2", answer):
            assert await reports.next() == "a"


async def test_nonsense_and_floods_are_passed_over() -> None:
    bodies = iter([b"<html>", b"{}", b" " * 200_000, b'{"version": "alidade.dev/progress/v9", "state": "training"}'])

    async def answer(request: web.Request) -> web.Response:
        body = next(bodies, None)
        return web.Response(body=body) if body is not None else web.json_response(DOCUMENT)

    async with trainer("127.94.0.3", answer), reading() as (reader, reports):
        reader.watch("a", ProgressTarget("pod", "127.94.0.3"))
        await reports.next()
        assert next(bodies, None) is None, "all the nonsense was read before"
        assert reader.documents["pod"].step == 1


async def test_a_redirect_is_not_followed() -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        if len(asked) < 3:
            raise web.HTTPFound("http://127.94.0.4:8080/progress?secret")
        return web.json_response(DOCUMENT)

    async with trainer("127.94.0.4", answer), reading() as (reader, reports):
        reader.watch("a", ProgressTarget("pod", "127.94.0.4"))
        await reports.next()
        assert len(asked) == 3


async def test_another_pod_starts_with_a_clean_slate() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(DOCUMENT)

    async with trainer("127.94.0.5", answer), reading() as (reader, reports):
        reader.watch("a", ProgressTarget("first", "127.94.0.5"))
        await reports.next()
        reader.watch("a", ProgressTarget("second", "127.94.0.5"))
        assert "first" not in reader.documents
        await reports.next()
        assert set(reader.documents) == {"second"}
        reader.watch("a", None)
        assert not reader.documents
