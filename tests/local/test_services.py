"""Services on a real cluster: an address that answers while the pods behind it come, go and are killed."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
import time
from collections import Counter
from typing import Any

from alidade_local.service_ports import listening_ports
from tests.cluster_fixtures import RunningCluster, wait_until
from tests.local.workloads import apply, container, get, pod, processes, status, wait_for_phase

Doc = dict[str, Any]

# Says who it is; ends on SIGTERM when what has begun is answered, half a second later, since connections that were made
# before may still wait to be taken. /slow takes a second.
SERVER = """
import os, signal, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        time.sleep(1 if self.path == "/slow" else 0)
        body = (os.environ["NAME"] + " " + os.environ["VERSION"]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
class Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128
server = Server((os.environ["IP"], 8080), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Timer(0.5, server.shutdown).start())
server.serve_forever()
server.server_close()
"""


def deployment(name: str, replicas: int, version: str, **rolling: int) -> Doc:
    labels = {"app": name}
    env = [
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "VERSION", "value": version},
    ]
    ports = [{"name": "http", "containerPort": 8080}]
    probe = {"httpGet": {"port": "http"}, "periodSeconds": 1}
    main = container(SERVER, env=env, ports=ports, readinessProbe=probe)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling or {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 10, "containers": [main]},
            },
        },
    }


def service(name: str, **spec: Any) -> Doc:
    base = {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": "http"}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": base | spec}


def place(cluster: RunningCluster, name: str) -> tuple[str, int]:
    """Where the Service's port 80 answers."""
    found = get(cluster, "service", name)
    assert found is not None
    return found["spec"]["clusterIP"], listening_ports(found)[80]


def ask(where: tuple[str, int], path: str = "/") -> str:
    """What one request on a connection of its own is answered."""
    connection = http.client.HTTPConnection(*where, timeout=60)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def roll_out(cluster: RunningCluster, name: str) -> None:
    cluster.kubectl("rollout", "status", f"deployment/{name}", "--timeout=120s")


class Askers:
    """Ask without end from several threads; keep what was answered and what was lost."""

    def __init__(self, where: tuple[str, int], paths: list[str]) -> None:
        self.answers: Counter[str] = Counter()
        self.lost: list[str] = []
        self._where = where
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(path,), daemon=True) for path in paths]
        for thread in self._threads:
            thread.start()

    def _ask(self, path: str) -> None:
        while not self._stop.is_set():
            try:
                self.answers[ask(self._where, path)] += 1
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(f"{path} {error!r}")
            time.sleep(0.01)

    def versions(self) -> set[str]:
        return {answer.split()[1] for answer in list(self.answers)}

    def answered(self) -> int:
        return sum(self.answers.copy().values())

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)


def test_requests_are_shared_by_the_ready_pods_and_refused_without_any(cluster: RunningCluster) -> None:
    apply(cluster, service("shared"), deployment("shared", 2, "1"))
    roll_out(cluster, "shared")
    where = place(cluster, "shared")
    wait_until(lambda: len({ask(where) for _ in range(4)}) == 2, "both pods answer")
    counts = Counter(ask(where) for _ in range(20))
    assert sorted(counts.values()) == [10, 10]
    assert where[0] in cluster.kubectl("get", "service", "shared")

    cluster.kubectl("scale", "deployment/shared", "--replicas=0")

    def refused() -> bool:
        try:
            ask(where)
        except ConnectionRefusedError:
            return True
        except (OSError, http.client.HTTPException):
            return False
        return False

    wait_until(refused, "nobody answers")
    cluster.kubectl("scale", "deployment/shared", "--replicas=1")
    roll_out(cluster, "shared")
    wait_until(lambda: not refused(), "somebody answers again")
    cluster.kubectl("delete", "service/shared", "deployment/shared")
    wait_until(refused, "the address is gone")


