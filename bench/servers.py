"""Servers that benchmarks start, and the load that `alidade bench serve` puts on them."""

import json
import platform
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def running(
    command: Sequence[str], port: int, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[str, int]]:
    """Address and process of a server that answers at /health of that port. SystemExit when it does not."""
    with log.open("w") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as started:
        try:
            url = f"http://127.0.0.1:{port}"
            _await(f"{url}/health", started, log)
            yield url, started.pid
        finally:
            started.terminate()
            try:
                started.wait(timeout=20)
            except subprocess.TimeoutExpired:
                started.kill()


def embedded(model: Path, port: int, *flags: str) -> list[str]:
    """The command of a server of a .gguf file, under the name `bench`."""
    command = [sys.executable, "-m", "alidade_serving.main", f"--model={model}", f"--port={port}", "--name=bench"]
    return [*command, "--host=127.0.0.1", "--drain-delay-s=0", *flags]


def load(url: str, *options: str) -> dict[str, Any]:
    """What `alidade bench serve` measures under one load."""
    command = [str(Path(sys.executable).parent / "alidade"), "bench", "serve", url, "--output=json", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)["runs"][0]
    return found


def free_port() -> int:
    """A port of loopback that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def processor() -> str:
    """Name of this machine's processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _await(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise SystemExit(f"The server does not answer; {log} says why.")
