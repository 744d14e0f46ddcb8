"""Manifests in git: the same ones applied again change nothing, and what is promoted is what has succeeded."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.conftest import Cluster
from tests.operator.conftest import ROOT, api_server_process, install_all_kinds

EXAMPLES = ROOT / "examples"
GITOPS = EXAMPLES / "gitops"
ON_THE_SERVER = ("kbqa", "gitops/staging")
"""Folders whose data is larger than the annotation of a client-side apply."""
FILES = sorted(
    path.relative_to(EXAMPLES).as_posix()
    for path in EXAMPLES.rglob("*.yaml")
    if "apiVersion: alidade.dev/" in path.read_text() and path.name != "model.yaml"
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An API server with the resource types, and nobody who acts on them."""
    folder = tmp_path_factory.mktemp("apiserver")
    server = api_server_process(folder)
    server.start()
    try:
        server.wait_for("serving https://")
        asyncio.run(install_all_kinds(folder / "kubeconfig"))
        yield Cluster(folder / "kubeconfig")
    finally:
        server.stop()


def versions(cluster: Cluster, *source: str) -> dict[str, str]:
    """resourceVersion of what is applied, by kind and name."""
    said = json.loads(cluster.kubectl("get", *source, "--output", "json"))
    items = said["items"] if said["kind"] == "List" else [said]
    return {f"{one['kind']}/{one['metadata']['name']}": one["metadata"]["resourceVersion"] for one in items}


CASES = [
    *(("-f", name, side) for name in FILES for side in ("true", "false")),
    *(("-k", name, "true") for name in ON_THE_SERVER),
    *(("-k", "gitops/production", side) for side in ("true", "false")),
]


@pytest.mark.parametrize(("flag", "name", "on_server"), CASES)
def test_the_same_again_changes_nothing(cluster: Cluster, flag: str, name: str, on_server: str) -> None:
    source = (flag, str(EXAMPLES / name))
    cluster.kubectl("apply", f"--server-side={on_server}", *source)
    before = versions(cluster, *source)
    cluster.kubectl("apply", f"--server-side={on_server}", *source)
    assert versions(cluster, *source) == before
    # kubectl fails where there is a difference.
    cluster.kubectl("diff", f"--server-side={on_server}", *source)
    cluster.kubectl("delete", *source)


def promote(cluster: Cluster, folder: Path, resource: str) -> subprocess.CompletedProcess[str]:
    tools = str(ROOT / ".tools/bin")
    environment = os.environ | {
        "KUBECONFIG": str(cluster.kubeconfig),
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
    }
    command = [str(folder / "gitops/promote.sh"), resource, "default"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def tell(cluster: Cluster, resource: str, status: dict[str, Any]) -> None:
    patch = json.dumps({"status": status})
    cluster.kubectl("patch", resource, "--subresource=status", "--type=merge", f"--patch={patch}")


def test_what_has_succeeded_is_promoted_and_nothing_else(cluster: Cluster, tmp_path: Path) -> None:
    shutil.copytree(GITOPS, tmp_path / "gitops")
    target = tmp_path / "gitops/production/model.yaml"
    before = target.read_text()
    (path,) = (EXAMPLES / "kbqa").glob("align-raft.yaml")
    run = yaml.safe_load(path.read_text())
    resource = f"alignmentrun/{run['metadata']['name']}"
    cluster.kubectl("apply", "--server-side", "-f", str(path))

    refused = promote(cluster, tmp_path, resource)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"{resource} is new: only what has succeeded, its gate passed, is promoted" in refused.stderr
    tell(cluster, resource, {"phase": "Failed"})
    assert f"{resource} is Failed" in promote(cluster, tmp_path, resource).stderr
    assert target.read_text() == before

    model: dict[str, Any] = {"uri": "pvc://alidade-workspace/alignmentruns/kbqa/model", "digest": "sha256:abc"}
    model |= {"parameters": 1000, "trainableParameters": 1000}
    tell(cluster, resource, {"phase": "Succeeded", "model": model})
    assert promote(cluster, tmp_path, resource).returncode == 0
    once = target.read_text()
    promote(cluster, tmp_path, resource)
    assert target.read_text() == once, "nothing to commit the second time"
    cluster.kubectl("apply", "--server-side", "-k", str(tmp_path / "gitops/production"))
    served = cluster.read("modelserve", "kbqa-production")
    assert served["spec"]["model"]["uri"] == model["uri"]
    assert served["metadata"]["annotations"]["alidade.dev/model-digest"] == model["digest"]
    assert served["metadata"]["annotations"]["alidade.dev/promoted-from"] == f"default/{resource}"
    cluster.kubectl("delete", resource, "modelserve/kbqa-production")
