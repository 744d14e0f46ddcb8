"""Rules of reading progress."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from alidade_crds.contract import GatewayDocument, ProgressDocument
from alidade_operator.podreader import PROGRESS, SERVING, PodReader, parse_load
from alidade_operator.reconcile.plan import PodTarget, ProgressTarget
from alidade_operator.resources.observation import ReplicaLoad

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
        return await asyncio.wait_for(self.queue.get(), 60)


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
async def reading() -> AsyncIterator[tuple[PodReader[str, ProgressDocument], Reports]]:
    reports = Reports()
    reader: PodReader[str, ProgressDocument] = PodReader(PROGRESS, interval_s=0.02, on_change=reports.queue.put_nowait)
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
        reader.watch("a", [ProgressTarget("pod", "127.94.0.1")])
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
        reader.watch("a", [ProgressTarget("pod", "127.94.0.2")])
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
        reader.watch("a", [ProgressTarget("pod", "127.94.0.3")])
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
        reader.watch("a", [ProgressTarget("pod", "127.94.0.4")])
        await reports.next()
        assert len(asked) == 3


async def test_another_pod_starts_with_a_clean_slate() -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(DOCUMENT)

    async with trainer("127.94.0.5", answer), reading() as (reader, reports):
        reader.watch("a", [ProgressTarget("first", "127.94.0.5")])
        await reports.next()
        reader.watch("a", [ProgressTarget("second", "127.94.0.5")])
        assert "first" not in reader.documents
        await reports.next()
        assert set(reader.documents) == {"second"}
        reader.watch("a", [])
        assert not reader.documents


# What serves


async def test_gateways_are_asked_for_counts_and_replicas_for_their_queue_until_they_are_silent() -> None:
    counts = {"startedAt": "2026-11-21T12:00:00Z", "waiting": 2, "backends": {"stable": {"requests": 7}}}

    async def status(request: web.Request) -> web.Response:
        return web.json_response(counts)

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(text="tgi_queue_size 3\ntgi_batch_current_size 4\n")

    app = web.Application()
    app.add_routes([web.get("/internal/status", status), web.get("/metrics", metrics)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.94.0.6", 8080).start()
    reports = Reports()
    reader: PodReader[str, GatewayDocument | ReplicaLoad] = PodReader(
        SERVING, interval_s=0.02, on_change=reports.queue.put_nowait
    )
    task = asyncio.create_task(reader.run())
    try:
        gateway, replica = (PodTarget(path, "127.94.0.6", path) for path in ("/internal/status", "/metrics"))
        reader.watch("a", [gateway, replica])
        await reports.next()
        await reports.next()
        told = reader.documents["/internal/status"]
        assert isinstance(told, GatewayDocument)
        assert (told.waiting, told.backends.stable.requests, told.backends.canary) == (2, 7, None)
        assert reader.documents["/metrics"] == ReplicaLoad(waiting=3, running=4)
        await runner.cleanup()
        await reports.next()
        await reports.next()
        assert reader.documents == {}, "what a silent server said counts no more"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("text", "load"),
    [
        ("tgi_queue_size 2\n", ReplicaLoad(2, 0)),
        ("# HELP tgi_queue_size tgi_queue_size 9\ntgi_queue_size 2.0\ntgi_batch_current_size 1", ReplicaLoad(2, 1)),
        (
            'vllm:num_requests_waiting{engine="0",model_name="m"} 1.0\nvllm:num_requests_waiting{engine="1"} 2.0\n'
            'vllm:num_requests_running{engine="0"} 5.0 1712345678000\n',
            ReplicaLoad(3, 5),
        ),
        ("other_queue_size 2\nmy_tgi_queue_size 3\n", None),
        ("tgi_queue_size NaN\n", None),
        ("<html>", None),
    ],
)
def test_the_load_is_read_from_the_metrics_of_every_engine(text: str, load: ReplicaLoad | None) -> None:
    assert parse_load(text.encode()) == load
