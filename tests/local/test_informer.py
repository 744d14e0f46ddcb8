"""The client, the informer and the work queue against a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from alidade_local.client import (
    AlreadyExistsError,
    ApiClient,
    ConflictError,
    GoneError,
    KubeConfig,
    NotFoundError,
    UnreachableError,
)
from alidade_local.informer import Informer
from alidade_local.objects import Key, controller_reference, name_of
from alidade_local.resources import CONFIG_MAPS, SERVICE_ACCOUNTS
from alidade_local.workqueue import WorkQueue
from tests.cluster_fixtures import RunningCluster

Doc = dict[str, Any]


@pytest.fixture
async def client(cluster: RunningCluster) -> AsyncIterator[ApiClient]:
    async with ApiClient(KubeConfig.load(cluster.kubeconfig)) as client:
        yield client


@pytest.fixture
async def informer(client: ApiClient) -> AsyncIterator[Informer]:
    """A running informer of all ConfigMaps."""
    found = Informer(client, CONFIG_MAPS)
    task = asyncio.create_task(found.run())
    await found.synced.wait()
    yield found
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def config_map(name: str, **data: str) -> Doc:
    return {"metadata": {"name": name, "namespace": "default"}, "data": data}


def key(name: str) -> Key:
    return Key("default", name)


class Changes:
    """What an informer told, with a way to wait for more."""

    def __init__(self, informer: Informer, name: str) -> None:
        self.seen: list[tuple[str | None, str | None]] = []
        self._name = name
        self._more = asyncio.Event()
        informer.listen(self._on_change)

    def _on_change(self, before: Doc | None, after: Doc | None) -> None:
        if (after or before or {})["metadata"]["name"] == self._name:
            self.seen.append(tuple(document["data"]["v"] if document else None for document in (before, after)))  # type: ignore[arg-type]
            self._more.set()

    async def wait_for(self, count: int) -> list[tuple[str | None, str | None]]:
        async with asyncio.timeout(60):
            while len(self.seen) < count:
                self._more.clear()
                await self._more.wait()
        return self.seen


async def test_every_change_is_told_once_with_what_was_before(client: ApiClient, informer: Informer) -> None:
    changes = Changes(informer, "told")
    await client.create(CONFIG_MAPS, config_map("told", v="1"))
    await client.patch(CONFIG_MAPS, key("told"), {"data": {"v": "2"}})
    await client.delete(CONFIG_MAPS, key("told"))
    assert await changes.wait_for(3) == [(None, "1"), ("1", "2"), ("2", None)]


async def test_own_writes_count_at_once_and_are_not_told_twice(client: ApiClient, informer: Informer) -> None:
    changes = Changes(informer, "own")
    created = await client.create(CONFIG_MAPS, config_map("own", v="1"))
    informer.absorb(created)
    assert informer.get(key("own")) is not None
    await client.patch(CONFIG_MAPS, key("own"), {"data": {"v": "2"}})
    await changes.wait_for(2)
    informer.absorb(created)  # an old answer changes nothing
    assert changes.seen == [(None, "1"), ("1", "2")]
    await client.delete(CONFIG_MAPS, key("own"))
    await changes.wait_for(3)
    informer.absorb(created)  # nor does it bring a deleted object back
    assert informer.get(key("own")) is None


async def test_an_object_replaced_by_another_of_its_name_is_told_as_gone_and_new(
    client: ApiClient, informer: Informer
) -> None:
    changes = Changes(informer, "twice")
    await client.create(CONFIG_MAPS, config_map("twice", v="1"))
    await client.delete(CONFIG_MAPS, key("twice"))
    await client.create(CONFIG_MAPS, config_map("twice", v="2"))
    assert await changes.wait_for(3) == [(None, "1"), ("1", None), (None, "2")]
    await client.delete(CONFIG_MAPS, key("twice"))


async def test_objects_are_found_by_their_controller(client: ApiClient, informer: Informer) -> None:
    owner = await client.create(CONFIG_MAPS, config_map("owner", v="1"))
    changes = Changes(informer, "owned")
    owned = config_map("owned", v="1")
    owned["metadata"]["ownerReferences"] = [controller_reference(owner, "v1", "ConfigMap")]
    await client.create(CONFIG_MAPS, owned)
    await changes.wait_for(1)
    assert [name_of(found) for found in informer.controlled_by(owner)] == ["owned"]
    await client.patch(CONFIG_MAPS, key("owned"), {"metadata": {"ownerReferences": None}, "data": {"v": "2"}})
    await changes.wait_for(2)
    assert informer.controlled_by(owner) == []
    await client.delete(CONFIG_MAPS, key("owned"))
    await client.delete(CONFIG_MAPS, key("owner"))


class _Interrupted(ApiClient):
    """A client whose first watch ends as the test says, while something happens meanwhile."""

    failure: Exception | None = None

    async def watch(self, *args: Any, **kwargs: Any) -> Any:
        failure, self.failure = self.failure, None
        if failure is not None:
            await self.delete(CONFIG_MAPS, key("missed-deletion"))
            await self.create(CONFIG_MAPS, config_map("missed-creation", v="1"))
            raise failure
        async for event in super().watch(*args, **kwargs):
            yield event


@pytest.mark.parametrize("failure", [GoneError(410, "Expired", "too old"), UnreachableError("connection lost")])
async def test_what_happens_while_a_watch_is_broken_is_not_lost(cluster: RunningCluster, failure: Exception) -> None:
    async with _Interrupted(KubeConfig.load(cluster.kubeconfig)) as client:
        await client.create(CONFIG_MAPS, config_map("missed-deletion", v="1"))
        client.failure = failure
        informer = Informer(client, CONFIG_MAPS)
        gone, made = Changes(informer, "missed-deletion"), Changes(informer, "missed-creation")
        task = asyncio.create_task(informer.run())
        assert await gone.wait_for(2) == [(None, "1"), ("1", None)]
        assert await made.wait_for(1) == [(None, "1")]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.delete(CONFIG_MAPS, key("missed-creation"))


async def test_listed_items_carry_their_kind(client: ApiClient) -> None:
    listing = await client.list(SERVICE_ACCOUNTS, "default")
    assert {(item["apiVersion"], item["kind"]) for item in listing["items"]} == {("v1", "ServiceAccount")}


async def test_errors_of_the_api_have_their_types(client: ApiClient) -> None:
    created = await client.create(CONFIG_MAPS, config_map("typed", v="1"))
    with pytest.raises(AlreadyExistsError):
        await client.create(CONFIG_MAPS, config_map("typed", v="1"))
    await client.update(CONFIG_MAPS, {**created, "data": {"v": "2"}})
    with pytest.raises(ConflictError):
        await client.update(CONFIG_MAPS, {**created, "data": {"v": "3"}})
    assert await client.find(CONFIG_MAPS, key("none")) is None
    with pytest.raises(NotFoundError):
        await client.get(CONFIG_MAPS, key("none"))
    assert await client.delete(CONFIG_MAPS, key("none")) is None
    assert await client.delete(CONFIG_MAPS, key("typed"), uid="another") is None
    assert await client.find(CONFIG_MAPS, key("typed")) is not None
    await client.delete(CONFIG_MAPS, key("typed"))


async def test_a_server_that_is_not_there_is_unreachable(cluster: RunningCluster) -> None:
    config = KubeConfig.load(cluster.kubeconfig)
    async with ApiClient(KubeConfig("https://127.0.0.1:1", config.ca_pem, config.token)) as client:
        with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1"):
            await client.list(CONFIG_MAPS)


async def test_a_key_waits_once_however_often_it_is_added() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(3):
        queue.add("a")
    queue.add("b")
    assert [await queue.get(), await queue.get()] == ["a", "b"]


async def test_a_key_added_while_it_is_worked_on_comes_back_once_it_is_done() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert await queue.get() == "b"
    queue.done("a")
    assert await queue.get() == "a"
    queue.done("a")
    queue.done("b")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await queue.get()


async def test_of_several_delays_the_shortest_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 600)
    queue.add_after("a", 0.01)
    queue.add_after("a", 300)
    async with asyncio.timeout(60):
        assert await queue.get() == "a"
    queue.close()


async def test_retries_wait_longer_and_longer_until_success_is_reported() -> None:
    queue: WorkQueue[str] = WorkQueue()
    assert [queue.retry("a") for _ in range(4)] == [0.05, 0.1, 0.2, 0.4]
    for _ in range(30):
        longest = queue.retry("a")
    assert longest == 60.0
    queue.forget("a")
    assert queue.retry("a") == 0.05
    queue.close()
