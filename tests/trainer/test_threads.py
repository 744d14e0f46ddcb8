"""How many threads a training process computes with."""

from pathlib import Path

import pytest

from alidade_trainer import launcher
from alidade_trainer.launcher import training_environment
from alidade_trainer.topology import Topology


@pytest.mark.parametrize(
    ("nodes", "processes", "pod_ip", "told", "threads"),
    [
        ("1", 1, "10.0.0.7", None, "8"),
        ("1", 4, "10.0.0.7", None, "2"),
        ("2", 1, "10.0.0.7", None, "8"),  # the other pod has cores of its own
        ("2", 1, "127.3.0.9", None, "4"),  # on the local cluster it has the same ones
        ("1:4", 1, "127.3.0.9", None, "2"),
        ("16", 1, "127.3.0.9", None, "1"),
        ("2", 1, "127.3.0.9", "3", "3"),  # who knows better says so
    ],
)
def test_processes_share_the_cores_of_their_machine(
    nodes: str, processes: int, pod_ip: str, told: str | None, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "count_cores", lambda: 8)
    environment = {"POD_IP": pod_ip} | ({"OMP_NUM_THREADS": told} if told else {})
    topology = Topology(nodes=nodes, processes=processes, node_rank=0)
    assert training_environment(environment, topology, Path("run"))["OMP_NUM_THREADS"] == threads
