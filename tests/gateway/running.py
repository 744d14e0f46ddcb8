"""`alidade-gateway` and replicas as processes, and requests whose answers are looked at closely."""

import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.ports import free_port
from tests.serving.running import HttpProcess, as_flags

DEFAULTS = {"name": "tiny", "host": "127.0.0.1", "port": 0, "drain_delay_s": 0.2}
_UPSTREAM = str(Path(__file__).with_name("upstream.py"))


class Upstream(HttpProcess):
    """A replica that behaves as the path says."""

    def __init__(self, name: str, port: int | None = None) -> None:
        self.name = name
        super().__init__([_UPSTREAM, name, str(port or free_port())], "Running on ")

    def seen(self, path: str) -> int:
        """How many requests to a path came."""
        count: int = json.loads(self.get("/seen")[1])["seen"].get(path, 0)
        return count

    def left(self, path: str) -> int:
        """How many requests to a path were left by who had sent them."""
        count: int = json.loads(self.get("/seen")[1])["left"].get(path, 0)
        return count


class Gateway(HttpProcess):
    """`alidade-gateway`."""

    def __init__(self, stable: str, **flags: object) -> None:
        settings: dict[str, object] = {**DEFAULTS, "stable": stable, **flags}
        super().__init__(["-m", "alidade_gateway.main", *as_flags(settings)])

    def status(self) -> dict[str, Any]:
        """The document that the operator reads."""
        document: dict[str, Any] = json.loads(self.get("/internal/status")[1])
        return document

    def await_status(self, **wanted: object) -> None:
        """Waits until the document says so; fails after 60 seconds."""
        until = time.monotonic() + 60
        while any((found := self.status()).get(name) != value for name, value in wanted.items()):
            assert time.monotonic() < until, f"{found}, not {wanted}"
            time.sleep(0.01)

    def end(self) -> None:
        """Kills it; fails when it has logged a failure of its own, or anything that is no line of JSON."""
        self.kill()
        lines = [json.loads(line) for line in self.log]
        assert not [line for line in lines if line["level"] == "error" or "trace" in line]

    def lines(self) -> list[dict[str, Any]]:
        """What the access log says so far."""
        return [line for line in map(json.loads, self.log) if "request" in line]


@dataclass
class Reply:
    """An answer. whole: whether it ended as its framing says it would."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    whole: bool = True
    times: list[float] = field(default_factory=list)

    def json(self) -> Any:
        return json.loads(self.body)


def ask(url: str, path: str, body: Any = b"{}", method: str = "POST", headers: dict[str, str] | None = None) -> Reply:
    """One request on a connection of its own; an iterable body is sent in chunks."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        try:
            return Reply(response.status, response.headers, response.read())
        except http.client.IncompleteRead as cut:
            return Reply(response.status, response.headers, cut.partial, whole=False)
    finally:
        connection.close()


def pieces(total: int, size: int = 65536) -> Iterator[bytes]:
    """A body of so many bytes that never lies in memory whole."""
    for start in range(0, total, size):
        yield b"x" * min(size, total - start)


def wait_for(condition: Any, seconds: float = 60) -> None:
    """Waits until a condition holds; fails when it does not."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came to hold"
        time.sleep(0.02)
