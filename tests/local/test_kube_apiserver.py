"""A cluster whose API server is a real one: skipped where KUBEBUILDER_ASSETS names none.

With that variable set, the other tests of tests/local that start clusters run on a real API server, too.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from alidade_local import cluster as local_cluster
from alidade_local.assets import find_assets
from alidade_local.daemon import DaemonSettings
from alidade_local.errors import ClusterError
from alidade_local.kubelet.processes import marked_processes
from alidade_local.main import main
from tests.cluster_fixtures import RunningCluster, wait_until
from tests.local.workloads import SLEEP, Doc, apply, container, get, pod, wait_for_phase

needs_assets = pytest.mark.skipif(
    not os.environ.get("KUBEBUILDER_ASSETS"),
    reason="no real API server: set KUBEBUILDER_ASSETS to a folder with kube-apiserver and etcd",
)


FAILS_ONCE = """
import pathlib, sys, time
print("run", flush=True)
if not (file := pathlib.Path("ran")).exists():
    file.touch()
    sys.exit(3)
time.sleep(3)
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    data_dir = tmp_path_factory.mktemp("real")
    result = local_cluster.up(data_dir=data_dir, operator=False, first_backoff_s=0.2)
    yield RunningCluster(data_dir, result.paths.kubeconfig)
    local_cluster.down(data_dir=data_dir)


def config_map(name: str, *owners: Doc, **metadata: object) -> Doc:
    references = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
        for owner in owners
    ]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "ownerReferences": references, **metadata},
    }


def made(cluster: RunningCluster, document: Doc) -> Doc:
    apply(cluster, document)
    found = get(cluster, "configmap", document["metadata"]["name"])
    assert found is not None
    return found


@needs_assets
def test_it_is_the_real_one(real: RunningCluster) -> None:
    assert "kube-apiserver" in real.kubectl("get", "svc", "kubernetes", "-o", "yaml", "--show-managed-fields")
    assert "finetunejobs.alidade.dev" in real.kubectl("get", "crd", "-o", "name")
    assert "system:basic-user" in real.kubectl("get", "clusterroles", "-o", "name")


@needs_assets
def test_logs_are_shown_followed_and_of_the_run_before(real: RunningCluster) -> None:
    apply(real, pod("logs", container(FAILS_ONCE), policy="OnFailure", grace_s=0))
    wait_until(lambda: "run" in real.kubectl("logs", "logs", "--previous", check=False), "the first run has ended")
    refused = real.kubectl("exec", "logs", "--", "ls", check=False)
    assert "exec is not offered by the local cluster" in refused
    assert real.kubectl("logs", "logs", "-f") == "run\n", "to the end of the container"
    assert real.kubectl("logs", "-l", "app=logs", "--prefix", "--tail=1") == "[pod/logs/main] run\n"
    assert "container none is not valid for pod logs" in real.kubectl("logs", "logs", "-c", "none", check=False)


@needs_assets
@pytest.mark.parametrize("cascade", ["background", "foreground", "orphan"])
def test_dependents_go_with_their_owner_or_stay(real: RunningCluster, cascade: str) -> None:
    owner = made(real, config_map(f"owner-{cascade}"))
    child = made(real, config_map(f"child-{cascade}", owner))
    grandchild = made(real, config_map(f"grandchild-{cascade}", child))
    real.kubectl("delete", "configmap", f"owner-{cascade}", f"--cascade={cascade}")
    if cascade == "orphan":
        freed = get(real, "configmap", f"child-{cascade}")
        assert freed is not None
        assert "ownerReferences" not in freed["metadata"]
        assert get(real, "configmap", f"grandchild-{cascade}") == grandchild
    else:
        wait_until(lambda: get(real, "configmap", f"grandchild-{cascade}") is None, "nothing is left")


@needs_assets
def test_of_two_owners_one_may_go(real: RunningCluster) -> None:
    owners = [made(real, config_map(name)) for name in ("first", "second")]
    made(real, config_map("owned", *owners))
    real.kubectl("delete", "configmap", "first")
    wait_until(
        lambda: len((get(real, "configmap", "owned") or {})["metadata"]["ownerReferences"]) == 1, "one owner is left"
    )


