"""A server of its own for every test that asks for one, and a client that speaks to it over HTTPS."""

import asyncio
import io
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from alidade_local.apiserver.auth import ADMIN_GROUP, UserInfo
from alidade_local.apiserver.server import ApiServer, start_api_server
from alidade_local.apiserver.settings import ApiServerSettings
from alidade_local.pki import Certificates, ensure_certificates

Json = dict[str, Any]
TOKEN = "admin-token-of-the-tests"
GUEST = "token-of-a-user-without-rights"


class Refused(AssertionError):
    """An answer with a Status of failure."""

    def __init__(self, code: int, status: Json) -> None:
        super().__init__(f"{code}: {status.get('message')}")
        self.code = code
        self.status = status
        self.message: str = status.get("message", "")

    @property
    def causes(self) -> list[tuple[str, str]]:
        """(field, message) of every cause."""
        return [(cause["field"], cause["message"]) for cause in self.status["details"]["causes"]]


class Api:
    """A client of one server."""

    def __init__(self, server: ApiServer, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.session = session

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> Json:
        """The answer's JSON; raises Refused for a failure."""
        headers = {**({"Content-Type": "application/json"} if body is not None else {}), **more.pop("headers", {})}
        encoded = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        data = io.BytesIO(encoded) if encoded is not None else None
        async with self.session.request(method, self.server.url + path, data=data, headers=headers, **more) as answer:
            content = await answer.read()
            result: Json = orjson.loads(content) if content[:1] in b"{[" else {"text": content.decode()}
            if answer.status >= 400:
                raise Refused(answer.status, result)
            return result

    async def get(self, path: str, **more: Any) -> Json:
        return await self.call("GET", path, **more)

    async def post(self, path: str, body: Any, **more: Any) -> Json:
        return await self.call("POST", path, body, **more)

    async def put(self, path: str, body: Any, **more: Any) -> Json:
        return await self.call("PUT", path, body, **more)

    async def delete(self, path: str, body: Any = None, **more: Any) -> Json:
        return await self.call("DELETE", path, body, **more)

    async def merge(self, path: str, patch: Any, **more: Any) -> Json:
        return await self.call("PATCH", path, patch, headers={"Content-Type": "application/merge-patch+json"}, **more)

    async def json_patch(self, path: str, patch: Any) -> Json:
        return await self.call("PATCH", path, patch, headers={"Content-Type": "application/json-patch+json"})

    async def strategic(self, path: str, patch: Any) -> Json:
        media = "application/strategic-merge-patch+json"
        return await self.call("PATCH", path, patch, headers={"Content-Type": media})

    async def apply(self, path: str, config: Any, manager: str = "tester", *, force: bool = False) -> Json:
        query = f"?fieldManager={manager}" + ("&force=true" if force else "")
        return await self.call("PATCH", path + query, config, headers={"Content-Type": "application/apply-patch+yaml"})

    async def until(self, holds: Callable[[], Awaitable[bool]], timeout_s: float = 60.0) -> None:
        """Wait for what the server does in the background."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not await holds():
            assert asyncio.get_running_loop().time() < deadline, "it did not come about"
            await asyncio.sleep(0.01)

    async def gone(self, path: str) -> bool:
        """Whether nothing is there."""
        try:
            await self.get(path)
        except Refused as refused:
            return refused.code == 404
        return False


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return ensure_certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def settings(tmp_path: Path, certificates: Certificates) -> Callable[..., ApiServerSettings]:
    """Settings of a server with its data in the test's folder."""

    def make(**changes: Any) -> ApiServerSettings:
        values: dict[str, Any] = {
            "data_dir": tmp_path / "data",
            "tls_cert": certificates.cert,
            "tls_key": certificates.key,
            "tokens": {TOKEN: UserInfo("admin", (ADMIN_GROUP,)), GUEST: UserInfo("guest")},
            "pod_logs": tmp_path / "pods",
        }
        return ApiServerSettings(**{**values, **changes})

    return make


def session_for(certificates: Certificates, token: str = TOKEN) -> aiohttp.ClientSession:
    """A client session that trusts the tests' authority."""
    context = ssl.create_default_context(cafile=str(certificates.ca))
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context), headers={"Authorization": f"Bearer {token}"}
    )


@pytest.fixture
async def api(settings: Callable[..., ApiServerSettings], certificates: Certificates) -> AsyncIterator[Api]:
    server = await start_api_server(settings())
    async with session_for(certificates) as session:
        yield Api(server, session)
    await server.stop()


def config_map(name: str, **data: str) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def pod(name: str, **spec: Any) -> Json:
    containers = [{"name": "main", "image": "busybox:1"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": containers, **spec},
    }


def definition(schema: Json, *, group: str = "test.dev", plural: str = "widgets", **version: Any) -> Json:
    """A CRD of one version, v1, with the schema of spec (and a free status)."""
    kind = plural.removesuffix("s").capitalize()
    root = {
        "type": "object",
        "properties": {
            "spec": schema,
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": root},
                    "subresources": {"status": {}},
                    **version,
                }
            ],
        },
    }


DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/test.dev/v1/namespaces/default/widgets"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"


def widget(name: str, **spec: Any) -> Json:
    return {"apiVersion": "test.dev/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}
