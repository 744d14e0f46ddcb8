"""The release on the local cluster with two replicas: which one acts, what comes of killing it, what was ever made."""

from __future__ import annotations

import os
import re
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.charts.conftest import Cluster
from tests.charts.rendering import NAMESPACE, Json, program_path
from tests.cluster_fixtures import wait_until
from tests.e2e.test_faults import processes


def on_this_machine(**values: Any) -> Json:
    """Values of a release on the local cluster, whose pods share the machine's ports and files.

    Each listens at its own address only; and its kubeconfig is in a Secret, as no token of its account is mounted.
    """
    mount = {"name": "account", "mountPath": "/etc/alidade/account", "readOnly": True}
    return values | {
        "config": values.get("config", {}) | {"allowFileUris": True},
        "env": [
            {"name": "KUBECONFIG", "value": f"{mount['mountPath']}/kubeconfig"},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ],
        "volumes": [{"name": "account", "secret": {"secretName": "operator-account"}}],
        "volumeMounts": [mount],
    }


def install(cluster: Cluster, values: Json, folder: Path) -> None:
    """Installs the release and waits until its replicas are ready; folder: for the account's kubeconfig."""
    # The resource types are there: the local cluster brings them.
    cluster.helm("install", "--create-namespace", "--take-ownership", values=values)
    kubeconfig = cluster.account_kubeconfig(folder / "kubeconfig")
    secret = ("create", "secret", "generic", "operator-account", "--namespace", NAMESPACE)
    cluster.kubectl(*secret, f"--from-file=kubeconfig={kubeconfig}")
    wait_until_ready(cluster)


def wait_until_ready(cluster: Cluster) -> None:
    """Waits until as many replicas are ready as there should be, and all of them are the newest."""
    cluster.kubectl(
        "rollout", "status", "deployment/alidade-operator", "--namespace", NAMESPACE, "--timeout=90s"
    )  # fmt: skip


def lease(cluster: Cluster) -> Json:
    """The spec of the lease."""
    found: Json = cluster.read("lease", "alidade-operator", "--namespace", NAMESPACE)["spec"]
    return found


def pod_of(holder: str) -> str:
    """The pod that a lease's holder is in; a container that is started again there is another holder."""
    return holder.rpartition("-")[0]


@dataclass(frozen=True)
class Takeover:
    """Seconds from a kill of the acting replica to when another held the lease, and until that one had reconciled."""

    held_s: float
    reconciled_s: float


def kill_acting(cluster: Cluster) -> Takeover:
    """SIGKILL to the process that holds the lease; returns once another one acts."""
    before = lease(cluster)["holderIdentity"]
    (process,) = processes("alidade-operator", HOSTNAME=pod_of(before))
    process.kill()
    killed_at = datetime.now(UTC)

    def successor() -> Json | None:
        found = lease(cluster)
        return found if found["holderIdentity"] != before else None

    found = wait_until(successor, "another replica to hold the lease", timeout_s=60)
    pod = cluster.read("pod", pod_of(found["holderIdentity"]), "--namespace", NAMESPACE)
    metrics = f"http://{pod['status']['podIP']}:{metrics_port(pod)}/metrics"
    wait_until(lambda: reconciles(metrics), "the other replica to reconcile", timeout_s=60)
    reconciled_s = (datetime.now(UTC) - killed_at).total_seconds()
    return Takeover((datetime.fromisoformat(found["acquireTime"]) - killed_at).total_seconds(), reconciled_s)


def metrics_port(pod: Json) -> int:
    """The port that a pod answers /metrics at."""
    (container,) = pod["spec"]["containers"]
    return next(int(port["containerPort"]) for port in container["ports"] if port["name"] == "metrics")


def reconciles(url: str) -> float:
    """How many times an operator has reconciled."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return sum(map(float, re.findall(r"^alidade_operator_reconciles_total\{.*\} (.+)$", text, re.MULTILINE)))


class Ledger:
    """Every object of some kinds that was made in a namespace since a moment before which there was none."""

    def __init__(self, files: dict[str, Path], watches: Sequence[subprocess.Popen[bytes]]) -> None:
        self._files = files
        self._watches = watches

    def made(self) -> dict[str, list[str]]:
        """By kind the names, sorted: one for every object, so that a name that was made twice is there twice."""
        assert all(watch.poll() is None for watch in self._watches), "a watch has ended, and may have missed something"
        return {kind: sorted(name for name, _ in self._objects(path)) for kind, path in self._files.items()}

    @staticmethod
    def _objects(path: Path) -> set[tuple[str, str]]:
        return {(name, uid) for name, uid in (line.split() for line in path.read_text().splitlines())}


@contextmanager
def ledger(cluster: Cluster, namespace: str, kinds: Sequence[str], folder: Path) -> Iterator[Ledger]:
    """Begins to take notes; folder: for what the watches print."""
    folder.mkdir()
    files = {kind: folder / kind for kind in kinds}
    template = '{.metadata.name} {.metadata.uid}{"\\n"}'
    with ExitStack() as stack:
        watches = []
        for kind, path in files.items():
            command = [program_path("kubectl"), "get", kind, "--namespace", namespace, "--watch"]
            output = stack.enter_context(path.open("wb"))
            watch = subprocess.Popen(
                [*command, "--output", f"jsonpath={template}"],
                stdout=output,
                env=os.environ | {"KUBECONFIG": str(cluster.kubeconfig)},
            )
            stack.callback(watch.wait)
            stack.callback(watch.kill)
            watches.append(watch)
        yield Ledger(files, watches)
