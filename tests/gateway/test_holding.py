"""Requests that come while there is no replica: held, bounded in number and time, and answered by the first one."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.gateway.running import Gateway, Upstream, ask, wait_for
from tests.ports import free_port


@pytest.fixture
def crowd() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def test_requests_are_held_until_the_first_replica_answers(
    start: Callable[..., Gateway], replica: Callable[..., Upstream], crowd: ThreadPoolExecutor
) -> None:
    port = free_port()
    gateway = start(f"http://127.0.0.1:{port}")
    assert gateway.get("/readyz")[0] == 200
    replies = [crowd.submit(ask, gateway.url, "/echo", b"x" * 5000) for _ in range(10)]
    gateway.await_status(waiting=10, running=0)
    assert gateway.status()["lastRequestAt"] > gateway.status()["startedAt"]
    assert gateway.metric("modelserve_gateway_waiting") == 10
    replica("woken", port)
    assert [(reply.result().status, reply.result().json()["bytes"]) for reply in replies] == [(200, 5000)] * 10
    document = gateway.status()
    assert (document["waiting"], document["running"]) == (0, 0)
    assert document["backends"]["stable"].items() >= {"requests": 10, "errors": 0}.items()
    assert gateway.metric("modelserve_gateway_held_seconds_count") == 10
    assert all(line["heldSeconds"] > 0 for line in gateway.lines() if line["path"] == "/echo")


def test_holding_is_no_latency_of_the_replica(
    start: Callable[..., Gateway], replica: Callable[..., Upstream], crowd: ThreadPoolExecutor
) -> None:
    """Sides are compared by how they answer, not by how long one of them was not there."""
    port = free_port()
    gateway = start(f"http://127.0.0.1:{port}")
    reply = crowd.submit(ask, gateway.url, "/echo")
    gateway.await_status(waiting=1)
    replica("woken", port)
    assert reply.result().status == 200
    held_s = gateway.metric("modelserve_gateway_held_seconds_sum")
    assert held_s > 0.2
    assert gateway.metric("modelserve_gateway_time_to_first_byte_seconds_sum") > held_s
    assert gateway.status()["backends"]["stable"]["secondsP95"] < held_s


def test_a_replica_that_loads_is_waited_for(gateway: Gateway, stable: Upstream) -> None:
    """Its health says yes and its answer is 503, again and again: it is asked at intervals, until the time is up."""
    start = gateway.metric("modelserve_gateway_retries_total", reason="unready")
    reply = ask(gateway.url, "/unready-once/held")
    assert reply.status == 200
    assert gateway.metric("modelserve_gateway_retries_total", reason="unready") == start + 1


def test_holding_ends(start: Callable[..., Gateway], stable: Upstream) -> None:
    nobody = start(f"http://127.0.0.1:{free_port()}", hold_s=0.5)
    loading = start(stable.url, hold_s=0.9)
    for gateway, path, seconds in ((nobody, "/v1/x", "0.5"), (loading, "/v1/status/503", "0.9")):
        reply = ask(gateway.url, path if gateway is nobody else "/status/503")
        assert (reply.status, reply.headers["Retry-After"]) == (503, "5")
        assert f"No replica answered within {seconds} seconds; try again." in reply.body.decode()
        assert gateway.status()["backends"]["stable"].items() >= {"requests": 1, "errors": 1}.items()
        assert gateway.metric("modelserve_gateway_requests_total", backend="gateway", code="503") == 1
    assert 3 <= stable.seen("/status/503") <= 7  # twice at once, then at most each 0.2 seconds


def test_silence_after_holding_is_one_error(
    start: Callable[..., Gateway], replica: Callable[..., Upstream], crowd: ThreadPoolExecutor
) -> None:
    port = free_port()
    gateway = start(f"http://127.0.0.1:{port}", answer_timeout_s=0.5)
    reply = crowd.submit(ask, gateway.url, "/silent")
    gateway.await_status(waiting=1)
    replica("woken", port)
    assert reply.result().status == 504
    assert gateway.status()["backends"]["stable"].items() >= {"requests": 1, "errors": 1}.items()


def test_nothing_is_held_where_holding_is_off(start: Callable[..., Gateway]) -> None:
    for gateway, code in (
        (start(f"http://127.0.0.1:{free_port()}", hold_s=0), 503),
        (start(f"http://127.0.0.1:{free_port()}", max_waiting=0), 429),
    ):
        assert ask(gateway.url, "/echo").status == code


def test_no_more_are_held_than_there_is_room_for(
    start: Callable[..., Gateway], replica: Callable[..., Upstream], crowd: ThreadPoolExecutor
) -> None:
    port = free_port()
    gateway = start(f"http://127.0.0.1:{port}", max_waiting=3)
    held = [crowd.submit(ask, gateway.url, "/echo") for _ in range(3)]
    gateway.await_status(waiting=3)
    reply = ask(gateway.url, "/echo")
    assert (reply.status, reply.headers["Retry-After"]) == (429, "5")
    assert reply.json()["error_type"] == "overloaded"
    replica("woken", port)
    assert [reply.result().status for reply in held] == [200] * 3


def test_who_leaves_makes_room(start: Callable[..., Gateway], replica: Callable[..., Upstream]) -> None:
    port = free_port()
    gateway = start(f"http://127.0.0.1:{port}", max_waiting=1)
    connection = gateway.connect()
    gateway.send_request(connection, "/echo/left", {})
    gateway.await_status(waiting=1)
    connection.close()
    gateway.await_status(waiting=0)
    woken = replica("woken", port)
    assert ask(gateway.url, "/echo").status == 200
    assert woken.seen("/echo/left") == 0
    assert gateway.metric("modelserve_gateway_requests_total", code="499") == 1


@pytest.mark.parametrize("reads", [True, False])
def test_a_proxy_that_leads_nowhere_is_nobody(
    start: Callable[..., Gateway], replica: Callable[..., Upstream], crowd: ThreadPoolExecutor, reads: bool
) -> None:
    """Services of some clusters take every connection, and reset it where there is no replica: at once, or later."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ended = threading.Event()

        def reset_everyone() -> None:
            listener.settimeout(0.05)
            while not ended.is_set():
                with suppress(TimeoutError):
                    connection, _ = listener.accept()
                    if reads:
                        connection.settimeout(10)
                        connection.recv(65536)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.close()

        resetting = crowd.submit(reset_everyone)
        gateway = start(f"http://127.0.0.1:{port}")
        replies = [crowd.submit(ask, gateway.url, "/echo") for _ in range(5)]
        gateway.await_status(waiting=5)
        tries = gateway.metric("modelserve_gateway_retries_total")
        assert (
            tries == gateway.metric("modelserve_gateway_retries_total", reason="broken") == 5 if reads else tries >= 5
        )
        ended.set()
        resetting.result()
    replica("woken", port)
    assert [reply.result().status for reply in replies] == [200] * 5


