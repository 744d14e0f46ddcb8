"""SIGTERM: no one is sent here any more, what was begun ends, and then the process does."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.serving.running import Server


def last_event(server: Server, tokens: int) -> dict[str, object]:
    *_, last = server.stream("/generate_stream", {"inputs": "hello", "parameters": {"max_new_tokens": tokens}})
    return last


def test_sigterm_under_load_loses_no_answer(start: Callable[..., Server]) -> None:
    """Two answers are generated and four wait when it is told to end."""
    server = start(max_total_tokens=4096, drain_delay_s=1)
    with ThreadPoolExecutor(6) as crowd:
        answers = [crowd.submit(last_event, server, 1500) for _ in range(6)]
        server.await_metric("modelserve_requests_waiting", 4)
        server.terminate()
        server.wait_for_line("draining")
        status, body = server.get("/health")
        assert (status, json.loads(body)["error_type"]) == (503, "healthcheck")
        assert server.generate("hello", max_new_tokens=1)[0] == 200  # who was sent here before the change is served
        lengths = [answer.result()["details"]["generated_tokens"] for answer in answers]  # type: ignore[index]
    assert lengths == [1500] * 6
    assert server.process.wait(timeout=60) == 0


def test_what_takes_too_long_is_cut_short(start: Callable[..., Server]) -> None:
    server = start(max_total_tokens=16384, drain_delay_s=0, drain_timeout_s=0.2)
    connection = server.connect()
    server.send_request(connection, "/generate", {"inputs": "hello", "parameters": {"max_new_tokens": 16000}})
    server.await_metric("modelserve_requests_running", 1)
    server.terminate()
    server.wait_for_line("answers were cut short after 0.2 seconds")
    assert server.process.wait(timeout=60) == 0
    assert b"200 OK" not in connection.recv(1000)
    connection.close()


def test_sigterm_while_the_model_is_loaded_ends_it(start: Callable[..., Server]) -> None:
    server = start(wait=False)
    server.terminate()
    assert server.process.wait(timeout=60) == 0
