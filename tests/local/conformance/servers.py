"""API servers to put the same requests to: the local one, one of envtest's binaries, any that a kubeconfig names."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import urllib3
from kubernetes import config

from alidade_local.pki import write_kubeconfig
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
_START_S = 120


@dataclass(frozen=True)
class Server:
    """Where requests go, and who makes them."""

    url: str
    pool: urllib3.PoolManager
    headers: dict[str, str]
    kubeconfig: Path
    pid: int | None = None


def of_kubeconfig(path: Path, pid: int | None = None) -> Server:
    """The server that a kubeconfig points to, as its user."""
    client = config.new_client_from_config(str(path))
    settings = client.configuration
    settings.retries = False
    token = settings.get_api_key_with_prefix("authorization") or settings.get_api_key_with_prefix("BearerToken")
    pool = client.rest_client.pool_manager
    return Server(settings.host, pool, {"Authorization": token} if token else {}, path, pid)


@contextlib.contextmanager
def _process(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | environment)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            if server.pool.request("GET", server.url + "/readyz", headers=server.headers, retries=False).status == 200:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args} is not ready:\n{log.read_text()[-3000:]}")
        time.sleep(0.05)


@contextlib.contextmanager
def local_server() -> Iterator[Server]:
    """Alidade's API server, without controllers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = os.pathsep.join(str(ROOT / package) for package in ("crds", "local"))
        command = [sys.executable, "-m", "alidade_local.apiserver", "--data-dir", name]
        log = folder / "log"
        with _process(command, log, {"PYTHONPATH": path}) as process:
            deadline = time.monotonic() + _START_S
            while "serving https://" not in log.read_text():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the local server does not start:\n{log.read_text()[-3000:]}")
                time.sleep(0.02)
            yield of_kubeconfig(folder / "kubeconfig", process.pid)


@contextlib.contextmanager
def real_server(assets: Path) -> Iterator[Server]:
    """kube-apiserver and etcd of a folder, without controllers: Kubernetes' own convention for tests (envtest)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        client, peer, port = free_port(), free_port(), free_port()
        etcd = [
            str(assets / "etcd"),
            f"--data-dir={folder}/etcd",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
        ]
        token = secrets.token_urlsafe(24)
        (folder / "tokens").write_text(f'{token},admin,admin,"system:masters"\n')
        subprocess.run(
            ["openssl", "genrsa", "-out", str(folder / "accounts.key"), "2048"], check=True, capture_output=True
        )
        kube_apiserver = [
            str(assets / "kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{client}",
            f"--cert-dir={folder}/pki",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={port}",
            f"--token-auth-file={folder}/tokens",
            "--authorization-mode=RBAC",
            "--anonymous-auth=false",
            f"--service-account-key-file={folder}/accounts.key",
            f"--service-account-signing-key-file={folder}/accounts.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.0.0.0/16",
            # It waits for the account that a controller makes; there is no controller in either server.
            "--disable-admission-plugins=ServiceAccount",
        ]
        with (
            _process(etcd, folder / "etcd.log", {}),
            _process(kube_apiserver, folder / "log", {}) as process,
        ):
            authority = folder / "pki" / "apiserver.crt"
            deadline = time.monotonic() + _START_S
            while not authority.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"kube-apiserver does not start:\n{(folder / 'log').read_text()[-3000:]}")
                time.sleep(0.05)
            write_kubeconfig(folder / "kubeconfig", f"https://127.0.0.1:{port}", authority, token)
            server = of_kubeconfig(folder / "kubeconfig", process.pid)
            _until_ready(server, process, folder / "log")
            yield server