def test_a_replica_that_a_request_kills_is_not_killed_again_and_again(
    start: Callable[..., Gateway], replica: Callable[..., Upstream], crowd: ThreadPoolExecutor
) -> None:
    port = free_port()
    first = replica("first", port)
    gateway = start(f"http://127.0.0.1:{port}")
    reply = crowd.submit(ask, gateway.url, "/die")
    gateway.await_status(waiting=1)
    assert first.process.wait(timeout=60) == 1
    second = replica("second", port)
    assert reply.result().status == 502
    assert second.process.wait(timeout=60) == 1
    assert gateway.status()["backends"]["stable"].items() >= {"requests": 1, "errors": 1}.items()


def test_between_one_replica_and_the_next_no_request_is_lost(
    start: Callable[..., Gateway], replica: Callable[..., Upstream], crowd: ThreadPoolExecutor
) -> None:
    """The one there is is killed while ten clients ask without pause, and another starts."""
    port = free_port()
    first = replica("first", port)
    gateway = start(f"http://127.0.0.1:{port}")

    def ask_until_the_second_answers() -> list[int]:
        codes = []
        while True:
            reply = ask(gateway.url, "/echo")
            codes.append(reply.status)
            if reply.status != 200 or reply.json()["name"] == "second":
                return codes

    asked = [crowd.submit(ask_until_the_second_answers) for _ in range(10)]
    wait_for(lambda: gateway.status()["backends"]["stable"]["requests"] > 50)
    first.process.kill()
    first.process.wait()
    replica("second", port)
    codes = [code for some in asked for code in some.result()]
    assert set(codes) == {200}
    assert gateway.status()["backends"]["stable"].items() >= {"requests": len(codes), "errors": 0}.items()
