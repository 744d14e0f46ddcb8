"""Full listings bring right what watches have lost."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiohttp import web

from alidade_operator.api import CLAIM, FINE_TUNE_JOB, PYTORCH_JOB
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


async def test_what_is_new_changed_or_lost_is_returned_and_the_rest_is_not() -> None:
    cache = Cache()
    for name, version in (("same", 1), ("changed", 2), ("lost", 3)):
        cache.put(FINE_TUNE_JOB, thing(name, version))
    content: dict[str, list[dict[str, Any]]] = {kind.plural: [] for kind in WATCHED_KINDS}
    content["finetunejobs"] = [thing("same", 1), thing("changed", 9), thing("new", 8)]
    async with serving(listing(content)) as (api, _):
        changed = await resync(cache, api, [])
        assert {body["metadata"]["name"] for _, body in changed} == {"changed", "new", "lost"}
        assert cache.get(Key("FineTuneJob", "n", "lost")) is None
        assert await resync(cache, api, []) == [], "a second one finds nothing"


async def test_only_children_are_selected_by_label() -> None:
    async with serving(listing({kind.plural: [] for kind in WATCHED_KINDS})) as (api, server):
        await resync(Cache(), api, [])
    asked = [urlsplit(path) for _, path in server.asked]
    selector = "app.kubernetes.io/managed-by=alidade"
    selected = {url.path.rsplit("/", 1)[-1] for url in asked if parse_qs(url.query).get("labelSelector") == [selector]}
    assert selected == {
        "pytorchjobs", "jobs", "pods", "deployments", "services", "poddisruptionbudgets", "networkpolicies",
        "horizontalpodautoscalers", "scaledobjects", "podmonitors",
    }  # fmt: skip


async def test_each_namespace_is_listed_when_some_are_named() -> None:
    async with serving(listing({kind.plural: [] for kind in WATCHED_KINDS})) as (api, server):
        await resync(Cache(), api, ["a", "b"])
    assert len(server.asked) == 2 * len(WATCHED_KINDS)
    assert all("/namespaces/a/" in path or "/namespaces/b/" in path for _, path in server.asked)


async def test_a_kind_that_is_not_installed_is_noted_until_it_is() -> None:
    content: dict[str, list[dict[str, Any]]] = {kind.plural: [] for kind in WATCHED_KINDS if kind is not PYTORCH_JOB}
    cache = Cache()
    async with serving(listing(content)) as (api, server):
        await resync(cache, api, [])
        assert cache.missing_kinds == {"PyTorchJob"}
        content["pytorchjobs"] = []
        server.answer = listing(content)
        await resync(cache, api, [])
        assert not cache.missing_kinds
    assert CLAIM in WATCHED_KINDS
