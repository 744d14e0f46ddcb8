"""`kubectl port-forward` to pods, Services and Deployments."""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster_fixtures import RunningCluster, wait_until
from tests.local.workloads import apply, container, pod, wait_for_phase

Doc = dict[str, Any]
KUBECTL = Path(__file__).parents[2] / ".tools" / "bin" / "kubectl"

# On 8080 it sends back what it gets, on 8081 it is an HTTP server, on 8082 it talks without end.
PROGRAM = """
import os, socketserver, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
class Talk(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            while True:
                self.request.sendall(bytes(65536))
        except OSError:
            print("left alone", flush=True)
class Http(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ["NAME"].encode())
class Server(socketserver.ThreadingTCPServer):
    request_queue_size = 64
ip = os.environ["IP"]
servers = [Server((ip, 8080), Echo), ThreadingHTTPServer((ip, 8081), Http), Server((ip, 8082), Talk)]
for server in servers:
    threading.Thread(target=server.serve_forever).start()
print("listening", flush=True)
"""


@pytest.fixture(scope="module")
def forwarded(cluster: RunningCluster) -> Iterator[RunningCluster]:
    """A cluster with a pod, and a Service in front of it."""
    env = [
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    ports = [{"name": "echo", "containerPort": 8080}, {"name": "http", "containerPort": 8081}]
    probe = {"tcpSocket": {"port": "http"}, "periodSeconds": 1}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "forwarded"},
        "spec": {"selector": {"app": "forwarded"}, "ports": [{"port": 80, "targetPort": "http"}]},
    }
    main = container(PROGRAM, env=env, ports=ports, readinessProbe=probe)
    apply(cluster, service, pod("forwarded", main, grace_s=0))
    wait_for_phase(cluster, "forwarded", "Running")
    cluster.kubectl("wait", "pod/forwarded", "--for=condition=Ready", "--timeout=120s")
    yield cluster
    cluster.kubectl("delete", "pod/forwarded", "service/forwarded", "--now")


@contextmanager
def forwarding(cluster: RunningCluster, target: str, port: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A kubectl that forwards a free port of this machine; yields that port."""
    process = subprocess.Popen(
        [str(KUBECTL), "port-forward", target, f":{port}", "-v=6"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig)},
    )
    assert process.stdout is not None
    said = ""
    try:
        for line in process.stdout:
            said += line
            if found := re.match(r"Forwarding from 127\.0\.0\.1:(\d+)", line):
                yield int(found[1]), process
                return
        pytest.fail(f"kubectl ended: {said}")
    finally:
        process.terminate()
        process.communicate(timeout=60)


def fetch(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("target", "port"), [("pod/forwarded", "8081"), ("pod/forwarded", "http"), ("svc/forwarded", "80")]
)
def test_a_pod_and_a_service_are_reached(forwarded: RunningCluster, target: str, port: str) -> None:
    with forwarding(forwarded, target, port) as (local, _):
        assert [fetch(local) for _ in range(3)] == ["forwarded"] * 3


def test_megabytes_come_through_both_ways_unchanged(forwarded: RunningCluster) -> None:
    sent = os.urandom(8 * 2**20)
    received = bytearray()

    def receive(client: socket.socket) -> None:
        while len(received) < len(sent) and (data := client.recv(65536)):
            received.extend(data)

    with (
        forwarding(forwarded, "pod/forwarded", "8080") as (local, _),
        socket.create_connection(("127.0.0.1", local), timeout=60) as client,
    ):
        reader = threading.Thread(target=receive, args=(client,))
        reader.start()
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        reader.join(timeout=60)
        assert bytes(received) == sent
        assert client.recv(1) == b"", "the end comes through too"


def test_many_connections_share_one_kubectl(forwarded: RunningCluster) -> None:
    with forwarding(forwarded, "pod/forwarded", "8080") as (local, _):
        clients = [socket.create_connection(("127.0.0.1", local), timeout=60) for _ in range(20)]
        for number, client in enumerate(clients):
            client.sendall(bytes([number]))
        assert [client.recv(1)[0] for client in reversed(clients)] == list(reversed(range(20)))
        for client in clients:
            client.close()
        assert not _is_refused(local)


def _is_refused(local: int) -> bool:
    with socket.create_connection(("127.0.0.1", local), timeout=60) as client:
        client.sendall(b"x")
        return client.recv(1) != b"x"


def test_a_client_that_leaves_is_noticed_by_the_pod(forwarded: RunningCluster) -> None:
    with forwarding(forwarded, "pod/forwarded", "8082") as (local, _):
        client = socket.create_connection(("127.0.0.1", local), timeout=60)
        assert client.recv(10)
        client.close()
        wait_until(lambda: "left alone" in forwarded.kubectl("logs", "forwarded"), "the pod sees that nobody listens")


def test_a_port_on_which_nobody_listens_is_named(forwarded: RunningCluster) -> None:
    with forwarding(forwarded, "pod/forwarded", "9999") as (local, process):
        with socket.create_connection(("127.0.0.1", local), timeout=60) as client:
            client.sendall(b"x")
            assert client.recv(1) == b""
        said, _ = process.communicate(timeout=60)
        assert "error forwarding port 9999 to pod forwarded" in said
        assert "Connect call failed" in said or "refused" in said.lower()


def test_what_is_not_forwarded_is_said_to_be(forwarded: RunningCluster) -> None:
    path = "/api/v1/namespaces/default/pods/forwarded/portforward"
    said = forwarded.kubectl("get", "--raw", path, check=False)
    # A real API server's words, where there is one, are others.
    assert "ask for a WebSocket with the protocol SPDY/3.1+portforward.k8s.io" in said or "Upgrade request" in said
    apply(forwarded, pod("over", container("pass")))
    wait_for_phase(forwarded, "over", "Succeeded")
    said = forwarded.kubectl("get", "--raw", path.replace("/forwarded/", "/over/"), check=False)
    ended = "unable to forward port because pod is not running. Current status=Succeeded"
    assert ended in said or "Upgrade request" in said
