"""The cluster on this machine: what alidade-local does, as commands of `alidade`."""

from pathlib import Path

from alidade_cli.kube import Cluster
from alidade_local.main import main
from alidade_local.paths import DEFAULT_NAME, ClusterPaths

__all__ = ["DEFAULT_NAME", "connect", "down", "kubeconfig", "status", "up"]


def kubeconfig(name: str) -> Path:
    """The kubeconfig of a local cluster, whether it runs or not."""
    return ClusterPaths.named(name).kubeconfig


def connect(namespace: str | None) -> Cluster:
    """The kubeconfig's cluster, else the local one."""
    return Cluster.connect(namespace, fallback=kubeconfig(DEFAULT_NAME))


def up(name: str, *, port: int, operator: bool, foreground: bool) -> int:
    """Starts a cluster and says how to reach it; in the foreground, returns when it is stopped."""
    flags = (["--foreground"] if foreground else []) + ([] if operator else ["--no-operator"])
    return main(["up", "--name", name, "--port", str(port), *flags])


def down(name: str, *, purge: bool) -> int:
    """Stops a cluster and says what is left of it."""
    return main(["down", "--name", name, *(["--purge"] if purge else [])])


def status(name: str, output: str) -> int:
    """Prints how a cluster is doing; 0 when its API answers, else 1."""
    return main(["status", "--name", name, "--output", output])
