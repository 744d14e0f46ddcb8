"""The kubelet's server, as a kube-apiserver asks it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from alidade_local.client import ApiClient, KubeConfig
from alidade_local.informer import Informer
from alidade_local.kubelet import spdy
from alidade_local.kubelet.server import KubeletServer
from alidade_local.kubelet.settings import KubeletSettings
from alidade_local.pki import Certificates, ensure_certificates
from alidade_local.resources import PODS

POD = {
    "metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "1"},
    "spec": {"containers": [{"name": "main"}]},
    "status": {
        "phase": "Running",
        "podIP": "127.0.0.1",
        "containerStatuses": [{"name": "main", "restartCount": 1, "state": {"running": {}}}],
    },
}


@dataclass(frozen=True)
class Asked:
    """A kubelet that is listened to. tls: of the API server."""

    port: int
    pods: Informer
    certificates: Certificates
    tls: ssl.SSLContext

    async def get(self, path: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.tls)) as session,
            session.get(f"https://127.0.0.1:{self.port}{path}") as answer,
        ):
            return answer.status, await answer.text()


@pytest.fixture
async def kubelet(tmp_path: Path) -> AsyncIterator[Asked]:
    certificates = ensure_certificates(tmp_path / "pki")
    tls = ssl.create_default_context(cafile=str(certificates.ca))
    tls.load_cert_chain(certificates.client_cert, certificates.client_key)
    pods = Informer(ApiClient(KubeConfig("", "", "")), PODS)
    pods.absorb(POD)
    logs = tmp_path / "pods" / "u" / "main"
    logs.mkdir(parents=True)
    (logs / "0.log").write_text("before\n")
    (logs / "1.log").write_text("one\ntwo\n")
    async with KubeletServer(pods, KubeletSettings(tmp_path), certificates).listening() as port:
        yield Asked(port, pods, certificates, tls)


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("/containerLogs/n/p/main", 200, "one\ntwo\n"),
        ("/containerLogs/n/p/main?tailLines=1", 200, "two\n"),
        ("/containerLogs/n/p/main?previous=true", 200, "before\n"),
        ("/containerLogs/n/p/other", 400, "container other is not valid for pod p"),
        ("/containerLogs/n/q/main", 404, 'pod "q" is not on this node'),
        ("/exec/n/p/main?command=ls", 501, "exec is not offered by the local cluster"),
        ("/attach/n/p/main", 501, "attach is not offered by the local cluster"),
        ("/pods", 404, "404: Not Found"),
    ],
)
async def test_what_is_asked_is_answered(kubelet: Asked, path: str, code: int, said: str) -> None:
    found, text = await kubelet.get(path)
    assert (found, text[: len(said)]) == (code, said)


async def test_a_log_is_followed_to_the_end_of_its_container(kubelet: Asked, tmp_path: Path) -> None:
    asking = asyncio.create_task(kubelet.get("/containerLogs/n/p/main?follow=true"))
    with (tmp_path / "pods" / "u" / "main" / "1.log").open("a") as log:
        log.write("three\n")
    status = {**POD["status"], "phase": "Succeeded"}
    kubelet.pods.absorb({**POD, "metadata": {**POD["metadata"], "resourceVersion": "2"}, "status": status})
    assert await asyncio.wait_for(asking, 60) == (200, "one\ntwo\nthree\n")


async def test_only_the_api_server_is_answered(kubelet: Asked) -> None:
    stranger = ssl.create_default_context(cafile=str(kubelet.certificates.ca))
    with pytest.raises((aiohttp.ClientError, ssl.SSLError, ConnectionError)):
        await Asked(kubelet.port, kubelet.pods, kubelet.certificates, stranger).get("/containerLogs/n/p/main")


async def test_a_port_is_forwarded_over_an_upgraded_connection(kubelet: Asked) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read(100)).upper())
        writer.close()

    async with await asyncio.start_server(shout, "127.0.0.1", 0) as echo:
        port = str(echo.sockets[0].getsockname()[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", kubelet.port, ssl=kubelet.tls)
        upgrade = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io"
        writer.write(f"POST /portForward/n/p HTTP/1.1\r\nHost: h\r\n{upgrade}\r\n\r\n".encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert b"X-Stream-Protocol-Version: portforward.k8s.io" in answer
        encoder = spdy.Encoder()
        for stream, kind in ((1, "error"), (3, "data")):
            writer.write(encoder.opened(stream, {"streamtype": kind, "port": port, "requestid": "0"}))
        writer.write(spdy.data(3, b"hello", fin=True))
        decoder, ended, heard = spdy.Decoder(), set(), b""
        while len(ended) < 2:
            for frame in decoder.feed(await asyncio.wait_for(reader.read(4096), 60)):
                if isinstance(frame, spdy.Data):
                    heard += frame.payload
                    ended |= {frame.stream} if frame.fin else set()
        writer.close()
    assert heard == b"HELLO"


async def test_a_port_is_not_forwarded_without_an_upgrade(kubelet: Asked) -> None:
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=kubelet.tls)) as session,
        session.post(f"https://127.0.0.1:{kubelet.port}/portForward/n/p") as answer,
    ):
        assert answer.status == 400
