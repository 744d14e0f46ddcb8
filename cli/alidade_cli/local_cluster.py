"""The cluster on this machine: what alidade-local does, as commands of `alidade`."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alidade_cli.errors import CommandFailed
from alidade_cli.kube import Cluster
from alidade_local.errors import ClusterError
from alidade_local.main import main
from alidade_local.paths import DEFAULT_NAME, ClusterPaths

__all__ = ["DEFAULT_NAME", "connect", "kubeconfig", "run", "volumes_of"]


def kubeconfig(name: str, data_dir: Path | None = None) -> Path:
    """The kubeconfig of a local cluster, whether it runs or not."""
    try:
        return (ClusterPaths(data_dir.absolute()) if data_dir else ClusterPaths.named(name)).kubeconfig
    except ClusterError as error:
        raise CommandFailed(str(error)) from error


def connect(namespace: str | None) -> Cluster:
    """The kubeconfig's cluster, else the local one."""
    return Cluster.connect(namespace, fallback=kubeconfig(DEFAULT_NAME))


def volumes_of(namespace: str) -> list[Path]:
    """The folders of the local cluster's claims in a namespace, each named like its claim; none without a cluster."""
    folder = ClusterPaths.named(DEFAULT_NAME).volumes / namespace
    return sorted(claim for claim in folder.iterdir() if claim.is_dir()) if folder.is_dir() else []


def run(command: str, name: str, data_dir: Path | None, flags: Sequence[str] = ()) -> int:
    """Runs up, down or status of alidade-local with further flags; returns its exit code."""
    words = [command, "--name", name, *(["--data-dir", str(data_dir)] if data_dir else []), *flags]
    doing = {"up": "The cluster starts", "down": "The cluster stops"}.get(command)
    if doing is None or "--foreground" in flags:
        return main(words)
    with _spinning(doing):
        return main(words)


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
