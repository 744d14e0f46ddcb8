"""Which pods stand behind a Service, as Endpoints and EndpointSlice say it."""

from __future__ import annotations

from typing import Any

import pytest

from alidade_local.controllers.endpoints import backends, endpoint_slice_document, endpoints_document

Doc = dict[str, Any]


def service(**spec: Any) -> Doc:
    ports = [{"name": "http", "port": 80, "targetPort": "web"}]
    return {
        "metadata": {"name": "s", "namespace": "n", "uid": "u", "labels": {"a": "b"}},
        "spec": {"selector": {"app": "x"}, "ports": ports, **spec},
    }


def pod(ip: str, *, ready: bool = True, phase: str = "Running", app: str = "x", namespace: str = "n") -> Doc:
    return {
        "metadata": {"name": f"p-{ip}", "namespace": namespace, "uid": ip, "labels": {"app": app}},
        "spec": {"nodeName": "local", "containers": [{"ports": [{"name": "web", "containerPort": 8080}]}]},
        "status": {"phase": phase, "podIP": ip, "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def leaving(document: Doc) -> Doc:
    document["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    return document


PODS = [
    pod("127.20.0.2"),
    pod("127.20.0.1", ready=False),
    pod("127.20.0.3", app="y"),
    pod("127.20.0.4", namespace="m"),
    pod("127.20.0.5", phase="Succeeded"),
    leaving(pod("127.20.0.6")),
    pod(""),
]


@pytest.mark.parametrize(
    ("spec", "ready", "others"),
    [
        ({}, ["127.20.0.2"], ["127.20.0.1"]),
        ({"publishNotReadyAddresses": True}, ["127.20.0.1", "127.20.0.2"], []),
        ({"selector": {}}, [], []),
        ({"selector": {"app": "none"}}, [], []),
    ],
)
def test_live_pods_that_match_stand_behind_a_service_by_readiness(
    spec: Doc, ready: list[str], others: list[str]
) -> None:
    found = backends(service(**spec), PODS)
    assert [backend.address for backend in found if backend.ready] == ready
    assert [backend.address for backend in found if not backend.ready] == others


def test_endpoints_name_addresses_pods_and_the_pods_port() -> None:
    document = endpoints_document(service(), backends(service(), PODS))
    [subset] = document["subsets"]
    assert subset["ports"] == [{"port": 8080, "protocol": "TCP", "name": "http"}]
    assert [entry["ip"] for entry in subset["addresses"]] == ["127.20.0.2"]
    assert subset["notReadyAddresses"][0]["targetRef"]["name"] == "p-127.20.0.1"
    assert document["metadata"]["labels"] == {"a": "b"}


def test_the_slice_belongs_to_its_service_and_says_who_is_ready() -> None:
    document = endpoint_slice_document(service(), backends(service(), PODS))
    assert document["metadata"]["labels"]["kubernetes.io/service-name"] == "s"
    assert document["metadata"]["ownerReferences"][0]["uid"] == "u"
    states = {entry["addresses"][0]: entry["conditions"]["ready"] for entry in document["endpoints"]}
    assert states == {"127.20.0.1": False, "127.20.0.2": True}


def test_without_pods_there_are_no_addresses() -> None:
    assert endpoints_document(service(), [])["subsets"] == []
    assert endpoint_slice_document(service(), [])["endpoints"] == []
