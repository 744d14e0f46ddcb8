"""A cluster on which runs cannot be disturbed is refused with what is missing; what needs a machine is left out."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from alidade_operator.api import Api, Connection
from tests.chaos.__main__ import chosen, main
from tests.chaos.fitness import UnfitClusterError, inspect
from tests.chaos.rig import Need
from tests.ports import free_port


@dataclass
class Cluster:
    """What an API server answers to an inspection."""

    denied: frozenset[str] = frozenset()
    """Resources that may not be created."""
    unknown: frozenset[str] = frozenset()
    is_taken: bool = False
    status: dict[str, Any] = field(default_factory=dict)
    """Of whatever was applied."""
    deleted: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def api(self) -> AsyncIterator[Api]:
        """The way to it."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        async with TestServer(app) as server:
            api = Api(lambda: Connection(str(server.make_url("/")), {}, True), connections=1)
            try:
                yield api
            finally:
                await api.close()

    async def _answer(self, request: web.Request) -> web.Response:
        plural = request.path.rpartition("/")[2]
        if plural == "selfsubjectaccessreviews":
            asked = (await request.json())["spec"]["resourceAttributes"]
            return web.json_response({"status": {"allowed": asked["resource"] not in self.denied}})
        if plural in self.unknown or request.path in self.deleted:
            return _refusal(404, "NotFound", "there is no such thing")
        if request.method == "POST" and self.is_taken:
            return _refusal(409, "AlreadyExists", 'namespaces "chaos" already exists')
        if request.method == "DELETE":
            self.deleted.append(request.path)
        return web.json_response({"items": [], "metadata": {}, "status": self.status})


def _refusal(code: int, reason: str, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "reason": reason, "message": message}, status=code)


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        (
            Cluster(denied=frozenset({"namespaces"})),
            "admin.yaml may not create namespaces, delete namespaces: name one",
        ),
        (
            Cluster(denied=frozenset({"pods"})),
            "may not create pods, delete pods, get pods/log, create pods/eviction: name one of an administrator",
        ),
        (
            Cluster(unknown=frozenset({"alignmentruns", "pytorchjobs"})),
            "does not know AlignmentRun (alidade.dev/v1alpha1), PyTorchJob (kubeflow.org/v1): install Alidade, and",
        ),
        (Cluster(is_taken=True), 'namespace chaos cannot be made: namespaces "chaos" already exists. The suite makes'),
        (Cluster(status={"conditions": [{"type": "Accepted"}]}), "an operator is at work on this cluster"),
    ],
)
async def test_a_cluster_that_is_not_fit_is_refused(cluster: Cluster, words: str) -> None:
    async with cluster.api() as api:
        with pytest.raises(UnfitClusterError, match=re.escape(words)):
            await inspect(api, Path("admin.yaml"), "chaos")
    made = "conditions" in cluster.status
    assert cluster.deleted == (["/api/v1/namespaces/chaos"] if made else []), "what it has made, and nothing else"


def _kubeconfig(path: Path) -> str:
    content = {
        "apiVersion": "v1", "kind": "Config", "current-context": "gone",
        "clusters": [{"name": "gone", "cluster": {"server": f"http://127.0.0.1:{free_port()}"}}],
        "users": [], "contexts": [{"name": "gone", "context": {"cluster": "gone", "user": ""}}],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_a_kubeconfig_that_leads_nowhere_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(file: str) -> str:
        monkeypatch.setattr("sys.argv", ["tests.chaos", "--kubeconfig", file])
        assert main() == 2
        return capsys.readouterr().err

    assert "missing cannot be used: Invalid kube-config file" in said(str(tmp_path / "missing"))
    assert re.search(
        r"the cluster of .*/gone does not answer: .*Connect call failed", said(_kubeconfig(tmp_path / "gone"))
    )


def test_faults_that_need_the_node_or_the_control_plane_are_left_out_and_said_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    everything = {fault.name for fault in chosen(None, frozenset(Need))}
    elsewhere = {fault.name for fault in chosen(None, frozenset())}
    left_out = {"api-server-killed", "kubelet-killed", "node-lost", "disk-full", "volume-read-only"}
    assert everything - elsewhere == left_out
    said = capsys.readouterr().out
    assert all(f"{name} (needs the " in said for name in left_out)
    with pytest.raises(SystemExit, match=r"not possible here: disk-full \(needs the node as root\)"):
        chosen("worker-killed,disk-full", frozenset({Need.NODE}))
    with pytest.raises(SystemExit, match="--faults names comet; there are operator-killed"):
        chosen("comet", frozenset(Need))
