"""What a job says over HTTP while it runs: /progress for the operator, /metrics for Prometheus, /healthz for probes."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, generate_latest


class StatusServer:
    """Answers on its own threads until `close`."""

    def __init__(self, document: Callable[[], bytes], registry: CollectorRegistry, *, host: str, port: int) -> None:
        """Binds at once; port 0 takes a free one. Raises OSError when the address cannot be bound.

        document: the progress as JSON, asked for at each request.
        """
        self._server = ThreadingHTTPServer((host, port), _handler(document, registry))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="status", daemon=True).start()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self._server.server_address[0]!s}:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stops answering and frees the port."""
        self._server.shutdown()
        self._server.server_close()


def _handler(document: Callable[[], bytes], registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30  # seconds; a client that never finishes its request must not keep a thread

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/progress":
                self._answer("application/json", document())
            elif path == "/metrics":
                self._answer("text/plain; version=0.0.4; charset=utf-8", generate_latest(registry))
            elif path == "/healthz":
                self._answer("text/plain; charset=utf-8", b"ok\n")
            else:
                self.send_error(404, explain="Known paths: /progress /metrics /healthz")

        def _answer(self, content_type: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Requests are not logged: the log is for the work."""

    return Handler
