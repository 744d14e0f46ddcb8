"""From where a Service is listened on, to where its connections go."""

from __future__ import annotations

from typing import Any

import pytest

from alidade_local.service_ports import listening_ports
from alidade_local.services.endpoints import Place, routes

Doc = dict[str, Any]

HTTP = {"name": "http", "port": 80, "targetPort": "web"}
OTHER = {"name": "other", "port": 9000}


def service(**spec: Any) -> Doc:
    base = {"clusterIP": "127.20.240.1", "selector": {"app": "x"}, "ports": [HTTP, OTHER]}
    return {"metadata": {"name": "s", "namespace": "n", "uid": "u"}, "spec": base | spec}


def pod(ip: str, *, ready: bool = True, port: int = 8080) -> Doc:
    return {
        "metadata": {"name": f"p-{ip}", "namespace": "n", "uid": ip, "labels": {"app": "x"}},
        "spec": {"containers": [{"ports": [{"name": "web", "containerPort": port}]}]},
        "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def test_each_port_leads_to_the_ready_pods_by_each_pods_own_port() -> None:
    pods = [pod("127.20.0.1"), pod("127.20.0.2", port=8081), pod("127.20.0.3", ready=False)]
    assert routes(service(), pods, None, 1) == {
        Place("127.20.240.1", 80): (Place("127.20.0.1", 8080), Place("127.20.0.2", 8081)),
        Place("127.20.240.1", 9000): (Place("127.20.0.1", 9000), Place("127.20.0.2", 9000)),
    }


def test_a_pod_that_is_to_end_gets_nothing_more() -> None:
    leaving = pod("127.20.0.1")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    assert routes(service(), [leaving], None, 1) == {}


@pytest.mark.parametrize("address", ["None", "", None])
def test_a_service_without_an_address_is_listened_on_nowhere(address: str | None) -> None:
    assert routes(service(clusterIP=address), [pod("127.20.0.1")], None, 1) == {}


def test_without_a_selector_the_endpoints_of_its_name_count() -> None:
    subset = {"addresses": [{"ip": "127.0.0.1"}], "ports": [{"name": "http", "port": 3000}]}
    endpoints = {"metadata": {"name": "s"}, "subsets": [subset]}
    found = routes(service(selector=None), [pod("127.20.0.1")], endpoints, 1)
    assert found == {Place("127.20.240.1", 80): (Place("127.0.0.1", 3000),)}
    assert routes(service(), [pod("127.20.0.1")], endpoints, 1)[Place("127.20.240.1", 80)][0].address == "127.20.0.1"


def test_only_tcp_is_passed_on() -> None:
    udp = {"name": "dns", "port": 53, "protocol": "UDP"}
    assert list(routes(service(ports=[udp, OTHER]), [pod("127.20.0.1")], None, 1)) == [Place("127.20.240.1", 9000)]


@pytest.mark.parametrize(
    ("ports", "lowest", "found"),
    [
        ([80, 8080], 1, {80: 80, 8080: 8080}),
        ([80, 8080], 1024, {80: 10080, 8080: 8080}),
        ([80, 10080], 1024, {80: 10081, 10080: 10080}),
        ([80, 81, 10080], 1024, {80: 10081, 81: 10082, 10080: 10080}),
        ([], 1024, {}),
    ],
)
def test_ports_that_may_not_be_listened_on_are_moved(ports: list[int], lowest: int, found: dict[int, int]) -> None:
    assert listening_ports(service(ports=[{"port": port} for port in ports]), lowest) == found
