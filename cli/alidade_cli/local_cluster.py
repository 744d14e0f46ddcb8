"""The cluster on this machine: up, down, status."""

import json
from pathlib import Path

import click

from alidade_cli.errors import CommandFailed
from alidade_local import cluster
from alidade_local.daemon import DaemonSettings
from alidade_local.paths import DEFAULT_NAME, ClusterPaths

__all__ = ["DEFAULT_NAME", "down", "kubeconfig", "print_status", "up"]


def kubeconfig(name: str) -> Path:
    """The kubeconfig of a local cluster, whether it runs or not."""
    return ClusterPaths.named(name).kubeconfig


def up(name: str, *, port: int, operator: bool, foreground: bool) -> None:
    """Starts a cluster and says how to reach it; in the foreground, returns when it is stopped."""
    try:
        if foreground:
            cluster.run_in_foreground(DaemonSettings(ClusterPaths.named(name).data_dir, port=port, operator=operator))
            return
        result = cluster.up(name, port=port, operator=operator)
    except cluster.ClusterError as error:
        raise CommandFailed(str(error)) from error
    click.echo(
        f"cluster {name} is up, after {result.seconds:.1f} s" if result.started else f"cluster {name} already runs"
    )
    click.echo(f"export KUBECONFIG={result.paths.kubeconfig}")


def down(name: str, *, purge: bool) -> None:
    """Stops a cluster and says what is left of it."""
    try:
        stopped = cluster.down(name, purge=purge)
    except cluster.ClusterError as error:
        raise CommandFailed(str(error)) from error
    folder = ClusterPaths.named(name).data_dir
    left = f"its data stays in {folder}" if folder.exists() else "nothing of it is left"
    click.echo(f"cluster {name} {'is stopped' if stopped else 'was not running'}; {left}")


def print_status(name: str, *, as_json: bool) -> int:
    """Prints how a cluster is doing; 0 when its API answers, else 1."""
    state = cluster.status(name)
    if as_json:
        click.echo(json.dumps(state.document()))
    elif not state.running:
        click.echo(f"cluster {name} is not running; start it with `alidade up`")
    else:
        pods = ", ".join(f"{count} {phase}" for phase, count in sorted((state.pods or {}).items())) or "none"
        operator = f"process {state.operator_pid}" if state.operator_running else "not running"
        for label, value in (
            ("api", f"{state.server} {'answers' if state.api_ready else 'does not answer'}"),
            ("operator", f"{operator}, log {state.operator_log}"),
            ("pods", pods),
            ("data", state.data_dir),
            ("kubeconfig", state.kubeconfig),
        ):
            click.echo(f"{label:12}{value}")
    return 0 if state.api_ready else 1
