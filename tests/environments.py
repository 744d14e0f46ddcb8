"""Environments of their own for packages that do not go with the project's."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def python_with(packages: str, folder: str) -> str:
    """An interpreter that has the packages, from .tools/folder; skips where they cannot be installed."""
    home = ROOT / ".tools" / folder
    made = subprocess.run(
        [sys.executable, ROOT / "tools" / "environment.py", home, *packages.split()], capture_output=True, text=True
    )
    if made.returncode == 1:
        pytest.skip(made.stderr.strip().splitlines()[-1])
    made.check_returncode()
    return made.stdout.strip()


@contextmanager
def listening(
    command: Sequence[str], port: int, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The address of a server on loopback, from when it listens until it is ended; environment: default: ours."""
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out, env=environment) as server:
        try:
            deadline = time.monotonic() + 120
            while not _is_taken(port):
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, f"nothing listens on {port}: {log.read_text()}"
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
