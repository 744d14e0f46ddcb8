"""The thin client and the executor against a server whose answers the test decides."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from alidade_operator.api import (
    ALIGNMENT_RUN,
    CONFIG_MAP,
    DEPLOYMENT,
    FINE_TUNE_JOB,
    MODEL_SERVE,
    PYTORCH_JOB,
    Api,
    ApiError,
    Connection,
)
from alidade_operator.cache import Cache, Key
from alidade_operator.executor import Executor, OutdatedPlanError
from alidade_operator.reconcile.plan import Adjust, Apply, Create, Delete, Plan
from tests.operator.builders import NOW, job, observed, plan

Answer = Callable[[web.Request, Any], tuple[int, Any]]
RESOURCE: dict[str, Any] = {
    "metadata": {"name": "demo", "namespace": "team-a", "uid": "0f8fad5b-d9cb", "resourceVersion": "1"},
    "spec": {},
}
LAUNCH = plan(job(), observed())


class Server:
    """What was asked, and the token that is let in."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[Any] = []
        self.token = "first"
        self.logins = iter(["first", "second"])
        self.headers: dict[str, str] = {}

    async def handle(self, request: web.Request) -> web.Response:
        """Notes and answers."""
        if request.headers["Authorization"] != f"Bearer {self.token}":
            return web.json_response({"reason": "Unauthorized"}, status=401)
        body = await request.text()
        parsed = json.loads(body) if body else None
        self.asked.append((request.method, request.path_qs))
        self.bodies.append(parsed)
        status, answer = self.answer(request, parsed)
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return web.Response(text=text, status=status, headers=self.headers)


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[tuple[Api, Server]]:
    """A client of a server with these answers."""
    server = Server(answer)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    api = Api(lambda: Connection(url, {"Authorization": f"Bearer {next(server.logins)}"}, False), connections=2)
    try:
        yield api, server
    finally:
        await api.close()
        await runner.cleanup()


def echo(request: web.Request, body: Any) -> tuple[int, Any]:
    """The object as it was sent."""
    return 200, body or {}


async def test_a_long_listing_is_read_page_by_page() -> None:
    def pages(request: web.Request, body: Any) -> tuple[int, Any]:
        number = int(request.query.get("continue", 0))
        more = {"continue": str(number + 1)} if number < 2 else {}
        return 200, {"items": [{"n": number}], "metadata": {"resourceVersion": "7"} | more}

    async with serving(pages) as (api, server):
        items, version = await api.list(FINE_TUNE_JOB, namespace=None, selector="a=b")
    assert (items, version) == ([{"n": 0}, {"n": 1}, {"n": 2}], "7")
    assert all("limit=500" in path and "labelSelector=a%3Db" in path for _, path in server.asked)


async def test_an_expired_token_is_read_anew_once() -> None:
    async with serving(echo) as (api, server):
        server.token = "second"
        assert await api.get(FINE_TUNE_JOB, "n", "a") == {}
        server.token = "third"
        server.logins = iter(["still wrong"])
        with pytest.raises(ApiError) as caught:
            await api.get(FINE_TUNE_JOB, "n", "a")
        assert caught.value.status == 401


@pytest.mark.parametrize(
    ("header", "refusals", "asked"), [("0", 4, 5), ("0", 5, 5), ("", 1, 1), ("Thu, 26 Nov 2026 00:00:00 GMT", 1, 1)]
)
async def test_a_call_that_the_server_has_no_room_for_is_made_again_when_it_says(
    header: str, refusals: int, asked: int
) -> None:
    left = iter(range(refusals))

    def answer(request: web.Request, body: Any) -> tuple[int, Any]:
        return (429, {"reason": "TooManyRequests"}) if next(left, None) is not None else (200, {})

    async with serving(answer) as (api, server):
        server.headers = {"Retry-After": header} if header else {}
        caught = pytest.raises(ApiError, match="429 TooManyRequests") if asked <= refusals else contextlib.nullcontext()
        with caught:
            await api.get(FINE_TUNE_JOB, "n", "a")
    assert len(server.asked) == asked


