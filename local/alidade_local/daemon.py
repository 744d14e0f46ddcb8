"""The cluster's one process: API server, controllers and kubelet, with the operator as a child."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from alidade_local.assets import VARIABLE
from alidade_local.errors import ClusterError
from alidade_local.kubelet.processes import ProcessIdentity
from alidade_local.kubelet.settings import KubeletSettings
from alidade_local.paths import ClusterPaths

if TYPE_CHECKING:  # what takes its time to import is imported where it is used
    from alidade_local.control_plane import ControlPlane
    from alidade_local.pki import Certificates

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DaemonSettings:
    """How a cluster is started.

    port: of the API server on 127.0.0.1; 0 takes the one it had before, or a free one.
    operator: whether the operator is started too.
    first_backoff_s: first pause before a crashing container, or a Job's failed pod, is started again.
    assets: the folder of a kube-apiserver and an etcd that take the place of the cluster's own API server.
    """

    data_dir: Path
    port: int = 0
    operator: bool = True
    first_backoff_s: float = 10.0
    assets: Path | None = None


def require_linux() -> None:
    """Raise ClusterError where the kernel lacks what the process kubelet needs."""
    if not hasattr(os, "pidfd_open") or not Path("/proc/self/environ").exists():
        raise ClusterError("the local cluster needs Linux 5.3 or newer with /proc; use a virtual machine, or a cluster")


@contextmanager
def _locked(paths: ClusterPaths) -> Iterator[None]:
    """Hold the cluster's lock; raises ClusterError when another process has it."""
    paths.create()
    with paths.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ClusterError(f"a cluster is already running in {paths.data_dir}; see `alidade status`") from error
        yield


def choose_port(paths: ClusterPaths, requested: int) -> int:
    """The API server's port: the requested one, else the one it had before if that is free, else a free one.

    Raises ClusterError when the requested port is taken.
    """
    if requested:
        if not _is_free(requested):
            raise ClusterError(
                f"port {requested} is taken by another program; choose another with --port, or 0 for any"
            )
        return requested
    known = paths.port.read_text().strip() if paths.port.exists() else ""
    if known.isdigit():
        if _is_free(int(known)):
            return int(known)
        log.warning("port %s of the last start is taken; another one is chosen, read the kubeconfig again", known)
    return 0


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _token(paths: ClusterPaths) -> str:
    """The bearer token of the cluster's administrator, made on the first start."""
    if not paths.token.exists():
        paths.token.touch(mode=0o600)
        paths.token.write_text(secrets.token_urlsafe(32))
    return paths.token.read_text()


def _check_kept(paths: ClusterPaths, assets: Path | None) -> None:
    """Raise ClusterError when the folder's objects are with the other kind of API server."""
    if assets is not None and paths.objects.exists():
        raise ClusterError(
            f"the objects in {paths.data_dir} are the own API server's, which kube-apiserver cannot read; unset "
            f"{VARIABLE}, choose another --name, or begin anew with --reset"
        )
    if assets is None and paths.etcd.exists():
        raise ClusterError(
            f"the objects in {paths.data_dir} are kube-apiserver's; set {VARIABLE} to the folder of its programs, "
            "choose another --name, or begin anew with --reset"
        )


class ApiServer(Protocol):
    """Either kind."""

    @property
    def url(self) -> str: ...

    port: int

    async def stop(self) -> None:
        """End it; what it has answered is kept."""

    async def failure(self) -> BaseException:
        """Return when it has ended by itself."""


async def _start_api_server(
    settings: DaemonSettings, kubelet_settings: KubeletSettings, certificates: Certificates, token: str
) -> ApiServer:
    paths = ClusterPaths(settings.data_dir)
    port = choose_port(paths, settings.port)
    if settings.assets is not None:
        from alidade_local.kube_apiserver import KubeApiServer

        return await KubeApiServer.start(settings.assets, kubelet_settings, certificates, token=token, port=port)
    from alidade_local.apiserver.auth import ADMIN_GROUP, UserInfo
    from alidade_local.apiserver.server import start_api_server
    from alidade_local.apiserver.settings import ApiServerSettings

    return await start_api_server(
        ApiServerSettings(
            data_dir=paths.data_dir,
            tls_cert=certificates.cert,
            tls_key=certificates.key,
            tokens={token: UserInfo("alidade-admin", (ADMIN_GROUP,))},
            pod_logs=paths.pods,
            port=port,
        )
    )


