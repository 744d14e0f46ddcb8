"""`alidade-serve` and other servers as processes, and the few requests that every test makes."""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

DEFAULTS = {
    "name": "tiny",
    "port": 0,
    "host": "127.0.0.1",
    "threads": 1,
    "slots": 2,
    "max_input_tokens": 256,
    "drain_delay_s": 0.2,
}


class HttpProcess:
    """A Python program that serves HTTP, whose log is read as it is written. listening: what its address follows."""

    def __init__(self, arguments: list[str], listening: str = "listening: ") -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        self.log: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self._await_line(listening).partition(listening)[2].split()[0].rstrip('"}')
        self.key: str | None = None

    def wait_for_line(self, part: str) -> str:
        """The next line of the log that holds the text."""
        return self._await_line(part)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def get(self, path: str) -> tuple[int, str]:
        return self._ask(urllib.request.Request(self.url + path, headers=self._headers()))

    def post(self, path: str, body: object) -> tuple[int, Any]:
        """Status and document; body is sent as JSON unless it is bytes."""
        status, text = self.post_raw(path, body if isinstance(body, bytes) else json.dumps(body).encode())
        return status, json.loads(text)

    def post_raw(self, path: str, body: bytes) -> tuple[int, str]:
        return self._ask(urllib.request.Request(self.url + path, body, self._headers()))

    def stream(self, path: str, body: object) -> Iterator[dict[str, Any]]:
        """The events of a stream, until it ends or the iteration is left."""
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), self._headers())
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            for line in answer:
                if line.startswith(b"data: {"):
                    yield json.loads(line[6:])

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels; 0 when there is none."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in self.get("/metrics")[1].splitlines()
            if line.startswith((name + " ", name + "{")) and all(label in line for label in wanted)
        )

    def await_metric(self, name: str, value: float, **labels: str) -> None:
        """Waits until a metric has a value; fails after 60 seconds."""
        until = time.monotonic() + 60
        while self.metric(name, **labels) != value:
            assert time.monotonic() < until, f"{name} is {self.metric(name, **labels)}, not {value}"
            time.sleep(0.01)

    def connect(self, receive_bytes: int | None = None) -> socket.socket:
        """A bare connection, for those who speak HTTP badly; its receive buffer can be made small."""
        address = urlsplit(self.url)
        assert address.hostname is not None
        connection = socket.socket()
        connection.settimeout(60)
        if receive_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.connect((address.hostname, address.port or 80))
        return connection

    def send_request(self, connection: socket.socket, path: str, body: object) -> None:
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        connection.sendall(head + content)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def _ask(self, request: urllib.request.Request) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            self.headers = error.headers
            return error.code, error.read().decode()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log.append(line)
            self._lines.put(line)
        self._lines.put("")

    def _await_line(self, part: str) -> str:
        while True:
            line = self._lines.get(timeout=60)
            assert line, "the server ended: " + "".join(self.log[-20:])
            if part in line:
                return line


class Server(HttpProcess):
    """`alidade-serve`."""

    def __init__(self, model: Path, cache: Path, flags: dict[str, object]) -> None:
        arguments = [f"--model={model}", f"--cache={cache}", *as_flags(DEFAULTS | flags)]
        super().__init__(["-m", "alidade_serving.main", *arguments])

    def wait_until_ready(self) -> None:
        self._await_line('"ready: ')

    def generate(self, inputs: str, **parameters: object) -> tuple[int, Any]:
        return self.post("/generate", {"inputs": inputs, "parameters": parameters})


def as_flags(settings: dict[str, object]) -> list[str]:
    """Settings as a command line gives them."""
    return [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
