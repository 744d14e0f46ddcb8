"""Services get addresses of their own."""

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from alidade_local.apiserver.errors import ApiError
from alidade_local.apiserver.kinds_services import ServiceAddresses
from alidade_local.apiserver.server import start_api_server
from alidade_local.apiserver.settings import ApiServerSettings
from alidade_local.loopback import ClusterNetwork
from alidade_local.pki import Certificates
from tests.local.apiserver.conftest import Api, Refused, session_for

Json = dict[str, Any]
SERVICES = "/api/v1/namespaces/default/services"


def service(name: str, **spec: Any) -> Json:
    base = {"selector": {"app": name}, "ports": [{"port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": base | spec}


def network(api: Api) -> IPv4Network:
    return ClusterNetwork.of(api.server.settings.data_dir).services


async def test_every_service_gets_an_address_of_its_own_and_keeps_it(api: Api) -> None:
    created = [await api.post(SERVICES, service(f"s-{index}")) for index in range(50)]
    addresses = [found["spec"]["clusterIP"] for found in created]
    assert len(set(addresses)) == 50
    assert all(IPv4Address(address) in network(api) for address in addresses)
    assert created[0]["spec"]["clusterIPs"] == addresses[:1]

    # Neither an update that does not name it nor a patch changes it.
    replaced = await api.put(f"{SERVICES}/s-0", service("s-0", ports=[{"port": 81}]))
    assert (replaced["spec"]["clusterIP"], replaced["spec"]["ports"][0]["port"]) == (addresses[0], 81)
    applied = await api.apply(f"{SERVICES}/s-0", service("s-0", ports=[{"port": 81}]), force=True)
    assert applied["spec"]["clusterIP"] == addresses[0]
    with pytest.raises(Refused, match="may not change once set"):
        await api.merge(f"{SERVICES}/s-0", {"spec": {"clusterIP": addresses[1]}})

    # Made again, it is found where it was.
    await api.delete(f"{SERVICES}/s-0")
    assert (await api.post(SERVICES, service("s-0")))["spec"]["clusterIP"] == addresses[0]


async def test_headless_services_and_names_of_something_outside_have_none(api: Api) -> None:
    headless = await api.post(SERVICES, service("headless", clusterIP="None"))
    assert (headless["spec"]["clusterIP"], headless["spec"]["clusterIPs"]) == ("None", ["None"])
    outside = {"type": "ExternalName", "externalName": "example.org"}
    created = await api.post(SERVICES, service("outside", **outside))
    assert "clusterIP" not in created["spec"]

    # A change of the type gives and takes the address.
    changed = await api.merge(f"{SERVICES}/outside", {"spec": {"type": "ClusterIP", "externalName": None}})
    assert IPv4Address(changed["spec"]["clusterIP"]) in network(api)
    again = await api.merge(f"{SERVICES}/outside", {"spec": outside})
    assert "clusterIP" not in again["spec"]


async def test_an_address_may_be_asked_for_if_it_is_free_and_in_the_range(api: Api) -> None:
    wanted = str(network(api)[77])
    assert (await api.post(SERVICES, service("chosen", clusterIP=wanted)))["spec"]["clusterIP"] == wanted
    with pytest.raises(Refused, match="provided IP is already allocated"):
        await api.post(SERVICES, service("second", clusterIP=wanted))
    valid = re.escape(str(network(api)))
    with pytest.raises(Refused, match=f"is not in the valid range. The range of valid IPs is {valid}"):
        await api.post(SERVICES, service("second", clusterIP="10.0.0.1"))
    with pytest.raises(Refused, match="must be empty"):
        await api.post(SERVICES, service("second", clusterIP="here"))


async def test_addresses_last_over_a_restart_and_old_services_get_theirs(
    settings: Callable[..., ApiServerSettings], certificates: Certificates
) -> None:
    server = await start_api_server(settings())
    async with session_for(certificates) as session:
        address = (await Api(server, session).post(SERVICES, service("kept")))["spec"]["clusterIP"]
        await Api(server, session).post(SERVICES, service("old"))
    [old] = [stored for stored in server.store.all("services.") if stored.name == "old"]
    server.objects.change_internally("services.", old, lambda document: document["spec"].pop("clusterIP"))
    await server.stop()

    server = await start_api_server(settings())
    async with session_for(certificates) as session:
        api = Api(server, session)
        assert (await api.get(f"{SERVICES}/kept"))["spec"]["clusterIP"] == address
        assert IPv4Address((await api.get(f"{SERVICES}/old"))["spec"]["clusterIP"]) in network(api)
    await server.stop()


def test_when_all_addresses_are_given_out_a_service_is_refused() -> None:
    services: list[Json] = []
    addresses = ServiceAddresses(IPv4Network("127.20.240.0/29"), lambda: services)
    for index in range(6):
        services.append({"spec": {"clusterIP": addresses.allocate("n", f"s-{index}")}})
    assert len({found["spec"]["clusterIP"] for found in services}) == 6
    with pytest.raises(ApiError, match="all 6 addresses are in use"):
        addresses.allocate("n", "one-more")


def test_pods_and_services_never_share_an_address(api: Api) -> None:
    own = ClusterNetwork.of(api.server.settings.data_dir)
    assert own.block[own.last_pod] < own.services[0]
    assert own.services.subnet_of(own.block)
