"""What `helm test` runs says what is wrong with the operator."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.charts.rendering import CHART, render, the
from tests.ports import free_port


@contextmanager
def replica(ready: int, leader: str) -> Iterator[int]:
    """The port of something that answers as a replica does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_probe = self.path == "/readyz"
            self.send_response(ready if is_probe else 200)
            self.end_headers()
            self.wfile.write(b"not listed yet\n" if is_probe else f"alidade_operator_leader {leader}\n".encode())

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def program_run(port: int) -> subprocess.CompletedProcess[str]:
    """The program, without its patience."""
    program = (CHART / "files" / "test.py").read_text()
    assert "PATIENCE_S = 60" in program
    return subprocess.run(
        [sys.executable, "-c", program.replace("PATIENCE_S = 60", "PATIENCE_S = 0")],
        env=os.environ | {"OPERATOR": f"http://127.0.0.1:{port}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("ready", "leader", "code", "words"),
    [
        (200, "1.0", 0, "every replica is ready, and one of them works\n"),
        (200, "0.0", 1, "0 of 1 replicas hold the lease, not one\n"),
        (503, "1.0", 1, "127.0.0.1 is not ready: not listed yet\n"),
    ],
)
def test_it_says_how_the_replicas_are(ready: int, leader: str, code: int, words: str) -> None:
    with replica(ready, leader) as port:
        done = program_run(port)
    assert (done.returncode, done.stdout, done.stderr) == (code, words, "")


def test_it_says_that_nobody_answers() -> None:
    port = free_port()
    done = program_run(port)
    assert done.returncode == 1
    assert done.stdout.startswith(f"http://127.0.0.1:{port} does not answer: ")


def test_it_is_what_the_pod_runs() -> None:
    (container,) = the(render({}), "Pod")["spec"]["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert container["command"] == ["python", "-c", "$(PROGRAM)"]
    assert environment["PROGRAM"] == (CHART / "files" / "test.py").read_text()
    assert "$(" not in environment["PROGRAM"], "Kubernetes would put a variable there"