@pytest.mark.parametrize(("refusals", "asked"), [(2, 3), (3, 3)])
async def test_a_call_that_fails_in_the_server_is_made_again_unless_it_creates(refusals: int, asked: int) -> None:
    left = iter(range(refusals))

    def answer(request: web.Request, body: Any) -> tuple[int, Any]:
        return (500, {"reason": "InternalError"}) if next(left, None) is not None else (200, {})

    async with serving(answer) as (api, server):
        with pytest.raises(ApiError) if asked <= refusals else contextlib.nullcontext():
            await api.apply(FINE_TUNE_JOB, "n", {"metadata": {"name": "a"}})
        assert len(server.asked) == asked
        left = iter([1])
        with pytest.raises(ApiError):
            await api.create(CONFIG_MAP, "n", {})
        assert len(server.asked) == asked + 1


@pytest.mark.parametrize(
    ("status", "answer", "text"),
    [
        (404, {"reason": "NotFound", "message": "no demo"}, "404 NotFound: no demo"),
        (500, "<html>oops", "500 : <html>oops"),
        (200, "<html>a proxy", "502 : <html>a proxy"),
    ],
)
async def test_every_failure_is_an_api_error(status: int, answer: Any, text: str) -> None:
    async with serving(lambda request, body: (status, answer)) as (api, _):
        with pytest.raises(ApiError) as caught:
            await api.get(FINE_TUNE_JOB, "n", "a")
    assert str(caught.value) == text


async def test_a_server_that_is_away_is_an_api_error() -> None:
    api = Api(lambda: Connection("http://127.0.0.1:1", {}, False), connections=1)
    with pytest.raises(ApiError, match="the API server did not answer"):
        await api.get(FINE_TUNE_JOB, "n", "a")
    await api.close()


async def test_only_the_object_of_that_uid_is_deleted() -> None:
    async with serving(echo) as (api, server):
        await api.delete(PYTORCH_JOB, "n", "demo-1", uid="u1")
    assert server.bodies[0]["preconditions"] == {"uid": "u1"}
    assert server.bodies[0]["propagationPolicy"] == "Background"


async def test_a_number_that_json_does_not_know_is_not_sent() -> None:
    async with serving(echo) as (api, _):
        with pytest.raises(ValueError, match="not JSON compliant"):
            await api.create(CONFIG_MAP, "n", {"x": float("nan")})


async def test_a_launch_is_written_children_first_then_the_status_with_its_uid() -> None:
    def answer(request: web.Request, body: Any) -> tuple[int, Any]:
        return 200, body | {"metadata": body["metadata"] | {"uid": "u", "resourceVersion": "5", "namespace": "team-a"}}

    async with serving(answer) as (api, server):
        cache = Cache()
        await Executor(api, cache).carry_out(LAUNCH, FINE_TUNE_JOB, RESOURCE, NOW)
    base = "/apis/alidade.dev/v1alpha1/namespaces/team-a/finetunejobs/demo/status"
    assert [(method, path.partition("?")[0]) for method, path in server.asked] == [
        ("PATCH", "/api/v1/namespaces/team-a/configmaps/demo-job"),
        ("POST", "/apis/kubeflow.org/v1/namespaces/team-a/pytorchjobs"),
        ("PATCH", base),
        ("POST", "/api/v1/namespaces/team-a/events"),
    ]
    assert server.bodies[2]["metadata"]["uid"] == "0f8fad5b-d9cb"
    assert cache.get(Key("PyTorchJob", "team-a", "demo-1")) is not None, "the next plan sees it before the watch does"


async def test_a_child_that_is_already_there_is_read_and_the_plan_made_anew() -> None:
    there = {"metadata": {"name": "demo-1", "namespace": "team-a", "uid": "x", "resourceVersion": "3"}}

    def answer(request: web.Request, body: Any) -> tuple[int, Any]:
        if request.method == "POST":
            return 409, {"reason": "AlreadyExists"}
        return 200, there if request.method == "GET" else body

    async with serving(answer) as (api, server):
        cache = Cache()
        with pytest.raises(OutdatedPlanError):
            await Executor(api, cache).carry_out(LAUNCH, FINE_TUNE_JOB, RESOURCE, NOW)
        assert cache.get(Key("PyTorchJob", "team-a", "demo-1")) is not None
        assert not any(path.endswith("/status") for _, path in server.asked)


