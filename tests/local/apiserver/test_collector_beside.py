"""The garbage collector and the end of namespaces over the API, beside a server that does neither itself."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from alidade_local.apiserver.server import ApiServer
from alidade_local.apiserver.settings import ApiServerSettings
from alidade_local.client import ApiClient, KubeConfig
from alidade_local.controllers.garbage import GarbageCollector
from alidade_local.controllers.namespaces import NamespaceLifecycle
from alidade_local.informer import Informers
from alidade_local.pki import Certificates
from tests.local.apiserver.conftest import CONFIG_MAPS, TOKEN, Api, config_map, session_for

Json = dict[str, Any]


@pytest.fixture
async def beside(settings: Callable[..., ApiServerSettings], certificates: Certificates) -> AsyncIterator[Api]:
    """A server without its own workers but that of definitions, with the controllers as its clients."""
    server = ApiServer(settings())
    server._background = server._background[:1]
    await server.start()
    async with (
        ApiClient(KubeConfig(server.url, certificates.ca.read_text(), TOKEN)) as client,
        session_for(certificates) as session,
    ):
        informers = Informers(client)
        collector, namespaces = GarbageCollector(client, informers), NamespaceLifecycle(client, informers)
        work = [informers.run(), collector.run(), namespaces.controller.run()]
        tasks = [asyncio.create_task(part) for part in work]
        yield Api(server, session)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await server.stop()


async def owned(api: Api, name: str, *owners: Json) -> Json:
    document = config_map(name)
    document["metadata"]["ownerReferences"] = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
        for owner in owners
    ]
    return await api.post(CONFIG_MAPS, document)


@pytest.mark.parametrize("propagation", ["Background", "Foreground"])
async def test_dependents_go(beside: Api, propagation: str) -> None:
    owner = await owned(beside, "owner")
    await owned(beside, "grandchild", await owned(beside, "child", owner))
    await beside.delete(f"{CONFIG_MAPS}/owner?propagationPolicy={propagation}")
    await beside.until(lambda: beside.gone(f"{CONFIG_MAPS}/grandchild"))
    await beside.until(lambda: beside.gone(f"{CONFIG_MAPS}/owner"))


async def test_orphans_stay_without_the_owner(beside: Api) -> None:
    owner, other = await owned(beside, "owner"), await owned(beside, "other")
    await owned(beside, "child", owner, other)
    await beside.delete(f"{CONFIG_MAPS}/owner?propagationPolicy=Orphan")
    await beside.until(lambda: beside.gone(f"{CONFIG_MAPS}/owner"))
    references = (await beside.get(f"{CONFIG_MAPS}/child"))["metadata"]["ownerReferences"]
    assert [reference["name"] for reference in references] == ["other"]
    await beside.delete(f"{CONFIG_MAPS}/other")
    await beside.until(lambda: beside.gone(f"{CONFIG_MAPS}/child"))


async def test_owners_of_an_unknown_kind_are_not_known_to_be_gone(beside: Api) -> None:
    document = config_map("child")
    stranger = {"apiVersion": "elsewhere.dev/v1", "kind": "Thing", "name": "x", "uid": "1-2"}
    document["metadata"]["ownerReferences"] = [stranger]
    await beside.post(CONFIG_MAPS, document)
    await owned(beside, "later", {"metadata": {"name": "never", "uid": "3-4"}})
    await beside.until(lambda: beside.gone(f"{CONFIG_MAPS}/later"))
    assert not await beside.gone(f"{CONFIG_MAPS}/child")


async def test_a_namespace_is_emptied_and_goes(beside: Api) -> None:
    await beside.post("/api/v1/namespaces", {"metadata": {"name": "passing"}})
    await beside.post("/api/v1/namespaces/passing/configmaps", config_map("a"))
    await beside.delete("/api/v1/namespaces/passing")
    await beside.until(lambda: beside.gone("/api/v1/namespaces/passing"))
    assert await beside.gone("/api/v1/namespaces/passing/configmaps/a")
