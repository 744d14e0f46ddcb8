"""The cluster on this machine: what alidade-local does, as commands of `alidade`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
    words = ["up", "--name", name, "--port", str(port), *([] if operator else ["--no-operator"])]
    if foreground:
        return main([*words, "--foreground"])
    with _spinning("The cluster starts"):
        return main(words)


def down(name: str, *, purge: bool) -> int:
    """Stops a cluster and says what is left of it."""
    with _spinning("The cluster stops"):
        return main(["down", "--name", name, *(["--purge"] if purge else [])])


def status(name: str, output: str) -> int:
    """Prints how a cluster is doing; 0 when its API answers, else 1."""
    return main(["status", "--name", name, "--output", output])


@contextmanager
def _spinning(text: str) -> Iterator[None]:
    """Shows at a terminal that something takes its time."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner

    # What is printed meanwhile goes where it would: stdout may be read by a shell.
    with Live(Spinner("dots", text), console=Console(stderr=True), transient=True, redirect_stdout=False):
        yield
