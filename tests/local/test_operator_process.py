"""The operator beside the cluster is kept running and never left behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import yaml

from alidade_local import cluster as local_cluster
from alidade_local.kubelet.processes import ProcessIdentity, start_ticks
from alidade_local.paths import ClusterPaths
from tests.cluster_fixtures import wait_until


def operator_pid(data_dir: Path, *, not_: int | None = None) -> int:
    def read() -> int | None:
        pid = local_cluster.status(data_dir=data_dir).operator_pid
        return pid if pid != not_ else None

    return wait_until(read, "the operator runs")


def test_an_operator_that_dies_is_started_again_and_ends_with_the_cluster(tmp_path: Path) -> None:
    data_dir = tmp_path / "c"
    local_cluster.up(data_dir=data_dir)
    try:
        second = operator_pid(data_dir)
        for _ in range(4):  # being killed again and again makes no difference
            first = second
            os.kill(first, signal.SIGKILL)
            second = operator_pid(data_dir, not_=first)
        config = yaml.safe_load(ClusterPaths(data_dir).operator_config.read_text())
        assert config["nodePools"][0]["name"] == "local"
        assert config["allowFileUris"] is True
    finally:
        local_cluster.down(data_dir=data_dir)
    assert start_ticks(second) is None


def test_an_operator_left_by_a_killed_daemon_is_ended_at_the_next_start(tmp_path: Path) -> None:
    data_dir = tmp_path / "c"
    local_cluster.up(data_dir=data_dir)
    try:
        operator_pid(data_dir)
        left = ProcessIdentity.load(ClusterPaths(data_dir).operator_process)
        assert left is not None
        daemon = local_cluster.status(data_dir=data_dir).pid
        assert daemon is not None
        os.kill(daemon, signal.SIGKILL)
        wait_until(lambda: not local_cluster.status(data_dir=data_dir).running, "the daemon is gone")
        assert left.is_alive()
        local_cluster.up(data_dir=data_dir)
        assert not left.is_alive()
        assert operator_pid(data_dir) != left.pid
    finally:
        local_cluster.down(data_dir=data_dir)