async def serve(settings: DaemonSettings, ready: int | None = None) -> None:
    """Run the cluster until SIGTERM or SIGINT.

    ready: a file descriptor that gets one line of JSON as soon as the cluster can be used.
    Raises ClusterError when it cannot be started.
    """
    require_linux()
    paths = ClusterPaths(settings.data_dir)
    with _locked(paths):
        identity = ProcessIdentity.of(os.getpid())
        assert identity is not None
        identity.save(paths.daemon)
        try:
            await _serve_locked(settings, paths, ready)
        finally:
            for file in (paths.ready, paths.daemon):
                file.unlink(missing_ok=True)


async def _serve_locked(settings: DaemonSettings, paths: ClusterPaths, ready: int | None) -> None:
    # Imported here so that a message about a wrong setting does not wait for them.
    from alidade_local.kubelet.gpus import find_gpus
    from alidade_local.kubelet.kubelet import end_leftover_processes
    from alidade_local.pki import ensure_certificates, write_kubeconfig

    _check_kept(paths, settings.assets)
    stop = _stop_signal()
    gpus = asyncio.create_task(asyncio.to_thread(find_gpus))  # while the rest starts
    kubelet_settings = KubeletSettings(settings.data_dir, first_backoff_s=settings.first_backoff_s)
    leftovers = end_leftover_processes(kubelet_settings)
    if leftovers:
        log.warning("ended %d processes that an earlier start had left running", leftovers)
    certificates, token = ensure_certificates(paths.data_dir / "pki"), _token(paths)
    server = await _start_api_server(settings, kubelet_settings, certificates, token)
    try:
        paths.port.write_text(str(server.port))
        write_kubeconfig(paths.kubeconfig, server.url, certificates.ca, token)
        kubelet_settings = replace(kubelet_settings, gpus=await gpus)
        # The own API server has the pods' files before it; a real one asks the kubelet, which asks who it is.
        asking = certificates if settings.assets is not None else None
        await _run(settings, paths, kubelet_settings, asking, partial(_until_stopped, stop, server), ready)
    finally:
        await server.stop()


async def _run(
    settings: DaemonSettings,
    paths: ClusterPaths,
    kubelet_settings: KubeletSettings,
    asking: Certificates | None,
    until_stopped: Callable[[ControlPlane], Awaitable[None]],
    ready: int | None,
) -> None:
    from alidade_local.bootstrap import set_up_cluster
    from alidade_local.client import ApiClient, KubeConfig
    from alidade_local.control_plane import start_control_plane
    from alidade_local.operator_process import OperatorSupervisor, is_operator_installed

    async with ApiClient(KubeConfig.load(paths.kubeconfig)) as client:
        plane = await start_control_plane(client, kubelet_settings, asking)
        operator: asyncio.Task[None] | None = None
        try:
            await set_up_cluster(client)
            if settings.operator and is_operator_installed():
                supervisor = OperatorSupervisor(paths, kubelet_settings.marker("operator"), kubelet_settings.gpus)
                operator = asyncio.create_task(supervisor.run())
            elif settings.operator:
                log.warning("the operator is not installed beside the local cluster; install alidade-operator")
            _announce(paths, ready)
            log.info("the cluster is up; its kubeconfig is %s", paths.kubeconfig)
            await until_stopped(plane)
        finally:
            # The operator first: what it would do about ending pods is for the next start.
            if operator is not None:
                operator.cancel()
                await asyncio.gather(operator, return_exceptions=True)
            await plane.stop()
            log.info("the cluster is down")


async def _until_stopped(stop: asyncio.Event, server: ApiServer, plane: ControlPlane) -> None:
    """Return on the signal to stop; raises what ended a part of the cluster."""
    stopped = asyncio.create_task(stop.wait())
    failed = {asyncio.create_task(part.failure()) for part in (server, plane)}
    await asyncio.wait([stopped, *failed], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    for task in failed:
        if task.done():
            log.error("the cluster ends: %s", task.result())
            raise task.result()
        task.cancel()


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _announce(paths: ClusterPaths, ready: int | None) -> None:
    """Tell whoever waits that the cluster can be used."""
    paths.ready.write_bytes(paths.daemon.read_bytes())
    if ready is not None:
        os.write(ready, json.dumps({"ready": True}).encode() + b"\n")
        os.close(ready)
