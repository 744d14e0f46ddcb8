"""Where a Service of the local cluster is reached from this machine."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from alidade_cli.kube import Cluster
from alidade_local import service_ports


@pytest.mark.parametrize(
    ("address", "port", "first_usable", "url"),
    [
        ("127.20.240.1", 80, 1, "http://127.20.240.1:80"),
        ("127.20.240.1", 80, 1024, "http://127.20.240.1:10080"),
        ("127.20.240.1", 8080, 1024, "http://127.20.240.1:8080"),
        ("10.96.0.1", 80, 1, None),
        ("None", 80, 1, None),
        (None, 80, 1, None),
    ],
)
def test_the_address_leads_to_where_the_service_is_listened_on(
    monkeypatch: pytest.MonkeyPatch, address: str | None, port: int, first_usable: int, url: str | None
) -> None:
    monkeypatch.setattr(service_ports, "first_usable_port", lambda: first_usable)
    spec = SimpleNamespace(cluster_ip=address, ports=[SimpleNamespace(port=port, protocol="TCP")])
    core = SimpleNamespace(read_namespaced_service=lambda _name, _namespace: SimpleNamespace(spec=spec))
    monkeypatch.setattr(Cluster, "_core", core)
    assert Cluster(Path("kubeconfig"), "default").loopback_address("chat") == url