async def test_a_resource_of_ours_that_is_already_there_is_put_in_line() -> None:
    """Whoever has made it, its event brings nothing new once it is in the cache."""

    def answer(request: web.Request, body: Any) -> tuple[int, Any]:
        return (409, {"reason": "AlreadyExists"}) if request.method == "POST" else (200, stage(4))

    async with serving(answer) as (api, _):
        told = list[Key]()
        made = Plan(children=(Create(FINE_TUNE_JOB, {"metadata": {"name": "demo-sft"}}),))
        with pytest.raises(OutdatedPlanError):
            await Executor(api, Cache(), on_resource=told.append).carry_out(made, ALIGNMENT_RUN, RESOURCE, NOW)
        assert told == [Key("FineTuneJob", "team-a", "demo-sft")]


@pytest.mark.parametrize(
    ("newer", "told"),
    [
        ({}, []),
        ({"generation": 2}, [Key("FineTuneJob", "team-a", "demo")]),
        ({"deletionTimestamp": "2026-11-21T12:00:00Z"}, [Key("FineTuneJob", "team-a", "demo")]),
        ({"annotations": {"team": "a"}}, [Key("FineTuneJob", "team-a", "demo")]),
    ],
)
async def test_a_change_that_the_answer_to_a_write_brings_is_put_in_line(
    newer: dict[str, Any], told: list[Key]
) -> None:
    """A user has applied between the plan and its status: the event comes when the cache has it already."""
    metadata = RESOURCE["metadata"] | {"generation": 1}

    def answer(request: web.Request, body: Any) -> tuple[int, Any]:
        return 200, {"metadata": metadata | newer | {"resourceVersion": "3"}, "spec": {}, "status": body["status"]}

    async with serving(answer) as (api, _):
        cache, heard = Cache(), list[Key]()
        cache.put(FINE_TUNE_JOB, {"metadata": metadata, "spec": {}})
        made = Plan(status=LAUNCH.status)
        await Executor(api, cache, on_resource=heard.append).carry_out(made, FINE_TUNE_JOB, RESOURCE, NOW)
        assert heard == told


@pytest.mark.parametrize("ready", [0, 1])
async def test_a_status_that_the_answer_to_an_applied_child_brings_is_put_in_line(ready: int) -> None:
    labels = {"alidade.dev/kind": "ModelServe", "app.kubernetes.io/instance": "demo"}
    metadata = {"name": "demo", "namespace": "team-a", "uid": "d", "labels": labels}
    known = {"metadata": metadata | {"resourceVersion": "2"}, "spec": {}, "status": {"readyReplicas": 0}}
    newer = {"metadata": metadata | {"resourceVersion": "4"}, "spec": {}, "status": {"readyReplicas": ready}}
    async with serving(lambda request, body: (200, newer)) as (api, _):
        cache, told = Cache(), list[Key]()
        cache.put(DEPLOYMENT, known)
        made = Plan(children=(Apply(DEPLOYMENT, {"metadata": {"name": "demo"}}),))
        await Executor(api, cache, on_resource=told.append).carry_out(made, MODEL_SERVE, RESOURCE, NOW)
        assert told == [Key("ModelServe", "team-a", "demo")] * ready


async def test_a_refused_child_is_told_in_the_status_and_counts_no_attempt() -> None:
    def answer(request: web.Request, body: Any) -> tuple[int, Any]:
        if request.path.endswith("/pytorchjobs"):
            return 403, {"reason": "Forbidden", "message": "exceeded quota: gpus."}
        return 200, body | {"metadata": body["metadata"] | {"resourceVersion": "5", "uid": "u"}}

    async with serving(answer) as (api, server):
        with pytest.raises(ApiError):
            await Executor(api, Cache()).carry_out(LAUNCH, FINE_TUNE_JOB, RESOURCE, NOW)
    status = next(
        body["status"] for (_, path), body in zip(server.asked, server.bodies, strict=True) if "/status" in path
    )
    launched = next(item for item in status["conditions"] if item["type"] == "Launched")
    assert (launched["status"], launched["reason"]) == ("False", "LaunchRefused")
    assert launched["message"] == ("The API server refused PyTorchJob demo-1: exceeded quota: gpus. It is tried again.")
    assert (status["attempts"], status["phase"]) == (0, "Waiting")
    assert next(item for item in status["conditions"] if item["type"] == "Accepted")["status"] == "True"


async def test_what_is_already_gone_need_not_be_deleted() -> None:
    async with serving(lambda request, body: (404, {"reason": "NotFound"})) as (api, _):
        cache = Cache()
        child = {"metadata": {"name": "demo-1", "namespace": "team-a", "uid": "x", "resourceVersion": "3"}}
        cache.put(PYTORCH_JOB, child)
        deletion = Delete(PYTORCH_JOB, "demo-1", "x")
        await Executor(api, cache).carry_out(Plan(deletions=(deletion,)), FINE_TUNE_JOB, RESOURCE, NOW)
        assert cache.get(Key("PyTorchJob", "team-a", "demo-1")) is None


