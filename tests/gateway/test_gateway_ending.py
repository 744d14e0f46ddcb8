"""SIGTERM: no one is sent here any more, what was begun or held ends, and then the process does."""

import http.client
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from tests.gateway.running import Gateway, Upstream, ask, wait_for
from tests.ports import free_port


def test_sigterm_under_load_loses_no_answer(start: Callable[..., Gateway], stable: Upstream) -> None:
    """The streams go on for longer than connections are left open once nothing is awaited any more."""
    gateway = start(stable.url, drain_delay_s=0.5)
    path = "/stream/drained"
    with ThreadPoolExecutor(8) as crowd:
        answers = [crowd.submit(ask, gateway.url, f"{path}?chunks=100&interval=0.05") for _ in range(8)]
        wait_for(lambda: stable.seen(path) == 8)
        gateway.terminate()
        gateway.wait_for_line("draining")
        assert (gateway.get("/readyz")[0], gateway.get("/livez")[0]) == (503, 200)
        late = ask(gateway.url, "/echo")  # who was sent here before the change is served
        assert (late.status, late.headers["Connection"]) == (200, "close")
        whole = [answer.result() for answer in answers]
    assert all(answer.whole and answer.body.count(b"data: stable ") == 100 for answer in whole)
    assert gateway.process.wait(timeout=60) == 0


def test_what_is_held_is_answered_before_the_end(
    start: Callable[..., Gateway], replica: Callable[..., Upstream]
) -> None:
    port = free_port()
    gateway = start(f"http://127.0.0.1:{port}")
    with ThreadPoolExecutor(1) as crowd:
        held = crowd.submit(ask, gateway.url, "/echo")
        gateway.await_status(waiting=1)
        gateway.terminate()
        gateway.wait_for_line("draining")
        replica("woken", port)
        assert held.result().status == 200
    assert gateway.process.wait(timeout=60) == 0


def test_a_kept_connection_is_not_answered_after_the_end_has_come(
    start: Callable[..., Gateway], stable: Upstream
) -> None:
    """A stream keeps the process alive; a client whose connection is still open is told to go elsewhere."""
    gateway = start(stable.url, drain_delay_s=0)
    kept = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=60)
    kept.request("POST", "/echo", b"{}")
    assert json.loads(kept.getresponse().read())["name"] == "stable"
    with ThreadPoolExecutor(1) as crowd:
        stream = crowd.submit(ask, gateway.url, "/stream/kept?chunks=30&interval=0.1")
        wait_for(lambda: stable.seen("/stream/kept") == 1)
        gateway.terminate()
        gateway.wait_for_line("draining")
        kept.request("POST", "/echo", b"{}")
        answer = kept.getresponse()
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        answer.read()
        kept.close()
        assert stream.result().whole
    assert gateway.process.wait(timeout=60) == 0


def test_what_takes_too_long_is_cut_short(start: Callable[..., Gateway], stable: Upstream) -> None:
    gateway = start(stable.url, drain_delay_s=0, drain_timeout_s=0.3)
    with ThreadPoolExecutor(1) as crowd:
        answer = crowd.submit(ask, gateway.url, "/silent-after/cut")
        wait_for(lambda: stable.seen("/silent-after/cut") == 1)
        gateway.terminate()
        gateway.wait_for_line("answers were cut short after 0.3 seconds")
        assert not answer.result().whole
    assert gateway.process.wait(timeout=60) == 0
    wait_for(lambda: stable.left("/silent-after/cut") == 1)
