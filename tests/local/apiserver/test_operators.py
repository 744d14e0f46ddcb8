"""kopf and a plain level-triggered client against the server: an operator as this project writes them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import kopf

from alidade_local.pki import Certificates
from tests.local.apiserver.conftest import CONFIG_MAPS, DEFINITIONS, TOKEN, WIDGETS, Api, config_map, definition, widget

Json = dict[str, Any]

FREE: Json = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


@asynccontextmanager
async def kopf_operator(
    api: Api, certificates: Certificates, register: Callable[[kopf.OperatorRegistry], None]
) -> AsyncIterator[None]:
    registry = kopf.OperatorRegistry()
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.queueing.idle_timeout = 0.1
    memo = kopf.Memo()

    def login(**_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(server=api.server.url, ca_path=str(certificates.ca), scheme="Bearer", token=TOKEN)

    kopf.on.login(registry=registry)(login)
    register(registry)
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(
        kopf.operator(
            registry=registry,
            settings=settings,
            memo=memo,
            stop_flag=stop,
            ready_flag=ready,
            standalone=True,
            clusterwide=True,
        )
    )
    async with asyncio.timeout(60):
        await ready.wait()
    yield
    stop.set()
    async with asyncio.timeout(60):
        await task


async def test_kopf_sees_creations_changes_and_deletions(api: Api, certificates: Certificates) -> None:
    await api.post(DEFINITIONS, definition(FREE))
    await api.post(WIDGETS, widget("early"))
    seen: list[tuple[str | None, str]] = []

    def register(registry: kopf.OperatorRegistry) -> None:
        def on_event(event: Any, name: str, **_: Any) -> None:
            seen.append((event["type"], name))

        kopf.on.event("test.dev", "v1", "widgets", registry=registry)(on_event)

    async def saw(*entries: tuple[str | None, str]) -> None:
        async def all_seen() -> bool:
            return set(entries) <= set(seen)

        await api.until(all_seen, timeout_s=60)

    async with kopf_operator(api, certificates, register):
        await saw((None, "early"))
        await api.post(WIDGETS, widget("late"))
        await saw(("ADDED", "late"))
        await api.merge(f"{WIDGETS}/late", {"spec": {"n": 1}})
        await saw(("MODIFIED", "late"))
        await api.delete(f"{WIDGETS}/late")
        await saw(("DELETED", "late"))


async def test_kopf_handlers_with_finalizers_progress_and_status_work(api: Api, certificates: Certificates) -> None:
    await api.post(DEFINITIONS, definition(FREE))
    deleted: list[str] = []

    def register(registry: kopf.OperatorRegistry) -> None:
        def on_create(patch: kopf.Patch, **_: Any) -> Json:
            patch.status["phase"] = "Created"
            return {"handled": True}

        def on_delete(name: str, **_: Any) -> None:
            deleted.append(name)

        kopf.on.create("test.dev", "v1", "widgets", registry=registry, id="create")(on_create)
        kopf.on.delete("test.dev", "v1", "widgets", registry=registry)(on_delete)

    async with kopf_operator(api, certificates, register):
        await api.post(WIDGETS, widget("w", n=1))

        async def handled() -> bool:
            obj = await api.get(f"{WIDGETS}/w")
            status = obj.get("status", {})
            return bool(status.get("phase") == "Created" and status.get("create") == {"handled": True})

        await api.until(handled, timeout_s=60)
        assert (await api.get(f"{WIDGETS}/w"))["metadata"]["finalizers"] == ["kopf.zalando.org/KopfFinalizerMarker"]
        await api.delete(f"{WIDGETS}/w")
        await api.until(lambda: api.gone(f"{WIDGETS}/w"), timeout_s=60)
        assert deleted == ["w"]


async def test_five_hundred_resources_at_once_all_get_their_child_and_status(api: Api) -> None:
    await api.post(DEFINITIONS, definition(FREE))
    count = 500

    async def reconcile(name: str, uid: str) -> None:
        owner = {"apiVersion": "test.dev/v1", "kind": "Widget", "name": name, "uid": uid, "controller": True}
        child = {**config_map(name, x="1"), "metadata": {"name": name, "ownerReferences": [owner]}}
        await api.apply(f"{CONFIG_MAPS}/{name}", child, force=True)
        condition = {"type": "Ready", "status": "True"}
        status = {**widget(name), "status": {"phase": "Ready", "conditions": [condition]}}
        await api.apply(f"{WIDGETS}/{name}/status", status, force=True)

    async def one(index: int) -> None:
        made = await api.post(WIDGETS, widget(f"w{index}", n=index))
        await reconcile(made["metadata"]["name"], made["metadata"]["uid"])
        await reconcile(made["metadata"]["name"], made["metadata"]["uid"])

    await asyncio.gather(*(one(index) for index in range(count)))
    widgets, children = (await api.get(WIDGETS))["items"], (await api.get(CONFIG_MAPS))["items"]
    assert len(widgets) == len(children) == count
    assert all(item["status"]["phase"] == "Ready" for item in widgets)
    assert all(item["metadata"]["generation"] == 1 for item in widgets)
    versions = [int(item["metadata"]["resourceVersion"]) for item in (*widgets, *children)]
    assert max(versions) - min(versions) < 3 * count, "the second reconciliation writes nothing"
    await api.delete(f"{WIDGETS}?propagationPolicy=Background")

    async def all_gone() -> bool:
        return not (await api.get(CONFIG_MAPS))["items"]

    await api.until(all_gone, timeout_s=60)