@needs_assets
def test_a_namespace_goes_with_what_is_in_it(real: RunningCluster) -> None:
    real.kubectl("create", "namespace", "passing")
    wait_until(lambda: "default" in real.kubectl("get", "sa", "-n", "passing", "-o", "name"), "it is furnished")
    real.kubectl("apply", "-n", "passing", "-f", "-", stdin=json.dumps(pod("p", container(SLEEP), grace_s=0)))
    real.kubectl("delete", "namespace", "passing", "--timeout=60s")
    assert "NotFound" in real.kubectl("get", "namespace", "passing", check=False)


@needs_assets
def test_a_service_accounts_token_is_known_and_judged(real: RunningCluster) -> None:
    token = real.kubectl("create", "token", "default").strip()
    asked = ("auth", "can-i", "list", "pods", "--token", token)
    assert real.kubectl(*asked, check=False).startswith("no")
    real.kubectl("create", "rolebinding", "all", "--clusterrole=cluster-admin", "--serviceaccount=default:default")
    wait_until(lambda: real.kubectl(*asked, check=False).startswith("yes"), "its role is heeded")


@needs_assets
def test_objects_survive_a_kill_and_no_process_does(tmp_path: Path) -> None:
    data_dir = tmp_path / "c"
    result = local_cluster.up(data_dir=data_dir, operator=False)
    own = RunningCluster(data_dir, result.paths.kubeconfig)
    try:
        apply(own, config_map("kept"), pod("sleeps", container(SLEEP)))
        wait_for_phase(own, "sleeps", "Running")
        before = marked_processes(f"{data_dir.resolve()}:/")
        assert len(before) == 3, "etcd, kube-apiserver and the pod"
        pid = local_cluster.status(data_dir=data_dir).pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not local_cluster.status(data_dir=data_dir).running, "the daemon is gone")
        local_cluster.up(data_dir=data_dir, operator=False)
        assert get(own, "configmap", "kept") is not None
        assert not set(before) & set(marked_processes(f"{data_dir.resolve()}:/"))
    finally:
        local_cluster.down(data_dir=data_dir)
    assert marked_processes(f"{data_dir.resolve()}:/") == []


@needs_assets
def test_the_cluster_ends_when_its_api_server_does(tmp_path: Path) -> None:
    data_dir = tmp_path / "c"
    local_cluster.up(data_dir=data_dir, operator=False)
    try:
        (process,) = marked_processes(f"{data_dir.resolve()}:/api/kube-apiserver/")
        os.kill(process, signal.SIGKILL)
        wait_until(lambda: not local_cluster.status(data_dir=data_dir).running, "the cluster has ended, too")
    finally:
        local_cluster.down(data_dir=data_dir)
    assert "kube-apiserver has ended with code 137" in (data_dir / "cluster.log").read_text()
    assert marked_processes(f"{data_dir.resolve()}:/") == []


@pytest.mark.parametrize("present", [[], ["etcd"], ["kube-apiserver"]])
def test_a_folder_without_its_programs_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], present: list[str]
) -> None:
    for name in present:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    missing = "etcd" if "kube-apiserver" in present else "kube-apiserver"
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    assert main(["up", "--data-dir", str(tmp_path / "c")]) == 1
    said = capsys.readouterr().err
    assert f"KUBEBUILDER_ASSETS is {tmp_path}, where there is no program {missing}" in said
    assert not (tmp_path / "c").exists()


def test_without_the_variable_there_is_no_real_one() -> None:
    assert find_assets({}) is None
    assert find_assets({"KUBEBUILDER_ASSETS": ""}) is None


@pytest.mark.parametrize(("kept", "assets"), [("state.db", Path("/assets")), ("etcd", None)])
def test_objects_of_the_other_kind_of_api_server_are_not_forgotten(
    tmp_path: Path, kept: str, assets: Path | None
) -> None:
    for name in ("lock", kept):
        (tmp_path / name).touch()
    with pytest.raises(ClusterError, match="begin anew with --reset"):
        local_cluster.run_in_foreground(DaemonSettings(tmp_path, operator=False, assets=assets))
