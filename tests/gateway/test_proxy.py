"""What is passed on and back: everything that is the client's and the replica's, nothing that is the connection's."""

import gzip
import hashlib
import http.client
import json
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from tests.gateway.running import Gateway, Upstream, ask, pieces, wait_for


def test_a_request_reaches_the_replica_as_it_was_sent(gateway: Gateway) -> None:
    given = {"Authorization": "Bearer k", "X-Mine": "1", "X-Request-Id": "abc-1", "X-Forwarded-For": "10.0.0.9"}
    hop = {"Connection": "keep-alive, X-Secret", "X-Secret": "1", "TE": "trailers", "Upgrade": "h2c", "Keep-Alive": "1"}
    reply = ask(gateway.url, "/echo/%E4%BD%A0%2F?a=%20b&c=+d", b"{}", headers=given | hop)
    told = reply.json()
    assert (told["method"], told["target"], told["bytes"]) == ("POST", "/echo/%E4%BD%A0%2F?a=%20b&c=+d", 2)
    headers = {name.lower(): value for name, value in told["headers"]}
    assert headers.items() >= {"authorization": "Bearer k", "x-mine": "1", "x-request-id": "abc-1"}.items()
    assert headers["x-forwarded-for"] == "10.0.0.9, 127.0.0.1"
    assert headers.keys().isdisjoint({"x-secret", "te", "upgrade", "keep-alive", "transfer-encoding", "accept"})


def test_an_answer_comes_back_as_it_was_given(gateway: Gateway) -> None:
    reply = ask(gateway.url, "/echo", headers={"X-Request-Id": "abc-2"})
    assert (reply.headers["X-Own"], reply.headers["X-Request-Id"]) == ("kept", "abc-2")
    assert (reply.headers["X-Alidade-Backend"], reply.headers["X-Hop"]) == ("stable", None)
    assert int(reply.headers["Content-Length"]) == len(reply.body)
    reply = ask(gateway.url, "/compressed", method="GET", body=None)
    assert (reply.headers["Content-Encoding"], reply.headers["Set-Cookie"]) == ("gzip", "a=b")
    assert gzip.decompress(reply.body) == b"whole"


def test_a_request_without_a_name_is_given_one(gateway: Gateway) -> None:
    first, second = (ask(gateway.url, "/echo", headers={"X-Request-Id": "not fit"}) for _ in range(2))
    names = [reply.headers["X-Request-Id"] for reply in (first, second)]
    assert len(set(names)) == 2
    assert all(len(name) == 16 for name in names)
    assert [value for name, value in first.json()["headers"] if name.lower() == "x-request-id"] == [names[0]]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_every_method_is_passed_on(gateway: Gateway, method: str) -> None:
    assert ask(gateway.url, "/echo", body=None, method=method).json()["method"] == method


def test_an_answer_to_head_has_no_body(gateway: Gateway) -> None:
    reply = ask(gateway.url, "/echo", body=None, method="HEAD")
    assert (reply.status, reply.body) == (200, b"")
    assert int(reply.headers["Content-Length"]) > 0


@pytest.mark.parametrize("code", [301, 400, 404, 422, 424, 429, 500])
def test_a_replicas_code_is_the_clients_to_see(gateway: Gateway, code: int) -> None:
    reply = ask(gateway.url, f"/status/{code}")
    assert (reply.status, reply.json()) == (code, {"error": "as asked"})
    assert reply.headers["X-Alidade-Backend"] == "stable"


def test_a_chunk_is_passed_on_before_the_next_is_there(gateway: Gateway, stable: Upstream) -> None:
    connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=60)
    connection.request("POST", "/gate", b"{}")
    response = connection.getresponse()
    assert response.readline() == b"data: before\n"
    ask(stable.url, "/open")
    assert response.read() == b"\ndata: after\n\n"
    connection.close()


def test_a_connection_is_kept_for_the_next_request(gateway: Gateway) -> None:
    connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=60)
    connection.connect()
    kept = connection.sock
    for path in ("/stream?chunks=3", "/echo"):
        connection.request("POST", path, b"{}")
        connection.getresponse().read()
        assert connection.sock is kept
    connection.close()


