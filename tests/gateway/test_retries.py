"""What is tried again, where, and how often; and that nothing is once the client has seen a byte."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from tests.gateway.running import Gateway, Reply, Upstream, ask, wait_for
from tests.ports import free_port


@pytest.fixture
def nobody() -> str:
    """An address where connections are refused."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def crowd() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as pool:
        yield pool


def counts(gateway: Gateway, side: str) -> tuple[int, int]:
    told = gateway.status()["backends"][side]
    return told["requests"], told["errors"]


def test_what_the_canary_refuses_stable_answers(start: Callable[..., Gateway], stable: Upstream, nobody: str) -> None:
    gateway = start(stable.url, canary=nobody, canary_percent=100)
    reply = ask(gateway.url, "/echo")
    assert (reply.status, reply.headers["X-Alidade-Backend"], reply.json()["name"]) == (200, "stable", "stable")
    assert counts(gateway, "canary") == (1, 1)
    assert counts(gateway, "stable") == (1, 0)
    assert gateway.metric("modelserve_gateway_retries_total", backend="canary", reason="unreachable") == 2


def test_a_canary_that_is_unready_or_breaks_is_left_for_stable(
    start: Callable[..., Gateway], replica: Callable[..., Upstream], stable: Upstream
) -> None:
    canary = replica("canary")
    gateway = start(stable.url, canary=canary.url, canary_percent=100)
    assert ask(gateway.url, "/echo").headers["X-Alidade-Backend"] == "canary"
    canary.process.kill()
    assert ask(gateway.url, "/echo").headers["X-Alidade-Backend"] == "stable"
    assert counts(gateway, "canary") == (2, 1)


@pytest.mark.parametrize("path", ["/break-once/1", "/unready-once/1", "/head-then-break-once/1"])
def test_what_failed_before_the_first_byte_is_tried_once_more(gateway: Gateway, stable: Upstream, path: str) -> None:
    """The connection broke, the replica was loading, or only a head had come: the client sees none of it."""
    before = counts(gateway, "stable")
    reply = ask(gateway.url, path, b'{"inputs": "all of it"}')
    assert (reply.status, reply.json()["bytes"], stable.seen(path)) == (200, 23, 2)
    assert counts(gateway, "stable") == (before[0] + 1, before[1])


def test_a_request_that_breaks_replicas_is_not_sent_to_one_after_another(gateway: Gateway, stable: Upstream) -> None:
    reply = ask(gateway.url, "/break/poison")
    assert (reply.status, reply.json()["error_type"]) == (502, "broken")
    assert stable.seen("/break/poison") == 2
    assert gateway.metric("modelserve_gateway_requests_total", backend="gateway", code="502") == 1


def test_what_breaks_the_canary_is_stables_to_answer(
    start: Callable[..., Gateway], replica: Callable[..., Upstream], stable: Upstream
) -> None:
    canary = replica("canary")
    gateway = start(stable.url, canary=canary.url, canary_percent=100)
    reply = ask(gateway.url, "/break-once/canary")
    assert (reply.status, reply.headers["X-Alidade-Backend"]) == (200, "stable")
    assert (canary.seen("/break-once/canary"), stable.seen("/break-once/canary")) == (1, 2)
    assert (counts(gateway, "canary"), counts(gateway, "stable")) == ((1, 1), (1, 0))


def test_nothing_is_tried_again_after_a_byte_was_sent(gateway: Gateway, stable: Upstream) -> None:
    before = counts(gateway, "stable")
    reply = ask(gateway.url, "/half")
    assert (reply.status, reply.body, reply.whole) == (200, b"data: half\n\n", False)
    assert stable.seen("/half") == 1
    assert counts(gateway, "stable") == (before[0] + 1, before[1] + 1)
    wait_for(lambda: [line["status"] for line in gateway.lines() if line["path"] == "/half"] == [502])
    assert gateway.metric("modelserve_gateway_requests_total", backend="stable", code="502") == 1


def test_an_answer_cut_short_does_not_look_whole_to_an_old_client_either(gateway: Gateway) -> None:
    """HTTP/1.0 ends answers by closing; here the connection is reset instead."""
    connection = gateway.connect()
    connection.sendall(b"POST /half HTTP/1.0\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        list(iter(lambda: connection.recv(65536), b""))
    connection.close()


def test_a_killed_replica_takes_only_its_own_requests_along(
    start: Callable[..., Gateway], replica: Callable[..., Upstream], stable: Upstream, crowd: ThreadPoolExecutor
) -> None:
    """Twenty-four streams on two replicas; one is killed amid them. What came later goes to the other."""
    canary = replica("canary")
    gateway = start(stable.url, canary=canary.url, canary_percent=50)
    path = "/stream/killed"
    streams = [crowd.submit(ask, gateway.url, f"{path}?chunks=60&interval=0.05") for _ in range(24)]
    wait_for(lambda: canary.seen(path) + stable.seen(path) == 24)
    canary.process.kill()
    later = [crowd.submit(ask, gateway.url, "/echo") for _ in range(8)]
    answers: list[Reply] = [stream.result() for stream in streams]
    lost = [answer for answer in answers if not answer.whole]
    assert {answer.headers["X-Alidade-Backend"] for answer in lost} == {"canary"}
    kept = [answer for answer in answers if answer.headers["X-Alidade-Backend"] == "stable"]
    assert len(lost) + len(kept) == 24
    assert all(answer.whole and answer.body.count(b"data: stable ") == 60 for answer in kept)
    assert [answer.result().status for answer in later] == [200] * 8
    assert {answer.result().json()["name"] for answer in later} == {"stable"}


class Deaf:
    """Takes connections up to the kernel's limit and never looks at them: a node that hangs."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._fillers: list[socket.socket] = []
        for _ in range(8):  # more than the backlog takes: what follows gets no answer to its SYN
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            self._fillers.append(filler)

    def close(self) -> None:
        for made in (*self._fillers, self.listener):
            made.close()


def test_a_node_that_takes_no_connection_is_given_up_soon(start: Callable[..., Gateway], stable: Upstream) -> None:
    with ExitStack() as ended:
        deaf = Deaf()
        ended.callback(deaf.close)
        gateway = start(stable.url, canary=deaf.url, canary_percent=100, connect_timeout_s=0.3)
        reply = ask(gateway.url, "/echo")
        assert (reply.status, reply.headers["X-Alidade-Backend"]) == (200, "stable")
        assert gateway.metric("modelserve_gateway_retries_total", reason="unreachable") == 2


def test_what_speaks_no_http_is_no_answer(start: Callable[..., Gateway], crowd: ThreadPoolExecutor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def babble() -> None:
            listener.settimeout(0.05)
            while not ended.is_set():
                with suppress(TimeoutError):
                    connection, _ = listener.accept()
                    connection.recv(65536)
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
                    connection.close()

        babbling = crowd.submit(babble)
        try:
            gateway = start(f"http://127.0.0.1:{listener.getsockname()[1]}", hold_s=0.5)
            assert ask(gateway.url, "/echo").status == 503
        finally:
            ended.set()
        babbling.result()
