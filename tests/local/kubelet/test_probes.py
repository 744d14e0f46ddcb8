"""Probes and hooks succeed and fail as the kubelet's do."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from alidade_local.kubelet.paths import PathMap
from alidade_local.kubelet.probes import ProbeTarget, run_probe
from alidade_local.kubelet.processes import MARKER, marked_processes
from tests.ports import free_port

SEEN: list[str] = []


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[ProbeTarget]:
    """A container with a server at the port `http` that answers with the status that its path names."""

    async def answer(request: web.BaseRequest) -> web.Response:
        SEEN.append(f"{request.path} {request.headers.get('X-From', '')}".strip())
        return web.Response(status=int(request.path.strip("/") or 200), headers={"Location": "http://192.0.2.1/"})

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    (tmp_path / "root" / "mounted").mkdir(parents=True)
    yield ProbeTarget(
        pod_ip="127.0.0.1",
        ports={"http": runner.addresses[0][1], "closed": free_port()},
        environment={"PATH": os.environ["PATH"], "WORD": "ready", MARKER: f"{tmp_path}:/"},
        folder=tmp_path,
        paths=PathMap(tmp_path / "root", ["/mounted"]),
    )
    await runner.cleanup()


def python(code: str) -> dict[str, Any]:
    return {"exec": {"command": [sys.executable, "-c", code]}}


@pytest.mark.parametrize(
    ("action", "succeeded", "output"),
    [
        ({"httpGet": {"port": "http"}}, True, ""),
        ({"httpGet": {"port": "http", "path": "302"}}, True, ""),
        ({"httpGet": {"port": "http", "path": "/404"}}, False, "HTTP probe failed with statuscode: 404"),
        ({"httpGet": {"port": "http", "path": "/503"}}, False, "HTTP probe failed with statuscode: 503"),
        ({"httpGet": {"port": "closed"}}, False, 'Get "http://127.0.0.1:'),
        ({"tcpSocket": {"port": "http"}}, True, ""),
        ({"tcpSocket": {"port": "closed"}}, False, "dial tcp 127.0.0.1:"),
        ({"sleep": {"seconds": 0}}, True, ""),
        ({"grpc": {"port": 1}}, False, "use exec, httpGet or tcpSocket"),
        ({"exec": {"command": ["no-such-program"]}}, False, "no-such-program: No such file"),
        ({"exec": {"command": ["sh", "-c", "echo not yet; exit 3"]}}, False, "not yet"),
        ({"exec": {"command": ["sh", "-c", 'test "$WORD" = ready && test -d "$0"', "/mounted"]}}, True, ""),
    ],
)
async def test_an_action_succeeds_or_says_why_not(
    target: ProbeTarget, action: dict[str, Any], succeeded: bool, output: str
) -> None:
    result = await run_probe(action, target, 30.0)
    assert result.succeeded is succeeded
    if not succeeded or output:
        assert output in result.output


async def test_headers_are_sent(target: ProbeTarget) -> None:
    headers = [{"name": "X-From", "value": "kubelet"}]
    assert (await run_probe({"httpGet": {"port": "http", "httpHeaders": headers}}, target, 30.0)).succeeded
    assert SEEN[-1] == "/ kubelet"


async def test_what_takes_too_long_fails_and_is_ended(target: ProbeTarget, tmp_path: Path) -> None:
    result = await run_probe(python("import time; time.sleep(600)"), target, 0.3)
    assert (result.succeeded, result.output) == (False, "command or request timed out after 0.3 s")
    assert marked_processes(f"{tmp_path}:/") == []
