"""What is no request of this API gets a Status, without a trace of the server's inside, and costs nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psutil
import pytest

from tests.local.conformance.hostile import NO_HTTP, PATH, STATUSES, code_of, request, said
from tests.local.conformance.servers import Server, local_server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server for bad requests."""
    with local_server() as running:
        yield running


@pytest.mark.parametrize("what", STATUSES)
def test_bad_requests_are_answered_with_a_status(what: str, server: Server) -> None:
    """And with nothing of the server's inside."""
    wire, code = STATUSES[what]
    head, _, body = said(server, wire(server)).partition(b"\r\n\r\n")
    status = json.loads(body)
    assert (code_of(head), status["kind"], status["code"], status["status"]) == (code, "Status", code, "Failure"), (
        status
    )
    assert status["message"]
    assert b"Traceback" not in body
    assert b".py" not in body


@pytest.mark.parametrize("what", NO_HTTP)
def test_what_is_not_http_is_refused(what: str, server: Server) -> None:
    """With 400, or by hanging up on who still talks; the next one is answered."""
    answer = said(server, NO_HTTP[what](server))
    assert not answer or code_of(answer) == 400
    assert code_of(said(server, request(f"GET {PATH}")(server))) == 200


def test_long_selectors_are_read(server: Server) -> None:
    """As long as a request line may be."""
    wire = request(f"GET {PATH}?labelSelector=a+in+({'x,' * 20_000}y)")
    assert code_of(said(server, wire(server))) == 200


def test_bad_requests_leave_nothing_behind(server: Server) -> None:
    """No memory, no connection, no line in the log that says the server failed."""
    process = psutil.Process(server.pid)
    bad = [wire for wire, _ in STATUSES.values()] + list(NO_HTTP.values())
    for wire in bad:
        said(server, wire(server))
    before = process.memory_info().rss
    for _ in range(3):
        for wire in bad:
            said(server, wire(server))
    # A leak of what these hundred-odd requests carry would be 60 MiB; the allocator keeps some of what it had.
    assert process.memory_info().rss - before < 24 * 1024 * 1024
    assert "Traceback" not in (server.kubeconfig.parent / "log").read_text()
