"""Full listings bring right what watches have lost."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web

from alidade_operator.api import CLAIM, FINE_TUNE_JOB, PYTORCH_JOB, Api, ApiError, Kind
from alidade_operator.cache import Cache, Key
from alidade_operator.resync import WATCHED_KINDS, resync
from tests.operator.test_api import serving


def thing(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "n", "uid": name, "resourceVersion": str(version)}}


def listing(content: dict[str, list[dict[str, Any]]]) -> Any:
    """Answers with these items by plural, as of version 10; kinds not named do not exist."""

    def answer(request: web.Request, body: Any) -> tuple[int, Any]:
        items = content.get(request.path.rsplit("/", 1)[-1])
        if items is None:
            return 404, {"reason": "NotFound"}
        return 200, {"items": items, "metadata": {"resourceVersion": "10"}}

    return answer


async def found(cache: Cache, api: Api) -> list[str]:
    """Names of what a listing tells of."""
    told = list[str]()
    await resync(cache, api, [], lambda kind, body: told.append(body["metadata"]["name"]))
    return told


async def test_what_is_new_changed_or_lost_is_returned_and_the_rest_is_not() -> None:
    cache = Cache()
    for name, version in (("same", 1), ("changed", 2), ("lost", 3)):
        cache.put(FINE_TUNE_JOB, thing(name, version))
    content: dict[str, list[dict[str, Any]]] = {kind.plural: [] for kind in WATCHED_KINDS}
    content["finetunejobs"] = [thing("same", 1), thing("changed", 9), thing("new", 8)]
    async with serving(listing(content)) as (api, _):
        assert set(await found(cache, api)) == {"changed", "new", "lost"}
        assert cache.get(Key("FineTuneJob", "n", "lost")) is None
        assert await found(cache, api) == [], "a second one finds nothing"


async def test_what_was_found_before_a_listing_failed_is_told_of() -> None:
    """The next try finds it in the cache, and would say nothing."""
    content: dict[str, list[dict[str, Any]]] = {kind.plural: [] for kind in WATCHED_KINDS}
    content["finetunejobs"] = [thing("new", 8)]

    def answer(request: web.Request, body: Any) -> tuple[int, Any]:
        return (500, {}) if request.path.endswith("/pods") else listing(content)(request, body)

    async with serving(answer) as (api, server):
        cache, told = Cache(), list[str]()
        with pytest.raises(ApiError):
            await resync(cache, api, [], lambda kind, body: told.append(body["metadata"]["name"]))
        assert told == ["new"]
        server.answer = listing(content)
        assert await found(cache, api) == []


async def test_a_try_after_a_listing_that_failed_lists_only_what_is_left() -> None:
    """An API server that refuses every third call lets two dozen listings through all the same."""
    calls = itertools.count(1)

    def answer(request: web.Request, body: Any) -> tuple[int, Any]:
        refused = next(calls) % 3 == 0
        return (429, {}) if refused else listing({kind.plural: [] for kind in WATCHED_KINDS})(request, body)

    listed: set[tuple[Kind, str | None]] = set()
    async with serving(answer) as (api, server):
        for _ in range(len(WATCHED_KINDS)):
            with contextlib.suppress(ApiError):
                await resync(Cache(), api, [], lambda kind, body: None, listed=listed)
        assert listed == {(kind, None) for kind in WATCHED_KINDS}
        assert len(server.asked) == len(WATCHED_KINDS) + (len(WATCHED_KINDS) - 1) // 2


async def test_only_children_are_selected_by_label() -> None:
    async with serving(listing({kind.plural: [] for kind in WATCHED_KINDS})) as (api, server):
        await found(Cache(), api)
    asked = [urlsplit(path) for _, path in server.asked]
    selector = "app.kubernetes.io/managed-by=alidade"
    selected = {url.path.rsplit("/", 1)[-1] for url in asked if parse_qs(url.query).get("labelSelector") == [selector]}
    assert selected == {
        "pytorchjobs", "trainjobs", "jobs", "pods", "deployments", "services", "poddisruptionbudgets",
        "networkpolicies", "horizontalpodautoscalers", "scaledobjects", "podmonitors",
    }  # fmt: skip


async def test_each_namespace_is_listed_when_some_are_named() -> None:
    async with serving(listing({kind.plural: [] for kind in WATCHED_KINDS})) as (api, server):
        await resync(Cache(), api, ["a", "b"], lambda kind, body: None)
    assert len(server.asked) == 2 * len(WATCHED_KINDS)
    assert all("/namespaces/a/" in path or "/namespaces/b/" in path for _, path in server.asked)


async def test_a_kind_that_is_not_installed_is_noted_until_it_is() -> None:
    content: dict[str, list[dict[str, Any]]] = {kind.plural: [] for kind in WATCHED_KINDS if kind is not PYTORCH_JOB}
    cache = Cache()
    async with serving(listing(content)) as (api, server):
        await found(cache, api)
        assert cache.missing_kinds == {"PyTorchJob"}
        content["pytorchjobs"] = []
        server.answer = listing(content)
        await found(cache, api)
        assert not cache.missing_kinds
    assert CLAIM in WATCHED_KINDS