def stage(version: int = 3, **spec: Any) -> dict[str, Any]:
    """A FineTuneJob that a run has made."""
    metadata = {"name": "demo-sft", "namespace": "team-a", "uid": "x", "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": spec}


async def test_a_stage_that_goes_puts_in_line_whoever_takes_its_result() -> None:
    """Its end is in the cache already when the watch tells of it."""
    async with serving(lambda request, body: (200, {"kind": "Status"})) as (api, _):
        cache, told = Cache(), list[Key]()
        cache.put(FINE_TUNE_JOB, stage())
        made = Plan(deletions=(Delete(FINE_TUNE_JOB, "demo-sft", "x"),))
        await Executor(api, cache, on_resource=told.append).carry_out(made, ALIGNMENT_RUN, RESOURCE, NOW)
        assert told == [Key("FineTuneJob", "team-a", "demo-sft")]


async def test_a_child_that_goes_puts_in_line_whose_it_was() -> None:
    labels = {"alidade.dev/kind": "ModelServe", "app.kubernetes.io/instance": "demo"}
    metadata = {"name": "demo-gateway", "namespace": "team-a", "uid": "x", "labels": labels, "resourceVersion": "3"}
    async with serving(lambda request, body: (200, {"kind": "Status"})) as (api, _):
        cache, told = Cache(), list[Key]()
        cache.put(DEPLOYMENT, {"metadata": metadata, "spec": {}})
        made = Plan(deletions=(Delete(DEPLOYMENT, "demo-gateway", "x"),))
        await Executor(api, cache, on_resource=told.append).carry_out(made, MODEL_SERVE, RESOURCE, NOW)
        assert told == [Key("ModelServe", "team-a", "demo")]


async def test_an_adjusted_stage_is_patched_and_put_in_line() -> None:
    patch = {"metadata": {"name": "demo-sft", "uid": "x"}, "spec": {"suspend": True, "activeDeadlineSeconds": None}}
    async with serving(lambda request, body: (200, stage(4, suspend=True))) as (api, server):
        cache, told = Cache(), list[Key]()
        made = Plan(children=(Adjust(FINE_TUNE_JOB, patch),))
        await Executor(api, cache, on_resource=told.append).carry_out(made, ALIGNMENT_RUN, RESOURCE, NOW)
        [(method, path)] = server.asked
        assert (method, urlsplit(path).path.rsplit("/", 1)[-1]) == ("PATCH", "demo-sft")
        assert server.bodies == [patch], "null takes a field away"
        assert told == [Key("FineTuneJob", "team-a", "demo-sft")]
        known = cache.get(told[0])
        assert known is not None
        assert known["spec"] == {"suspend": True}


@pytest.mark.parametrize(("status", "reason"), [(404, "NotFound"), (409, "Conflict")])
async def test_a_stage_that_was_replaced_is_not_adjusted(status: int, reason: str) -> None:
    async with serving(lambda request, body: (status, {"reason": reason})) as (api, _):
        made = Plan(children=(Adjust(FINE_TUNE_JOB, {"metadata": {"name": "demo-sft", "uid": "x"}}),))
        with pytest.raises(OutdatedPlanError, match="FineTuneJob demo-sft is gone or was replaced"):
            await Executor(api, Cache()).carry_out(made, ALIGNMENT_RUN, RESOURCE, NOW)


async def test_an_event_that_is_refused_stops_nothing() -> None:
    def answer(request: web.Request, body: Any) -> tuple[int, Any]:
        if request.path.endswith("/events"):
            return 403, {"reason": "Forbidden", "message": "no events for you"}
        return 200, body | {"metadata": body["metadata"] | {"resourceVersion": "5", "uid": "u"}}

    async with serving(answer) as (api, server):
        await Executor(api, Cache()).carry_out(LAUNCH, FINE_TUNE_JOB, RESOURCE, NOW)
    assert any(path.partition("?")[0].endswith("/events") for _, path in server.asked)


def test_a_launch_creates_its_training_job_and_does_not_apply_it() -> None:
    assert isinstance(LAUNCH.children[1], Create), "Kueue and the training operator own fields of it from then on"
