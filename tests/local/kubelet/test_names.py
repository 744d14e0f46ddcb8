"""Service names in variables become addresses; nothing else is touched."""

from __future__ import annotations

from typing import Any

import pytest

from alidade_local import service_ports
from alidade_local.kubelet.names import NoAddressYetError, ServiceNames


@pytest.fixture(autouse=True)
def _usable_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports below 1024 may not be listened on, whoever runs the tests."""
    monkeypatch.setattr(service_ports, "first_usable_port", lambda: 1024)


def service(name: str, *, headless: bool = True, namespace: str = "n", selector: str | None = None) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "clusterIP": "None" if headless else "127.20.240.1",
            "selector": {"app": selector or name},
            "ports": [{"port": 80, "targetPort": "http"}, {"port": 8443, "targetPort": "http"}],
        },
    }


def pod(app: str, ip: str, *, phase: str = "Running", namespace: str = "n") -> dict[str, Any]:
    return {
        "metadata": {"name": ip, "namespace": namespace, "labels": {"app": app}, "creationTimestamp": ip},
        "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"phase": phase, "podIP": ip},
    }


NAMES = ServiceNames(
    services=[
        service("job-master-0"),
        service("web", headless=False),
        service("far", namespace="m"),
        service("empty"),
        {
            "metadata": {"name": "out", "namespace": "n"},
            "spec": {"type": "ExternalName", "externalName": "example.org"},
        },
    ],
    pods=[
        pod("job-master-0", "127.20.0.1"),
        pod("web", "127.20.0.2"),
        pod("far", "127.20.0.3", namespace="m"),
        pod("empty", "127.20.0.4", phase="Succeeded"),
    ],
)


@pytest.mark.parametrize(
    ("value", "resolved"),
    [
        ("job-master-0", "127.20.0.1"),
        ("job-master-0:23456", "127.20.0.1:23456"),
        ("job-master-0.n.svc", "127.20.0.1"),
        ("job-master-0.n.svc.cluster.local:80", "127.20.0.1:80"),
        ("far.m.svc", "127.20.0.3"),
        ("far", "far"),
        ("web", "web"),
        ("http://web/v1", "http://127.20.240.1:10080/v1"),
        ("http://web:80/v1?x=y", "http://127.20.240.1:10080/v1?x=y"),
        ("https://web.n.svc:8443", "https://127.20.240.1:8443"),
        ("web.n.svc.cluster.local:8443", "127.20.240.1:8443"),
        ("web.n.svc", "127.20.240.1"),
        ("http://web:81/", "http://127.20.240.1:81/"),
        ("http://out:81/", "http://example.org:81/"),
        ("http://job-master-0:9/x", "http://127.20.0.1:9/x"),
        ("job-master-0/path", "job-master-0/path"),
        ("hf://org/model", "hf://org/model"),
        ("--x=job-master-0", "--x=job-master-0"),
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("2", "2"),
        ("", ""),
    ],
)
def test_a_value_that_is_a_service_becomes_an_address(value: str, resolved: str) -> None:
    assert NAMES.resolve(value, "n") == resolved


def test_a_service_with_an_address_is_found_before_it_has_a_pod() -> None:
    names = ServiceNames(services=[service("web", headless=False)], pods=[])
    assert names.resolve("http://web:8443", "n") == "http://127.20.240.1:8443"


def test_a_headless_service_without_a_live_pod_has_to_be_waited_for() -> None:
    with pytest.raises(NoAddressYetError, match='service "empty" has no pod with an address yet'):
        NAMES.resolve("empty:80", "n")