def test_a_large_body_arrives_whole_however_it_is_framed(gateway: Gateway) -> None:
    size = (1 << 20) - 1
    digest = hashlib.sha256(b"x" * size).hexdigest()
    for body in (b"x" * size, pieces(size)):
        told = ask(gateway.url, "/echo", body).json()
        assert (told["bytes"], told["sha256"]) == (size, digest)


def test_a_compressed_body_is_passed_on_as_what_it_says(gateway: Gateway) -> None:
    told = ask(gateway.url, "/echo", gzip.compress(b"what it says"), headers={"Content-Encoding": "gzip"}).json()
    assert told["sha256"] == hashlib.sha256(b"what it says").hexdigest()
    assert "content-encoding" not in {name.lower() for name, _ in told["headers"]}


def test_a_gigantic_body_is_refused_unread(gateway: Gateway, stable: Upstream) -> None:
    """By its declared length, chunk by chunk, and by what it grows to; the gateway's memory stays as it was."""
    before = resident_mib(gateway)
    seen = stable.seen("/gigantic")
    for body, headers in (
        (None, {"Content-Length": str(1 << 40)}),
        (pieces(64 << 20), {}),
        (gzip.compress(b"\0" * (64 << 20)), {"Content-Encoding": "gzip"}),
    ):
        try:
            reply = ask(gateway.url, "/gigantic", body, headers=headers)
        except (BrokenPipeError, ConnectionResetError):
            continue  # it hung up on what was still being sent
        assert (reply.status, reply.json()["error_type"]) == (413, "payload_too_large")
        assert reply.headers["Connection"] == "close"
    reply = ask(gateway.url, "/gigantic", None, headers={"Content-Length": str(1 << 40)})
    assert reply.status == 413
    assert stable.seen("/gigantic") == seen
    assert resident_mib(gateway) < before + 16


def test_errors_of_the_gateway_have_the_shape_of_the_api_that_was_asked(gateway: Gateway) -> None:
    reply = ask(gateway.url, "/v1/chat/completions", None, headers={"Content-Length": str(1 << 40)})
    assert reply.json()["error"].items() >= {"type": "payload_too_large", "code": 413}.items()


def test_a_body_that_does_not_come_is_not_waited_for(gateway: Gateway) -> None:
    connection = gateway.connect()
    connection.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123")
    answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408 ")
    connection.close()


def test_a_client_that_says_nothing_or_half_a_head_is_hung_up_on(gateway: Gateway) -> None:
    for said in (b"", b"POST /echo HTT"):
        connection = gateway.connect()
        connection.sendall(said)
        assert connection.recv(100) == b""
        connection.close()


def test_bodies_together_have_a_bound(start: Callable[..., Gateway], stable: Upstream) -> None:
    """Two whose replicas are silent take what there is; the third is told to come back, a small one is served."""
    gateway = start(stable.url, max_body_bytes=100_000, max_held_bytes=200_000)
    connections = [gateway.connect() for _ in range(2)]
    for connection in connections:
        gateway.send_request(connection, "/silent", "x" * 90_000)
    gateway.await_status(running=2)
    wait_for(lambda: stable.seen("/silent") == 2)
    reply = ask(gateway.url, "/echo", b"x" * 90_000)
    assert (reply.status, reply.headers["Retry-After"]) == (429, "5")
    assert ask(gateway.url, "/echo", b"x" * 10_000).status == 200
    for connection in connections:
        connection.close()
    gateway.await_status(running=0)
    assert ask(gateway.url, "/echo", b"x" * 90_000).status == 200


@pytest.mark.parametrize("path", ["/silent", "/silent-after"])
def test_who_leaves_is_not_answered_any_more(gateway: Gateway, stable: Upstream, path: str) -> None:
    """Before the first byte and after it: the replica sees its connection closed and can stop generating."""
    path += "/left"
    connection = gateway.connect()
    gateway.send_request(connection, path, {})
    wait_for(lambda: stable.seen(path) == 1)
    if path.startswith("/silent-after"):
        connection.recv(4096)
    connection.close()
    wait_for(lambda: stable.left(path) == 1)
    gateway.await_status(running=0)
    wait_for(lambda: [line["status"] for line in gateway.lines() if line["path"] == path] == [499])


