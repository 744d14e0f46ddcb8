"""What goes wrong with the cluster is told in a sentence, whatever was asked of it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from kubernetes.client import ApiException
from urllib3.exceptions import MaxRetryError, ProtocolError
from urllib3.exceptions import NewConnectionError as Refused

from alidade_cli.errors import ClusterSilent, CommandFailed
from alidade_cli.kube import Cluster, kind_named

FTJ = kind_named("ftj")
CALLS: list[Callable[[Cluster], Any]] = [
    lambda cluster: cluster.find(FTJ, "a"),
    lambda cluster: cluster.names(FTJ),
    lambda cluster: cluster.pods("app=a"),
    lambda cluster: list(cluster.log_lines("a-0", "main", follow=False)),
]


class Raises:
    """A client whose every call ends so."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        def call(*args: object, **options: object) -> NoReturn:
            raise self._error

        return call


def cluster_that(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Cluster:
    for client in ("_core", "_objects"):
        monkeypatch.setattr(Cluster, client, Raises(error))
    return Cluster(Path("kubeconfig"), "team-a")


@pytest.mark.parametrize("call", CALLS)
def test_who_may_not_read_is_told_so(monkeypatch: pytest.MonkeyPatch, call: Callable[[Cluster], Any]) -> None:
    cluster = cluster_that(monkeypatch, ApiException(status=403, reason="Forbidden"))
    with pytest.raises(CommandFailed, match=r"you may not read .* in namespace team-a: Forbidden"):
        call(cluster)


@pytest.mark.parametrize("call", [*CALLS, lambda cluster: cluster.loopback_address("chat")])
def test_a_cluster_that_does_not_answer_is_named(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[Cluster], Any]
) -> None:
    refused = Refused(SimpleNamespace(host="a", port=1), "Connection refused")  # type: ignore[arg-type]
    cluster = cluster_that(monkeypatch, MaxRetryError(SimpleNamespace(), "/", refused))  # type: ignore[arg-type]
    with pytest.raises(ClusterSilent, match=r"the cluster of kubeconfig does not answer: Connection refused"):
        call(cluster)


def test_a_log_that_breaks_off_ends_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def lines() -> Any:
        yield b"step 1\n"
        raise ProtocolError("Connection broken")

    monkeypatch.setattr(Cluster, "_core", SimpleNamespace(read_namespaced_pod_log=lambda *args, **options: lines()))
    told = Cluster(Path("kubeconfig"), "default").log_lines("a-0", "main", follow=True)
    assert next(told) == "step 1"
    with pytest.raises(CommandFailed, match="does not answer: Connection broken"):
        next(told)


def test_what_is_not_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = cluster_that(monkeypatch, ApiException(status=404, reason="Not Found"))
    assert cluster.find(FTJ, "a") is None
    assert cluster.loopback_address("chat") is None