def test_a_rolling_update_loses_no_request(cluster: RunningCluster) -> None:
    apply(cluster, service("rolled"), deployment("rolled", 2, "1"))
    roll_out(cluster, "rolled")
    askers = Askers(place(cluster, "rolled"), ["/", "/", "/slow", "/slow"])
    try:
        wait_until(lambda: askers.versions() == {"1"}, "the first version answers")
        apply(cluster, deployment("rolled", 2, "2"))
        roll_out(cluster, "rolled")
        apply(cluster, deployment("rolled", 2, "3", maxSurge=0, maxUnavailable=1))
        roll_out(cluster, "rolled")
        wait_until(lambda: {"2", "3"} <= askers.versions(), "both later versions have answered")
        wait_until(lambda: askers.answered() > 20, "many requests have been answered")
    finally:
        askers.stop()
    assert askers.lost == []
    cluster.kubectl("delete", "service/rolled", "deployment/rolled")


def test_a_killed_pod_loses_only_the_connections_on_it(cluster: RunningCluster) -> None:
    apply(cluster, service("killed"), deployment("killed", 2, "1"))
    roll_out(cluster, "killed")
    where = place(cluster, "killed")
    wait_until(lambda: len({ask(where) for _ in range(4)}) == 2, "both pods answer")
    victim = ask(where).split()[0]
    uid = (get(cluster, "pod", victim) or {})["metadata"]["uid"]

    # Two idle connections, one on each pod.
    held = [http.client.HTTPConnection(*where, timeout=60) for _ in range(2)]
    names = []
    for connection in held:
        connection.request("GET", "/")
        names.append(connection.getresponse().read().decode().split()[0])
    assert len(set(names)) == 2
    askers = Askers(where, ["/", "/"])
    try:
        wait_until(lambda: sum(askers.answers.values()) > 10, "requests are on their way")
        for process in processes(cluster, uid):
            os.kill(process, signal.SIGKILL)
        wait_until(
            lambda: status(cluster, "pod", victim)["containerStatuses"][0]["restartCount"] == 1, "the pod was restarted"
        )
        wait_until(lambda: askers.answered() > 20, "requests are answered all the while")
    finally:
        askers.stop()
    # What was on its way in that moment may be lost: one request of each asker at most.
    assert len(askers.lost) <= 2, askers.lost
    for connection, name in zip(held, names, strict=True):
        if name == victim:
            assert connection.sock.recv(1) == b""
        else:
            connection.request("GET", "/")
            assert connection.getresponse().read().decode().split()[0] == name
        connection.close()
    cluster.kubectl("delete", "service/killed", "deployment/killed")


def test_a_name_in_a_variable_leads_to_the_service_whoever_is_behind_it(cluster: RunningCluster) -> None:
    # It is told the address before there is a pod, and finds one as soon as there is.
    code = """
import os, time, urllib.request
while True:
    try:
        print(os.environ["URL"], urllib.request.urlopen(os.environ["URL"]).read().decode())
        break
    except OSError:
        time.sleep(0.1)
"""
    apply(cluster, service("named"))
    where = place(cluster, "named")
    asking = container(code, env=[{"name": "URL", "value": "http://named.default.svc/x"}])
    apply(cluster, pod("asks-named", asking))
    wait_for_phase(cluster, "asks-named", "Running")
    apply(cluster, deployment("named", 1, "7"))
    wait_for_phase(cluster, "asks-named", "Succeeded")
    address = where[0] if where[1] == 80 else f"{where[0]}:{where[1]}"
    said = cluster.kubectl("logs", "asks-named")
    assert said.startswith(f"http://{address}/x named-")
    assert said.endswith(" 7\n")
    cluster.kubectl("delete", "service/named", "deployment/named", "pod/asks-named")


def test_a_place_that_is_taken_is_said_to_be(cluster: RunningCluster) -> None:
    apply(cluster, service("blocked"))
    where = place(cluster, "blocked")
    with socket.socket() as taken:
        taken.bind(where)
        taken.listen()
        apply(cluster, deployment("blocked", 1, "1"))
        wait_until(
            lambda: f"nothing can listen on {where[0]}:{where[1]}" in cluster.kubectl("get", "events"),
            "an event says so",
        )
    wait_until(lambda: _answers(where), "it is listened on when it is free")
    cluster.kubectl("delete", "service/blocked", "deployment/blocked")


def _answers(where: tuple[str, int]) -> bool:
    try:
        return bool(ask(where))
    except OSError:
        return False
