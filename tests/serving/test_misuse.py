"""Clients that are slow, silent, gone, too many, too big or without a key, and what they cost the others: nothing."""

import json
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.serving.running import Server

KEY, OTHER_KEY = "s3cret-one", "s3cret-two"
ENDLESS = {"inputs": "hello", "parameters": {"max_new_tokens": 16000}}
"""About as long as a test may take; whoever asks for it leaves early."""


@pytest.fixture(scope="module")
def strict(model_folder: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One slot, three places to wait, a second of patience, two keys; without a token at once it counts as dead."""
    keys = tmp_path_factory.mktemp("keys")
    (keys / "one").write_text(f"{KEY}\n")
    (keys / "two").write_text(f"\n{OTHER_KEY}\n")
    flags: dict[str, object] = {
        "slots": 1,
        "max_concurrent_requests": 4,
        "max_total_tokens": 16384,
        "max_body_bytes": 4096,
        "read_timeout_s": 1,
        "write_timeout_s": 1,
        "stall_timeout_s": 0,
        "keys_from": keys,
    }
    server = Server(model_folder, cache, flags)
    server.key = KEY
    server.wait_until_ready()
    yield server
    server.kill()


@pytest.fixture
def idle(strict: Server) -> Iterator[Server]:
    """The strict server, idle before and after."""
    strict.key = KEY
    yield strict
    strict.key = KEY
    strict.await_metric("modelserve_requests_running", 0)
    strict.await_metric("modelserve_requests_waiting", 0)


def ask(server: Server, path: str, body: object) -> socket.socket:
    """A request whose answer is not read."""
    connection = server.connect()
    send(connection, path, body)
    return connection


def send(connection: socket.socket, path: str, body: object) -> None:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)


def vanish(connection: socket.socket) -> None:
    """Resets the connection, as a machine that went away does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/v1/completions"])
def test_who_leaves_frees_the_slot(idle: Server, path: str) -> None:
    body = ENDLESS if path != "/v1/completions" else {"model": "tiny", "prompt": "hello", "max_tokens": 16000}
    cancelled = idle.metric("modelserve_requests_total", outcome="cancelled")
    connection = ask(idle, path, body)
    idle.await_metric("modelserve_requests_running", 1)
    vanish(connection)
    idle.await_metric("modelserve_requests_total", cancelled + 1, outcome="cancelled")
    assert idle.generate("hello", max_new_tokens=2)[0] == 200
    assert idle.metric("modelserve_requests_total", outcome="incomplete_generation") == 0


def test_who_leaves_the_queue_is_not_generated_for(idle: Server) -> None:
    running = ask(idle, "/generate", ENDLESS)
    idle.await_metric("modelserve_requests_running", 1)
    waiting = ask(idle, "/generate", ENDLESS)
    idle.await_metric("modelserve_requests_waiting", 1)
    vanish(waiting)
    idle.await_metric("modelserve_requests_waiting", 0)
    vanish(running)


def test_ten_times_too_many_are_shed_at_once_and_told_when_to_come_back(idle: Server) -> None:
    running = ask(idle, "/generate", ENDLESS)
    idle.await_metric("modelserve_requests_running", 1)
    waiting = [ask(idle, "/generate", ENDLESS) for _ in range(3)]
    idle.await_metric("modelserve_requests_waiting", 3)
    with ThreadPoolExecutor(40) as crowd:
        answers = list(crowd.map(lambda _: idle.generate("hello", max_new_tokens=1), range(40)))
    assert {status for status, _ in answers} == {429}
    assert answers[0][1]["error_type"] == "overloaded"
    assert 1 <= int(idle.headers["Retry-After"]) <= 60
    assert idle.metric("tgi_queue_size") == 3
    assert idle.metric("tgi_request_failure", err="overloaded") >= 40
    for connection in (*waiting, running):
        vanish(connection)
    idle.await_metric("modelserve_requests_running", 0)
    assert idle.generate("hello", max_new_tokens=1)[0] == 200


def test_who_does_not_read_holds_no_slot_and_is_hung_up_on(idle: Server) -> None:
    """Its window is small and the answer longer than what the sockets hold, so that the server cannot get rid of it."""
    connection = idle.connect(receive_bytes=4096)
    body = {"inputs": "hello", "parameters": {"max_new_tokens": 5000, "top_n_tokens": 5}}
    send(connection, "/generate_stream", body)
    idle.await_metric("modelserve_requests_running", 1)
    idle.await_metric("modelserve_requests_running", 0)
    assert idle.generate("hello", max_new_tokens=1)[0] == 200
    idle.wait_for_line('"path": "/generate_stream", "status": 499')
    received = drained(connection)
    assert b'"finish_reason"' not in received[-2000:]
    connection.close()


def drained(connection: socket.socket) -> bytes:
    """Everything that still comes until the other side hangs up, however it does."""
    received = b""
    with suppress(ConnectionResetError):
        while chunk := connection.recv(65536):
            received += chunk
    return received


@pytest.mark.parametrize("sent", [b"", b"POST /generate HT", b"POST /generate HTTP/1.1\r\nHost: x\r\n"])
def test_who_says_nothing_is_hung_up_on(idle: Server, sent: bytes) -> None:
    connection = idle.connect()
    connection.sendall(sent)
    assert drained(connection) == b""
    connection.close()


def test_a_body_that_does_not_arrive_is_not_waited_for(idle: Server) -> None:
    connection = idle.connect()
    head = f"POST /generate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 100\r\n\r\n"
    connection.sendall(head.encode() + b'{"inputs"')
    assert b"HTTP/1.1 408" in connection.recv(1000)
    connection.close()


def test_a_body_that_is_too_long_is_refused_before_it_is_read(idle: Server) -> None:
    status, answer = idle.post("/generate", {"inputs": "a" * 5000})
    assert (status, answer["error_type"]) == (413, "payload_too_large")
    connection = idle.connect()
    head = f"POST /generate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.sendall(head.encode() + b"1400\r\n" + b"a" * 0x1400 + b"\r\n")
    assert b"HTTP/1.1 413" in connection.recv(1000)
    connection.close()


@pytest.mark.parametrize("key", [None, "wrong", "", f"{KEY}x", "s3cret-ö"])
def test_without_a_key_nothing_is_told(idle: Server, key: str | None) -> None:
    connection = idle.connect()
    authorization = "" if key is None else f"Authorization: Bearer {key}\r\n"
    for path in ("/metrics", "/info", "/v1/models", "/nothing"):
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{authorization}\r\n".encode())
        answer = connection.recv(4000)
        assert answer.startswith(b"HTTP/1.1 401")
        assert b"WWW-Authenticate: Bearer" in answer
    connection.close()


def test_every_key_of_the_secret_is_accepted(idle: Server) -> None:
    idle.key = OTHER_KEY
    assert idle.get("/v1/models")[0] == 200


def test_probes_need_no_key_and_liveness_follows_the_tokens(idle: Server) -> None:
    """This server's patience is 0: it is alive when idle, and counts as dead as soon as it waits for a token."""
    idle.key = None
    assert [idle.get(path)[0] for path in ("/health", "/readyz", "/livez")] == [200, 200, 200]
    connection = ask(idle, "/generate", ENDLESS)
    idle.key = KEY
    idle.await_metric("modelserve_requests_running", 1)
    assert idle.get("/livez")[0] == 503
    vanish(connection)


def test_the_log_tells_of_requests_and_not_what_was_said(idle: Server) -> None:
    idle.generate("Confidential", max_new_tokens=3)
    idle.post("/generate", {"inputs": "Confidential", "parameters": {"stop": "Confidential"}})
    answered = json.loads(idle.wait_for_line('"generatedTokens": 3,'))
    refused = json.loads(idle.wait_for_line('"status": 422'))
    assert (answered["path"], answered["status"], answered["finishReason"]) == ("/generate", 200, "length")
    assert refused["path"] == "/generate"
    assert not any("Confidential" in line or KEY in line for line in idle.log)
