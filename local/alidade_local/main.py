"""The command `alidade-local`: up, down and status of a local cluster."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from alidade_local import cluster
from alidade_local.assets import find_assets
from alidade_local.cluster import ClusterError, ClusterStatus
from alidade_local.daemon import DaemonSettings
from alidade_local.paths import DEFAULT_NAME, ClusterPaths


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="alidade-local", description="A Kubernetes for one machine.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{up,down,status}")

    up = commands.add_parser("up", help="start the cluster and wait until it can be used")
    _add_place(up)
    _add_start_options(up)
    up.add_argument("--reset", action="store_true", help="begin anew: stop it and delete what it holds first")
    up.add_argument("--foreground", action="store_true", help="stay in the foreground and log to the terminal")

    down = commands.add_parser("down", help="stop the cluster, its pods and its operator")
    _add_place(down)
    down.add_argument("--purge", action="store_true", help="also delete its folder with all objects and volumes")

    status = commands.add_parser("status", help="say how the cluster is doing")
    _add_place(status)
    status.add_argument("-o", "--output", choices=["text", "json"], default="text")

    serve = commands.add_parser("serve")
    _add_place(serve)
    _add_start_options(serve)
    serve.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    return parser


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default=DEFAULT_NAME, help="name of the cluster (default: %(default)s)")
    parser.add_argument("--data-dir", type=Path, help="its folder (default: $ALIDADE_HOME/NAME or ~/.alidade/NAME)")


def _add_start_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=0, help="port of the API server; 0: as before, or a free one")
    parser.add_argument("--no-operator", action="store_true", help="do not start the operator")
    parser.add_argument(
        "--first-backoff-s", type=float, default=10.0, help="first pause before a crashed container is run again"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 for done, 1 for failure (2, by argparse, for wrong usage)."""
    arguments = _parser().parse_args(argv)
    commands = {"up": _up, "down": _down, "status": _status, "serve": _serve}
    try:
        return commands[arguments.command](arguments)
    except ClusterError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


def _data_dir(arguments: argparse.Namespace) -> Path:
    if arguments.data_dir is not None:
        return Path(arguments.data_dir).absolute()
    return ClusterPaths.named(arguments.name).data_dir


def _daemon_settings(arguments: argparse.Namespace) -> DaemonSettings:
    return DaemonSettings(
        data_dir=_data_dir(arguments),
        port=arguments.port,
        operator=not arguments.no_operator,
        first_backoff_s=arguments.first_backoff_s,
        assets=find_assets(os.environ),
    )


def _up(arguments: argparse.Namespace) -> int:
    if arguments.reset:
        cluster.down(data_dir=_data_dir(arguments), purge=True)
    if arguments.foreground:
        return _serve(arguments)
    settings = _daemon_settings(arguments)
    result = cluster.up(
        data_dir=settings.data_dir,
        port=settings.port,
        operator=settings.operator,
        first_backoff_s=settings.first_backoff_s,
    )
    said = f"started in {result.seconds:.1f} s" if result.started else "already running"
    print(f"The cluster in {result.paths.data_dir} is {said}.")
    print(f"export KUBECONFIG={result.paths.kubeconfig}")
    return 0


def _down(arguments: argparse.Namespace) -> int:
    data_dir = _data_dir(arguments)
    stopped = cluster.down(data_dir=data_dir, purge=arguments.purge)
    left = "Its objects and volumes stay there." if data_dir.exists() else "Nothing of it is left."
    print(f"The cluster in {data_dir} {'is stopped' if stopped else 'was not running'}. {left}")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    state = cluster.status(data_dir=_data_dir(arguments))
    print(json.dumps(state.document(), indent=2) if arguments.output == "json" else _describe(state))
    return 0 if state.api_ready else 1


def _describe(state: ClusterStatus) -> str:
    if not state.running:
        return f"Cluster     not running; start it with: alidade up\nData        {state.data_dir}"
    pods = ", ".join(f"{count} {phase}" for phase, count in sorted((state.pods or {}).items())) or "none"
    return "\n".join(
        [
            f"Cluster     running (process {state.pid})",
            f"API         {state.server} {'answers' if state.api_ready else 'does not answer'}",
            f"Operator    {f'running (process {state.operator_pid})' if state.operator_running else 'not running'}",
            f"Pods        {pods}",
            f"Data        {state.data_dir}",
            f"Kubeconfig  {state.kubeconfig}",
            f"Logs        {state.log}, {state.operator_log}",
        ]
    )


def _serve(arguments: argparse.Namespace) -> int:
    ready: int | None = getattr(arguments, "ready_fd", None)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # aiohttp's line per request would fill the log within a day.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    if ready is None:
        cluster.run_in_foreground(_daemon_settings(arguments))
        return 0
    try:
        cluster.run_in_foreground(_daemon_settings(arguments), ready)
    except ClusterError as error:
        with contextlib.suppress(OSError):  # nobody waits for it once the cluster has been up
            os.write(ready, json.dumps({"error": str(error)}).encode())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
