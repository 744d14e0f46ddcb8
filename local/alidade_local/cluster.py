"""Starting, stopping and looking at a local cluster: what `alidade up`, `down` and `status` call."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import select
import shutil
import signal
import ssl
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from alidade_local.daemon import DaemonSettings, require_linux, serve
from alidade_local.errors import ClusterError
from alidade_local.kubelet.processes import ProcessIdentity
from alidade_local.kubelet.settings import KubeletSettings
from alidade_local.paths import DEFAULT_NAME, ClusterPaths

__all__ = ["ClusterError", "ClusterPaths", "ClusterStatus", "UpResult", "down", "run_in_foreground", "status", "up"]

START_TIMEOUT_S = 60.0
# Pods get up to 30 s, the operator 10 s; the rest is writing down how they ended.
STOP_TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class UpResult:
    """A running cluster. started: whether this call started it; seconds: how long that took."""

    paths: ClusterPaths
    started: bool
    seconds: float


@dataclass(frozen=True)
class ClusterStatus:
    """What can be seen of a cluster from outside.

    pods: how many pods of each phase; None while the API does not answer.
    """

    data_dir: Path
    kubeconfig: Path
    running: bool
    pid: int | None
    server: str | None
    api_ready: bool
    operator_running: bool
    operator_pid: int | None
    pods: dict[str, int] | None
    log: Path
    operator_log: Path

    def document(self) -> dict[str, Any]:
        """The status as JSON has it."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}


def up(
    name: str = DEFAULT_NAME,
    *,
    data_dir: Path | None = None,
    port: int = 0,
    operator: bool = True,
    first_backoff_s: float = 10.0,
) -> UpResult:
    """Start a cluster in the background and return once it can be used; a running one is left as it is.

    data_dir: its folder; by default `$ALIDADE_HOME/<name>`, or `~/.alidade/<name>`.
    Raises ClusterError, which says what to do.
    """
    require_linux()
    paths = _paths(name, data_dir)
    if _is_up_soon(paths):
        return UpResult(paths, started=False, seconds=0.0)
    begun = time.monotonic()
    settings = DaemonSettings(paths.data_dir, port=port, operator=operator, first_backoff_s=first_backoff_s)
    try:
        _start_daemon(paths, settings)
    except ClusterError:
        if _is_up_soon(paths):  # somebody else started it in the same moment
            return UpResult(paths, started=False, seconds=0.0)
        raise
    return UpResult(paths, started=True, seconds=time.monotonic() - begun)


def run_in_foreground(settings: DaemonSettings, ready: int | None = None) -> None:
    """Run a cluster in this process until SIGTERM or SIGINT; raises ClusterError when it cannot be started."""
    asyncio.run(serve(settings, ready))


def down(name: str = DEFAULT_NAME, *, data_dir: Path | None = None, purge: bool = False) -> bool:
    """Stop a cluster with its pods and its operator; returns whether there was one to stop.

    purge: also delete its folder, with everything in its volumes.
    Raises ClusterError when it does not stop, and for a folder to purge that is not a cluster's.
    """
    paths = _paths(name, data_dir)
    if purge:
        paths.check_is_own()
    daemon = _daemon(paths)
    if daemon is not None:
        _end_daemon(paths, daemon)
    if paths.data_dir.exists():
        # A daemon that was killed leaves its pods and its operator behind.
        from alidade_local.kubelet.kubelet import end_leftover_processes

        end_leftover_processes(KubeletSettings(paths.data_dir))
        for stale in (paths.ready, paths.daemon, paths.operator_process):
            stale.unlink(missing_ok=True)
    if purge:
        shutil.rmtree(paths.data_dir, ignore_errors=True)
    return daemon is not None


def status(name: str = DEFAULT_NAME, *, data_dir: Path | None = None) -> ClusterStatus:
    """How a cluster is doing; never raises for one that is down."""
    paths = _paths(name, data_dir)
    daemon, operator = _daemon(paths), ProcessIdentity.load(paths.operator_process)
    operator_pid = operator.pid if operator is not None and operator.is_alive() else None
    server, pods = None, None
    if daemon is not None and paths.kubeconfig.exists():
        server, pods = _ask(paths)
    return ClusterStatus(
        data_dir=paths.data_dir,
        kubeconfig=paths.kubeconfig,
        running=daemon is not None,
        pid=daemon.pid if daemon is not None else None,
        server=server,
        api_ready=pods is not None,
        operator_running=operator_pid is not None,
        operator_pid=operator_pid,
        pods=pods,
        log=paths.log,
        operator_log=paths.operator_log,
    )


