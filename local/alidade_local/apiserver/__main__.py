"""Serves a data folder until SIGTERM; `kubectl --kubeconfig D/kubeconfig` speaks to it."""

import argparse
import asyncio
import logging
import secrets
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from alidade_local.apiserver.auth import ADMIN_GROUP, UserInfo
from alidade_local.apiserver.journal import JournalInUseError
from alidade_local.apiserver.server import start_api_server
from alidade_local.apiserver.settings import ApiServerSettings
from alidade_local.pki import ensure_certificates, write_kubeconfig


def _token(path: Path) -> str:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32))
    return path.read_text()


async def _serve(data_dir: Path, port: int) -> None:
    certificates = ensure_certificates(data_dir / "pki")
    token = _token(data_dir / "admin.token")
    server = await start_api_server(
        ApiServerSettings(
            data_dir=data_dir,
            tls_cert=certificates.cert,
            tls_key=certificates.key,
            tokens={token: UserInfo("alidade-admin", (ADMIN_GROUP,))},
            pod_logs=data_dir / "pods",
            port=port,
        )
    )
    write_kubeconfig(data_dir / "kubeconfig", server.url, certificates.ca, token)
    print(f"serving {server.url}; export KUBECONFIG={(data_dir / 'kubeconfig').resolve()}", flush=True)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    await server.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m alidade_local.apiserver", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of objects, certificates and kubeconfig")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 (the default) takes a free one")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(_serve(arguments.data_dir, arguments.port))
    except JournalInUseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
