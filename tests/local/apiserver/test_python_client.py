"""The official Python client, as the command line and the SDK use it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config, dynamic, watch

from alidade_local.pki import Certificates, write_kubeconfig
from tests.local.apiserver.conftest import DEFINITIONS, TOKEN, Api, definition, widget

Json = dict[str, Any]
WHERE = ("test.dev", "v1", "default", "widgets")


@pytest.fixture
async def connection(api: Api, certificates: Certificates, tmp_path: Path) -> AsyncIterator[client.ApiClient]:
    write_kubeconfig(tmp_path / "kubeconfig", api.server.url, certificates.ca, TOKEN)
    size = {"type": "object", "properties": {"n": {"type": "integer"}}}
    await api.post(DEFINITIONS, definition(size))
    made = config.new_client_from_config(str(tmp_path / "kubeconfig"))
    yield made
    made.rest_client.pool_manager.clear()
    made.close()


async def test_typed_objects_are_created_patched_and_deleted(connection: client.ApiClient) -> None:
    def work() -> None:
        assert client.VersionApi(connection).get_code().minor == "34"
        core = client.CoreV1Api(connection)
        metadata = client.V1ObjectMeta(name="a")
        core.create_namespaced_config_map("default", client.V1ConfigMap(metadata=metadata, data={"x": "1"}))
        assert core.patch_namespaced_config_map("a", "default", {"data": {"y": "2"}}).data == {"x": "1", "y": "2"}
        operations = [{"op": "remove", "path": "/data/y"}]
        assert core.patch_namespaced_config_map("a", "default", operations).data == {"x": "1"}
        assert core.delete_namespaced_config_map("a", "default").status == "Success"
        spec = client.V1PodSpec(containers=[client.V1Container(name="c", image="i")])
        core.create_namespaced_pod("default", client.V1Pod(metadata=client.V1ObjectMeta(name="p"), spec=spec))
        assert core.read_namespaced_pod("p", "default").status.phase == "Pending"
        names = client.ApiextensionsV1Api(connection).read_custom_resource_definition("widgets.test.dev")
        assert names.spec.names.kind == "Widget"

    await asyncio.to_thread(work)


async def test_custom_objects_are_written_applied_and_watched(connection: client.ApiClient) -> None:
    def work() -> None:
        custom = client.CustomObjectsApi(connection)
        custom.create_namespaced_custom_object(*WHERE, widget("w", n=1))
        assert custom.patch_namespaced_custom_object(*WHERE, "w", {"spec": {"n": 2}})["spec"] == {"n": 2}
        status = {"status": {"phase": "Done"}}
        assert custom.patch_namespaced_custom_object_status(*WHERE, "w", status)["status"] == {"phase": "Done"}
        stream = watch.Watch().stream(custom.list_namespaced_custom_object, *WHERE, timeout_seconds=5)
        event = next(iter(stream))
        assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "w")
        stream.close()
        resource = dynamic.DynamicClient(connection).resources.get(api_version="test.dev/v1", kind="Widget")
        applied = resource.server_side_apply(
            body=widget("w", n=3), name="w", namespace="default", field_manager="sdk", force_conflicts=True
        )
        assert applied.spec.n == 3
        with pytest.raises(client.ApiException) as refused:
            custom.create_namespaced_custom_object(*WHERE, widget("x", n="many"))
        assert refused.value.status == 422

    await asyncio.to_thread(work)
