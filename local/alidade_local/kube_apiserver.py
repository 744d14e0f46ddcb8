"""A real API server for the local cluster: kube-apiserver and etcd, from where KUBEBUILDER_ASSETS says they are."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from alidade_local.client import ApiClient, KubeConfig
from alidade_local.errors import ClusterError
from alidade_local.kubelet.processes import ContainerProcess
from alidade_local.kubelet.settings import KubeletSettings
from alidade_local.loopback import ClusterNetwork
from alidade_local.paths import ClusterPaths
from alidade_local.pki import Certificates, ensure_signing_key

log = logging.getLogger(__name__)

ISSUER = "https://kubernetes.default.svc.cluster.local"
READY_TIMEOUT_S = 50.0
STOP_GRACE_S = 10.0
# Relative to the folder that both run in: a socket's path may have 107 bytes. etcd wants a port in every address.
_CLIENT_SOCKET, _PEER_SOCKET = "client:0", "peer:0"
# ServiceAccount mounts tokens, for which the kubelet has no volumes; TaintNodesByCondition and ResourceQuota wait for
# controllers that are not here.
_LEFT_OUT = ("ServiceAccount", "TaintNodesByCondition", "ResourceQuota")


@dataclass
class KubeApiServer:
    """The two processes, running."""

    url: str
    port: int
    _etcd: ContainerProcess
    _api: ContainerProcess
    _folder: Path

    @classmethod
    async def start(
        cls, assets: Path, settings: KubeletSettings, certificates: Certificates, *, token: str, port: int
    ) -> Self:
        """Start both; returns when requests are answered.

        settings: of the cluster; their markers let a later start find the processes should this one be killed.
        token: the administrator's. port: 0 takes a free one.
        Raises ClusterError when they end or do not become ready.
        """
        paths = ClusterPaths(settings.data_dir)
        folder = paths.etcd
        folder.mkdir(mode=0o700, exist_ok=True)
        for name in (_CLIENT_SOCKET, _PEER_SOCKET):
            (folder / name).unlink(missing_ok=True)
        _write_tokens(folder / "tokens.csv", token)
        port = port or _free_port()
        etcd = _start(assets / "etcd", _etcd_flags(), folder, settings)
        api = _start(assets / "kube-apiserver", _api_flags(paths, certificates, port), folder, settings)
        server = cls(f"https://127.0.0.1:{port}", port, etcd, api, folder)
        try:
            await server._until_ready(KubeConfig(server.url, certificates.ca.read_text(), token))
        except BaseException:
            await server.stop()
            raise
        return server

    async def _until_ready(self, config: KubeConfig) -> None:
        async with ApiClient(config) as client:
            ready = asyncio.create_task(client.wait_until_ready(READY_TIMEOUT_S))
            ended = asyncio.create_task(self.failure())
            await asyncio.wait([ready, ended], return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            if not ready.done():
                ready.cancel()
                raise await ended
            try:
                ready.result()
            except TimeoutError as error:
                log_file = self._folder / "kube-apiserver.log"
                raise ClusterError(
                    f"kube-apiserver was not ready within {READY_TIMEOUT_S:g} s; {log_file} says how far it came"
                ) from error

    async def failure(self) -> ClusterError:
        """Return when one of the two has ended by itself."""
        processes = {"etcd": self._etcd, "kube-apiserver": self._api}
        names = {asyncio.create_task(process.wait()): name for name, process in processes.items()}
        try:
            done, _ = await asyncio.wait(names, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in names:
                task.cancel()
        task = done.pop()
        log_file = self._folder / f"{names[task]}.log"
        return ClusterError(f"{names[task]} has ended with code {task.result()}; {log_file} may say why")

    async def stop(self) -> None:
        """End both, the one that has the data last."""
        for process in (self._api, self._etcd):
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(STOP_GRACE_S):
                    await process.wait()
            except TimeoutError:
                await asyncio.to_thread(process.kill)
                await process.wait()


def _start(program: Path, flags: list[str], folder: Path, settings: KubeletSettings) -> ContainerProcess:
    log_file = folder / f"{program.name}.log"
    log_file.unlink(missing_ok=True)
    marker = settings.marker("api", program.name)
    try:
        return ContainerProcess.start(
            [str(program), *flags], environment=os.environ, folder=folder, log=log_file, marker=marker
        )
    except OSError as error:
        raise ClusterError(f"{program} cannot be run: {error.strerror}") from error


def _write_tokens(path: Path, token: str) -> None:
    path.touch(mode=0o600)
    path.write_text(f'{token},alidade-admin,alidade-admin,"system:masters"\n')


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _etcd_flags() -> list[str]:
    return [
        "--data-dir=data",
        f"--listen-client-urls=unix://{_CLIENT_SOCKET}",
        f"--advertise-client-urls=unix://{_CLIENT_SOCKET}",
        f"--listen-peer-urls=unix://{_PEER_SOCKET}",
    ]


def _api_flags(paths: ClusterPaths, certificates: Certificates, port: int) -> list[str]:
    signing_key = ensure_signing_key(paths.etcd / "service-accounts.key")
    return [
        f"--etcd-servers=unix://{_CLIENT_SOCKET}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={certificates.cert}",
        f"--tls-private-key-file={certificates.key}",
        "--token-auth-file=tokens.csv",
        "--anonymous-auth=false",
        "--authorization-mode=RBAC",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={signing_key}",
        f"--service-account-signing-key-file={signing_key}",
        f"--service-cluster-ip-range={ClusterNetwork.of(paths.data_dir).services}",
        # Endpoints may not be of loopback, not even those of the API server itself.
        "--endpoint-reconciler-type=none",
        f"--disable-admission-plugins={','.join(_LEFT_OUT)}",
        f"--kubelet-certificate-authority={certificates.ca}",
        f"--kubelet-client-certificate={certificates.client_cert}",
        f"--kubelet-client-key={certificates.client_key}",
        "--kubelet-preferred-address-types=InternalIP",
    ]