def _paths(name: str, data_dir: Path | None) -> ClusterPaths:
    return ClusterPaths(data_dir.absolute()) if data_dir is not None else ClusterPaths.named(name)


def _daemon(paths: ClusterPaths) -> ProcessIdentity | None:
    """The daemon's process if it lives; a file left by a dead one, even if its id was recycled, says nothing."""
    identity = ProcessIdentity.load(paths.daemon)
    return identity if identity is not None and identity.is_alive() else None


def _is_up_soon(paths: ClusterPaths) -> bool:
    """Whether a daemon is there already; one that somebody else is starting is waited for."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while (daemon := _daemon(paths)) is not None:
        if ProcessIdentity.load(paths.ready) == daemon:
            return True
        if time.monotonic() > deadline:
            raise ClusterError(f"process {daemon.pid} has not made the cluster ready; {paths.log} says how far it came")
        time.sleep(0.05)
    return False


def _start_daemon(paths: ClusterPaths, settings: DaemonSettings) -> None:
    paths.create()
    output = paths.log.open("ab")
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "alidade_local.main", "serve", "--data-dir", str(paths.data_dir)]
    command += ["--port", str(settings.port), "--ready-fd", str(writing)]
    command += ["--first-backoff-s", str(settings.first_backoff_s)]
    command += [] if settings.operator else ["--no-operator"]
    with output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[writing],
            start_new_session=True,
        )
    os.close(writing)
    try:
        _wait_until_ready(paths, process, reading)
    finally:
        os.close(reading)
        process.returncode = process.poll() or 0  # it goes on without us


def _wait_until_ready(paths: ClusterPaths, process: subprocess.Popen[bytes], reading: int) -> None:
    """Read the daemon's one line; raises ClusterError with what it said, or where to look."""
    if not select.select([reading], [], [], START_TIMEOUT_S)[0]:
        process.kill()
        raise ClusterError(f"the cluster was not ready within {START_TIMEOUT_S:g} s; {paths.log} says how far it came")
    line = os.read(reading, 65536)
    answer = json.loads(line) if line.strip() else {}
    if answer.get("ready"):
        return
    process.wait()
    raise ClusterError(answer.get("error") or f"the cluster ended while it started; {paths.log} says why")


def _end_daemon(paths: ClusterPaths, daemon: ProcessIdentity) -> None:
    try:
        descriptor = os.pidfd_open(daemon.pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        if select.select([descriptor], [], [], STOP_TIMEOUT_S)[0]:
            return
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        if not select.select([descriptor], [], [], REQUEST_TIMEOUT_S)[0]:
            raise ClusterError(f"process {daemon.pid} does not end; {paths.log} may say why")
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(daemon.pid, os.WNOHANG)  # ours if this process started it


def _ask(paths: ClusterPaths) -> tuple[str | None, dict[str, int] | None]:
    """(address of the API server, pods by phase); the second is None when it does not answer."""
    from alidade_local.client import KubeConfig

    config = KubeConfig.load(paths.kubeconfig)
    address = urlsplit(config.server)
    connection = http.client.HTTPSConnection(
        address.hostname or "127.0.0.1",
        address.port,
        timeout=REQUEST_TIMEOUT_S,
        context=ssl.create_default_context(cadata=config.ca_pem),
    )
    try:
        connection.request("GET", "/api/v1/pods", headers={"Authorization": f"Bearer {config.token}"})
        answer = connection.getresponse()
        items = json.loads(answer.read())["items"] if answer.status == 200 else None
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        return config.server, None
    finally:
        connection.close()
    if items is None:
        return config.server, None
    pods: dict[str, int] = {}
    for item in items:
        phase = (item.get("status") or {}).get("phase", "Pending")
        pods[phase] = pods.get(phase, 0) + 1
    return config.server, pods
