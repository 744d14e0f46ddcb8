"""An inference server for tests: real HTTP, and whatever can go wrong at the other end of it."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]
Answer = tuple[int, dict[str, str], bytes]
"""Status, headers, body."""


@dataclass
class Asked:
    """A request as it came; names of headers in lower case."""

    path: str
    headers: dict[str, str]
    body: Json


def said(text: str, *, finish: str = "stop") -> Answer:
    """An answer of OpenAI's chat API."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": 1, "completion_tokens": len(text.split()), "total_tokens": 2}
    return as_json(
        {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    )


def generated(text: str, *, finish: str = "eos_token") -> Answer:
    """An answer of text-generation-inference's /generate."""
    details = {"finish_reason": finish, "generated_tokens": len(text.split()), "prefill": [], "tokens": [], "seed": 1}
    return as_json({"generated_text": text, "details": details})


def as_json(content: object, status: int = 200, **headers: str) -> Answer:
    """A JSON answer; underscores in names of headers are dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"Content-Type": "application/json", **named}, json.dumps(content).encode()


@dataclass
class Script:
    """What the server answers. openai, tgi: which APIs it has. reply: to the question of each request, in order."""

    reply: Callable[[int, Json], Answer]
    openai: bool = True
    tgi: bool = False
    delay_s: float = 0.0
    asked: list[Asked] = field(default_factory=list)
    most_at_once: int = 0
    _busy: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, asked: Asked) -> Answer:
        """The answer to a request."""
        if asked.path == "/v1/models":
            return as_json({"data": [{"id": "served-model"}]} if self.openai else {}, 200 if self.openai else 404)
        if asked.path == "/info":
            return as_json({"model_id": "served-model"} if self.tgi else {}, 200 if self.tgi else 404)
        with self._lock:
            number = len(self.asked)
            self.asked.append(asked)
            self._busy += 1
            self.most_at_once = max(self.most_at_once, self._busy)
        time.sleep(self.delay_s)
        try:
            return self.reply(number, asked.body)
        finally:
            with self._lock:
                self._busy -= 1


@contextmanager
def serving(script: Script) -> Iterator[str]:
    """The address of a server that follows the script."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply({})

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _reply(self, body: Json) -> None:
            status, headers, content = script.answer(
                Asked(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            )
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Tests read what was asked from the script."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
