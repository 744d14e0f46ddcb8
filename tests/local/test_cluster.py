"""A cluster from outside: up, down, status, what is said when something is in the way."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from alidade_local import cluster as local_cluster
from alidade_local.cluster import ClusterError
from alidade_local.kubelet.processes import ProcessIdentity, marked_processes
from alidade_local.main import main
from alidade_local.paths import ClusterPaths
from tests.cluster_fixtures import RunningCluster, wait_until


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RunningCluster]:
    """A cluster that a test may stop and kill as it likes."""
    result = local_cluster.up(data_dir=tmp_path / "c", operator=False, first_backoff_s=0.2)
    yield RunningCluster(result.paths.data_dir, result.paths.kubeconfig)
    local_cluster.down(data_dir=tmp_path / "c")


def pod_manifest(name: str, code: str, *, restart_policy: str = "Never", grace_s: int = 5, **extra: object) -> str:
    container = {"name": "main", "image": "none", "command": ["python", "-c", code], **extra}
    spec = {"restartPolicy": restart_policy, "terminationGracePeriodSeconds": grace_s, "containers": [container]}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def phase(cluster: RunningCluster, name: str) -> str:
    return cluster.kubectl("get", "pod", name, "-o", "jsonpath={.status.phase}", "--ignore-not-found")


def container_processes(cluster: RunningCluster) -> list[int]:
    marker = f"{cluster.data_dir.resolve()}:/"
    return sorted({*marked_processes(marker)} - {*marked_processes(f"{marker}api/")})


def test_a_running_cluster_answers_and_says_so(cluster: RunningCluster) -> None:
    state = local_cluster.status(data_dir=cluster.data_dir)
    assert (state.running, state.api_ready, state.operator_running) == (True, True, False)
    ready = cluster.kubectl("get", "node", "local", "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}")
    assert ready == "True"
    assert json.loads(json.dumps(state.document()))["kubeconfig"] == str(cluster.kubeconfig)


def test_a_fresh_cluster_has_its_types_and_the_workspace_claim(cluster: RunningCluster) -> None:
    assert "pytorchjobs.kubeflow.org" in cluster.kubectl("get", "crd", "-o", "name")
    assert "finetunejobs.alidade.dev" in cluster.kubectl("get", "crd", "-o", "name")
    bound = cluster.kubectl("get", "pvc", "alidade-workspace", "-o", "jsonpath={.status.phase}")
    assert bound == "Bound"
    assert (cluster.data_dir / "volumes" / "default" / "alidade-workspace").is_dir()


def test_starting_twice_leaves_the_running_cluster_as_it_is(
    cluster: RunningCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    before = local_cluster.status(data_dir=cluster.data_dir).pid
    assert main(["up", "--data-dir", str(cluster.data_dir), "--no-operator"]) == 0
    assert "already running" in capsys.readouterr().out
    assert local_cluster.status(data_dir=cluster.data_dir).pid == before


def test_of_two_starts_at_once_one_starts_and_the_other_waits_for_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "alidade_local.main", "up", "--no-operator", "--data-dir", str(tmp_path / "c")]
    starts = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(start.communicate(timeout=120)[0] + f" ({start.returncode})" for start in starts)
    try:
        assert ["already running" in text for text in said] == [True, False], said
        assert all(text.endswith("(0)") for text in said)
        assert local_cluster.status(data_dir=tmp_path / "c").api_ready
    finally:
        local_cluster.down(data_dir=tmp_path / "c")


def test_in_the_foreground_it_logs_and_stops_on_ctrl_c(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--foreground", "--no-operator", "--port", str(port), "--data-dir", str(tmp_path / "c")]
    command = [sys.executable, "-m", "alidade_local.main", "up", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: local_cluster.status(data_dir=tmp_path / "c").api_ready, "it answers")
        assert local_cluster.status(data_dir=tmp_path / "c").server == f"https://127.0.0.1:{port}"
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 0
    assert "the cluster is up" in said
    assert "the cluster is down" in said
    assert not local_cluster.status(data_dir=tmp_path / "c").running


def test_a_second_daemon_in_the_same_folder_is_refused(cluster: RunningCluster) -> None:
    with pytest.raises(ClusterError, match="already running"):
        local_cluster.run_in_foreground(local_cluster.DaemonSettings(cluster.data_dir, operator=False))


def test_the_cluster_is_readable_by_its_owner_only(cluster: RunningCluster) -> None:
    assert cluster.kubeconfig.stat().st_mode & 0o077 == 0
    assert cluster.data_dir.stat().st_mode & 0o077 == 0


def test_a_stopped_cluster_says_how_to_start_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--data-dir", str(tmp_path / "none")]) == 1
    assert "alidade up" in capsys.readouterr().out
    assert main(["down", "--data-dir", str(tmp_path / "none")]) == 0
    assert "was not running" in capsys.readouterr().out


def test_a_taken_port_is_named_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["up", "--data-dir", str(tmp_path / "c"), "--port", str(port), "--no-operator"]) == 1
    assert f"port {port} is taken" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_named_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["up", "--data-dir", str(tmp_path / "file" / "c")]) == 1
    said = capsys.readouterr().err
    assert "cannot be written" in said
    assert "ALIDADE_HOME" in said


def test_a_pid_file_of_another_process_is_not_believed(tmp_path: Path) -> None:
    paths = ClusterPaths(tmp_path)
    own_identity = ProcessIdentity.of(os.getpid())
    assert own_identity is not None
    ProcessIdentity(own_identity.pid, own_identity.start_ticks - 1, own_identity.boot_id).save(paths.daemon)
    assert not local_cluster.status(data_dir=tmp_path).running
    assert local_cluster.down(data_dir=tmp_path) is False


def test_a_restart_keeps_objects_port_and_data_and_purge_removes_them(own: RunningCluster) -> None:
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept"}, "data": {"a": "b"}}
    own.kubectl("apply", "-f", "-", stdin=json.dumps(config_map))
    server = local_cluster.status(data_dir=own.data_dir).server
    assert local_cluster.down(data_dir=own.data_dir)
    assert not local_cluster.status(data_dir=own.data_dir).running
    again = local_cluster.up(data_dir=own.data_dir, operator=False)
    assert again.started
    assert local_cluster.status(data_dir=own.data_dir).server == server
    assert own.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.a}") == "b"
    assert main(["up", "--reset", "--no-operator", "--data-dir", str(own.data_dir)]) == 0
    assert "NotFound" in own.kubectl("get", "configmap", "kept", check=False)
    local_cluster.down(data_dir=own.data_dir, purge=True)
    assert not own.data_dir.exists()


@pytest.mark.parametrize("command", [["up", "--no-operator"], ["up", "--reset"], ["down", "--purge"]])
def test_a_folder_of_other_things_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main([*command, "--data-dir", str(tmp_path)]) == 1
    assert "holds files, but not those of a cluster" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("name", ["", "../other", "a/b", ".hidden", "a b"])
def test_a_name_that_is_no_folders_is_refused(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["down", "--purge", "--name", name]) == 1
    assert f"the name of the cluster is {name!r}" in capsys.readouterr().err


def test_clusters_of_different_names_have_folders_of_their_own(tmp_path: Path) -> None:
    folders = [ClusterPaths.named(name, {"ALIDADE_HOME": str(tmp_path)}).data_dir for name in ("a", "b")]
    assert folders == [tmp_path / "a", tmp_path / "b"]


def test_down_ends_pods_with_their_grace_and_always_pods_go_on_at_the_next_start(own: RunningCluster) -> None:
    wait_for_term = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('bye'), sys.exit(7)));"
        "print('running', flush=True); time.sleep(600)"
    )
    own.kubectl("apply", "-f", "-", stdin=pod_manifest("serves", wait_for_term, restart_policy="Always"))
    own.kubectl("apply", "-f", "-", stdin=pod_manifest("trains", wait_for_term))
    for name in ("serves", "trains"):
        wait_until(lambda name=name: "running" in own.kubectl("logs", name, check=False), f"{name} runs")
    local_cluster.down(data_dir=own.data_dir)
    assert container_processes(own) == []
    local_cluster.up(data_dir=own.data_dir, operator=False, first_backoff_s=0.2)
    trains = json.loads(own.kubectl("get", "pod", "trains", "-o", "json"))["status"]
    assert (trains["phase"], trains["reason"]) == ("Failed", "Terminated")
    assert trains["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7
    restarted = wait_until(lambda: _restarted(own, "serves"), "the Always pod runs again")
    assert restarted["lastState"]["terminated"]["exitCode"] == 7
    assert "bye" in own.kubectl("logs", "serves", "--previous")


def _restarted(cluster: RunningCluster, name: str) -> dict[str, dict[str, dict[str, int]]] | None:
    pod = json.loads(cluster.kubectl("get", "pod", name, "-o", "json"))
    status = (pod["status"].get("containerStatuses") or [{}])[0]
    return status if status.get("restartCount") == 1 and "running" in status["state"] else None


def test_after_sigkill_of_the_daemon_nothing_is_left_and_pods_follow_their_restart_policy(own: RunningCluster) -> None:
    # The second process has left the container's session, as torchrun's workers do.
    code = (
        "import subprocess, sys, time;"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True);"
        "print('running', flush=True); time.sleep(600)"
    )
    own.kubectl("apply", "-f", "-", stdin=pod_manifest("always", code, restart_policy="Always"))
    own.kubectl("apply", "-f", "-", stdin=pod_manifest("never", code))
    for name in ("always", "never"):
        wait_until(lambda name=name: "running" in own.kubectl("logs", name, check=False), f"{name} runs")
        wait_until(lambda name=name: phase(own, name) == "Running", f"{name} is reported running")
    before = container_processes(own)
    assert len(before) == 4
    pid = local_cluster.status(data_dir=own.data_dir).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not local_cluster.status(data_dir=own.data_dir).running, "the daemon is gone")
    local_cluster.up(data_dir=own.data_dir, operator=False, first_backoff_s=0.2)
    restarted = wait_until(lambda: _restarted(own, "always"), "the Always pod runs again")
    assert restarted["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    wait_until(lambda: phase(own, "never") == "Failed", "the Never pod failed")
    assert not set(before) & set(container_processes(own))


def test_down_after_sigkill_ends_what_the_daemon_left(own: RunningCluster) -> None:
    own.kubectl("apply", "-f", "-", stdin=pod_manifest("sleeps", "import time; time.sleep(600)"))
    wait_until(lambda: phase(own, "sleeps") == "Running", "the pod runs")
    pid = local_cluster.status(data_dir=own.data_dir).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not local_cluster.status(data_dir=own.data_dir).running, "the daemon is gone")
    assert local_cluster.down(data_dir=own.data_dir) is False
    assert container_processes(own) == []


def test_starting_takes_less_than_three_seconds_of_processor_time(tmp_path: Path) -> None:
    # Processor time, because the wall clock of a shared machine says nothing about us.
    local_cluster.up(data_dir=tmp_path / "c", operator=False)
    try:
        pid = local_cluster.status(data_dir=tmp_path / "c").pid
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    finally:
        local_cluster.down(data_dir=tmp_path / "c")
    user_ticks, system_ticks = int(stat[11]), int(stat[12])
    assert (user_ticks + system_ticks) / os.sysconf("SC_CLK_TCK") < 3.0


def test_importing_the_cluster_does_not_import_the_server() -> None:
    code = "import sys, alidade_local.cluster; print('aiohttp' in sys.modules or 'cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
