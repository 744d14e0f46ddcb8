"""HTTP through the API server to pods and services."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tests.local.apiserver.conftest import PODS, Api, Refused, pod

Json = dict[str, Any]
SERVICES = "/api/v1/namespaces/default/services"


@pytest.fixture
async def backend_port() -> AsyncIterator[int]:
    """A program that says what it was asked."""

    async def echo(request: web.Request) -> web.Response:
        body = {"method": request.method, "path": request.path_qs, "body": await request.text()}
        body["authorized"] = str("Authorization" in request.headers)
        return web.json_response(body, status=418 if request.path == "/teapot" else 200, headers={"X-Own": "yes"})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def test_a_pod_is_reached_by_port_number_and_name(api: Api, backend_port: int) -> None:
    ports = [{"name": "web", "containerPort": backend_port}]
    await api.post(PODS, pod("p", containers=[{"name": "c", "image": "i", "ports": ports}]))
    with pytest.raises(Refused, match="pod p has no address yet"):
        await api.get(f"{PODS}/p/proxy/")
    await api.merge(f"{PODS}/p/status", {"status": {"podIP": "127.0.0.1"}})
    for target in (f"p:{backend_port}", "p:web", "p", f"http:p:{backend_port}"):
        answer = await api.get(f"{PODS}/{target}/proxy/a/b?c=d")
        assert (answer["method"], answer["path"]) == ("GET", "/a/b?c=d")
        assert answer["authorized"] == "False", "the cluster's token is not for pods"
    posted = await api.post(f"{PODS}/p/proxy/x", {"n": 1})
    assert (posted["method"], posted["body"]) == ("POST", '{"n":1}')
    with pytest.raises(Refused) as refused:
        await api.get(f"{PODS}/p/proxy/teapot")
    assert refused.value.code == 418


async def test_a_service_is_reached_through_its_endpoints(api: Api, backend_port: int) -> None:
    spec = {"selector": {"a": "b"}, "ports": [{"name": "web", "port": 80}]}
    await api.post(SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec})
    with pytest.raises(Refused) as refused:
        await api.get(f"{SERVICES}/s:80/proxy/")
    assert (refused.value.code, refused.value.message) == (503, 'no endpoints available for service "s"')
    # One of the addresses refuses: the other gets all there is.
    subset = {"addresses": [{"ip": "127.0.0.1"}, {"ip": "127.0.0.2"}], "ports": [{"name": "web", "port": backend_port}]}
    endpoints = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "s"}, "subsets": [subset]}
    await api.post("/api/v1/namespaces/default/endpoints", endpoints)
    for target in 5 * ("s:80", "s:web", "s"):
        assert (await api.get(f"{SERVICES}/{target}/proxy/v1/models"))["path"] == "/v1/models"
        posted = await api.post(f"{SERVICES}/{target}/proxy/v1/models", {"n": 1})
        assert posted["body"] == '{"n":1}'
    with pytest.raises(Refused, match="service s has no port 81"):
        await api.get(f"{SERVICES}/s:81/proxy/")


async def test_a_pod_that_does_not_listen_is_said_to(api: Api) -> None:
    await api.post(PODS, pod("p"))
    await api.merge(f"{PODS}/p/status", {"status": {"podIP": "127.0.0.1"}})
    with pytest.raises(Refused) as refused:
        await api.get(f"{PODS}/p:1/proxy/")
    assert refused.value.code == 503


async def test_what_the_local_cluster_does_not_offer_is_explained(api: Api) -> None:
    await api.post(PODS, pod("p"))
    with pytest.raises(Refused, match="exec is not offered by the local cluster"):
        await api.post(f"{PODS}/p/exec?command=ls", {})
