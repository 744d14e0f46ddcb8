"""A replica that is killed while it answers takes only its own answers with it."""

import http.client
import json
import os
import signal
import threading
import time

import psutil
import pytest

from tests.cluster_fixtures import RunningCluster as Cluster
from tests.cluster_fixtures import wait_until
from tests.e2e.jobs import apply, finetune_job, service_address
from tests.e2e.test_faults import processes
from tests.e2e.test_modelserve import model_serve, wait_until_serving

pytestmark = pytest.mark.slow
STREAMS = 6


class Stream(threading.Thread):
    """Asks the Service without a pause, each time on a connection of its own, as clients behind a balancer do."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(daemon=True)
        self.address = address
        self.stopped = threading.Event()
        self.answered: list[float] = []
        """When answers ended."""
        self.lost: list[tuple[float, str]] = []
        """When a request was lost, and how."""

    def run(self) -> None:
        """Asks until stopped."""
        body = json.dumps({"inputs": "What is 1 plus 2?", "parameters": {"max_new_tokens": 20}})
        while not self.stopped.is_set():
            connection = http.client.HTTPConnection(*self.address, timeout=60)
            try:
                connection.request("POST", "/generate", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                text = answer.read().decode()
                if answer.status == 200:
                    self.answered.append(time.monotonic())
                else:
                    self.lost.append((time.monotonic(), f"{answer.status} {text}"))
            except (OSError, http.client.HTTPException) as error:
                self.lost.append((time.monotonic(), repr(error)))
            finally:
                connection.close()


def servers(name: str) -> list[psutil.Process]:
    """Processes that serve a ModelServe's model."""
    return processes(f"--name={name} ")


def connections(process: psutil.Process) -> int:
    """How many connections a process has open."""
    return sum(one.status == psutil.CONN_ESTABLISHED for one in process.net_connections("tcp"))


def losses_of_a_kill(streams: list[Stream]) -> list[tuple[float, str]]:
    """Kills the replica with fewer connections, of two; what was lost until every stream is answered again."""
    victim, other = sorted(servers("doubled"), key=connections)
    before = [len(stream.lost) for stream in streams]
    killed = time.monotonic()
    os.kill(victim.pid, signal.SIGKILL)
    wait_until(lambda: len(servers("doubled")) == 2, "the killed server is started again", timeout_s=120)
    since = time.monotonic()
    wait_until(lambda: all(stream.answered[-1] > since for stream in streams), "every stream is answered again")
    assert other.is_running(), "the other replica has ended, too"
    lost = [stream.lost[known:] for stream, known in zip(streams, before, strict=True)]
    # Each stream has one request under way, so that at most each stream loses one, when its server is killed.
    assert all(len(found) <= 1 for found in lost), lost
    assert all(killed <= at < killed + 5 for found in lost for at, _ in found), lost
    return [one for found in lost for one in found]


def test_kill_9_of_a_replica_loses_its_own_requests_and_no_others(trained_on_sums: Cluster) -> None:
    cluster = trained_on_sums
    apply(cluster, finetune_job("doubled-sums", steps=20))
    apply(cluster, model_serve("doubled", "doubled-sums", quantization={"method": "int8"}, replicas=2))
    wait_until_serving(cluster, "doubled")
    address = service_address(cluster, "doubled")
    streams = [Stream(address) for _ in range(STREAMS)]
    for stream in streams:
        stream.start()
    try:
        wait_until(lambda: all(len(stream.answered) > 3 for stream in streams), "every stream is answered")
        # A replica that is slower than the other for a moment may have all streams: it is killed once more then.
        for _ in range(3):
            wait_until_serving(cluster, "doubled")
            lost = losses_of_a_kill(streams)
            if len(lost) < STREAMS:
                break
    finally:
        for stream in streams:
            stream.stopped.set()
        for stream in streams:
            stream.join(timeout=60)
    assert len(lost) < STREAMS, "the other replica's requests were lost too"
    cluster.kubectl("delete", "modelserve", "doubled")