def test_a_slow_reader_gets_all_of_it(gateway: Gateway) -> None:
    connection = gateway.connect(receive_bytes=4096)
    gateway.send_request(connection, "/stream?chunks=400&size=8192", {})
    received = b""
    until = time.monotonic() + 60
    while not received.endswith(b"0\r\n\r\n"):
        assert time.monotonic() < until
        received += connection.recv(65536)
        time.sleep(0.001)
    assert received.count(b"data: stable ") == 400
    connection.close()


def test_who_reads_nothing_is_hung_up_on_and_keeps_nobody_waiting(
    start: Callable[..., Gateway], stable: Upstream
) -> None:
    """What the replica generates meanwhile is not piled up: it is made to wait."""
    gateway = start(stable.url, write_timeout_s=1.5)
    path = "/stream/unread"
    before = resident_mib(gateway)
    connection = gateway.connect(receive_bytes=4096)
    gateway.send_request(connection, f"{path}?chunks=1000&size=100000", {})
    wait_for(lambda: stable.seen(path) == 1)
    assert ask(gateway.url, "/echo").status == 200
    wait_for(lambda: stable.left(path) == 1)
    assert resident_mib(gateway) < before + 16
    connection.close()


def test_a_replica_that_says_nothing_is_given_up(start: Callable[..., Gateway], stable: Upstream) -> None:
    """Before the first byte the client is told; after it the answer breaks, and does not look whole."""
    gateway = start(stable.url, answer_timeout_s=0.5)
    reply = ask(gateway.url, "/silent")
    assert (reply.status, reply.json()["error"]) == (504, "A replica of stable said nothing for 0.5 seconds.")
    reply = ask(gateway.url, "/silent-after")
    assert (reply.status, reply.body, reply.whole) == (200, b"data: half\n\n", False)
    assert gateway.status()["backends"]["stable"].items() >= {"requests": 2, "errors": 2}.items()


@pytest.mark.parametrize("target", ["http://127.0.0.1:1/echo", "//127.0.0.1:1/echo", "/../echo", "/.@127.0.0.1:1/"])
def test_no_target_leads_anywhere_but_to_the_backend(gateway: Gateway, target: str) -> None:
    connection = gateway.connect()
    connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = b"".join(iter(lambda: connection.recv(65536), b""))
    connection.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert json.loads(body)["name"] == "stable"


@pytest.mark.parametrize(
    "said",
    [
        b"\0" * 4000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 500,  # TLS
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nconfided\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nHost: x\r\nX-A: b\0c\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_and_harms_nobody(gateway: Gateway, stable: Upstream, said: bytes) -> None:
    """Two lengths, above all, would let one see another's answer: a gateway reads one request, its replica two."""
    before = stable.seen("/")
    connection = gateway.connect()
    connection.sendall(said)
    answer = connection.recv(4096)
    assert answer == b"" or answer.split()[1] == b"400"
    connection.close()
    assert stable.seen("/") == before
    assert ask(gateway.url, "/echo").status == 200
    assert not any("confided" in line for line in gateway.log)


def test_a_request_to_nowhere_is_refused(gateway: Gateway) -> None:
    connection = gateway.connect()
    connection.sendall(b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert connection.recv(65536).split()[1] in (b"400", b"404")
    connection.close()


def resident_mib(gateway: Gateway) -> float:
    with open(f"/proc/{gateway.process.pid}/status") as status:
        (line,) = (line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@pytest.mark.parametrize("path", ["/v1/load_lora_adapter", "/v1/%75nload_lora_adapter", "/v1/load_lora_adapter/?a=b"])
def test_what_changes_a_replica_is_not_for_clients(gateway: Gateway, path: str) -> None:
    # A stand-in would answer each with its own 404, which names itself as the backend.
    reply = ask(gateway.url, path)
    assert (reply.status, reply.headers["X-Alidade-Backend"]) == (404, None)
    assert ask(gateway.url, "/v1/models").headers["X-Alidade-Backend"] == "stable"
