"""The operator beside a bare informer that does the same writes, on one API server in one run.

    python bench/operator_load.py       writes bench/results/operator.json and prints the table

(The file cannot be called operator.py: scripts of this folder would import it in place of the standard library's.)

Each subject gets a fresh API server (alidade_local.apiserver) and no other controller. Measured: time from creating a
FineTuneJob to its PyTorchJob (a watch tells), 500 at once, CPU and API writes for each, resident memory, a change with
500 idle ones, a child deleted by hand, and a restart. The bare informer is an aiohttp list and watch with constant
bodies: no validation, no plan, no cache of children. It is the floor that any operator in Python stands on, not a peer.

Official Kubernetes clients are kept out of the operator's process by the operator itself: alidade_operator.kopf_glue
makes kopf's optional imports of them fail, whether or not they are installed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("crds", "operator", "local")]

from alidade_operator.api import (  # noqa: E402  # the path is set above
    CLAIM,
    CONFIG_MAP,
    EVENT,
    FINE_TUNE_JOB,
    PYTORCH_JOB,
    Api,
    ApiError,
    JsonObject,
    Kind,
)
from alidade_operator.kopf_glue import log_in  # noqa: E402

CRD = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition")
NAMESPACE = "default"
CONFIG = {"metricsHost": "127.0.0.1", "metricsPort": 0, "nodePools": [{"name": "local"}]}
SPEC = {
    "method": "pretrain",
    "model": {"init": {"hiddenSize": 64, "layers": 2, "heads": 4, "vocabSize": 512}},
    "dataset": {"uri": "pvc://data/train.json"},
}


def fine_tune_job(name: str) -> JsonObject:
    """A FineTuneJob as a user applies it."""
    return {
        "apiVersion": FINE_TUNE_JOB.api_version,
        "kind": FINE_TUNE_JOB.kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": SPEC,
    }


# Processes


@dataclass
class Subject:
    """A process that makes children, and how it is started."""

    name: str
    command: list[str]
    ready: str
    """What its log says when it serves."""
    folder: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    async def start(self, environment: dict[str, str]) -> float:
        """Starts it; returns the seconds until it served."""
        log = self.folder / f"{self.name}.log"
        log.write_bytes(b"")
        begun = time.monotonic()
        with log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: ASYNC220  # a fork is over in a millisecond
                self.command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | environment
            )
        while self.ready not in log.read_text():
            if self.process.poll() is not None or time.monotonic() - begun > 120:
                raise SystemExit(f"{self.name} did not start:\n{log.read_text()[-2000:]}")
            await asyncio.sleep(0.02)
        return time.monotonic() - begun

    def log(self) -> str:
        """What it has written since its last start."""
        return (self.folder / f"{self.name}.log").read_text()

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def cpu_s(self) -> float:
        """CPU seconds used so far."""
        assert self.process is not None
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def resident_mb(self) -> float:
        """Resident memory, in MB."""
        assert self.process is not None
        return float(psutil.Process(self.process.pid).memory_info().rss / 1e6)


@asynccontextmanager
async def api_server(folder: Path) -> AsyncIterator[tuple[Api, dict[str, str], Subject]]:
    """An API server with our kinds, PyTorchJobs and the usual claims: a client, the environment for others, and it."""
    server = Subject(
        "apiserver", [sys.executable, "-m", "alidade_local.apiserver", "--data-dir", str(folder)], "serving", folder
    )
    environment = {"PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("crds", "operator", "local"))}
    await server.start(environment)
    environment["KUBECONFIG"] = os.environ["KUBECONFIG"] = str(folder / "kubeconfig")
    config = folder / "operator.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    environment["ALIDADE_CONFIG"] = str(config)
    api = Api(log_in, connections=32)
    try:
        await _install(api)
        yield api, environment, server
    finally:
        await api.close()
        server.kill()


async def _install(api: Api) -> None:
    for file in (*sorted((ROOT / "crds").glob("*.yaml")), ROOT / "local/alidade_local/manifests/pytorchjobs.yaml"):
        for body in yaml.safe_load_all(file.read_text()):
            await api._send("POST", CRD, CRD.path(), params=None, body=body, content_type="application/json")
    for name in ("alidade-workspace", "data"):
        spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
        body = {"apiVersion": "v1", "kind": CLAIM.kind, "metadata": {"name": name}, "spec": spec}
        try:
            await api.create(CLAIM, NAMESPACE, body)
        except ApiError as error:
            if not error.already_exists:
                raise


async def watch(api: Api, kind: Kind) -> AsyncIterator[tuple[str, JsonObject]]:
    """Every change of a kind, from now on."""
    _, version = await api.list(kind, namespace=NAMESPACE)
    connection = api._connection
    params = {"watch": "true", "resourceVersion": version}
    timeout = aiohttp.ClientTimeout(total=None)
    url = connection.server + kind.path(NAMESPACE)
    async with api._session.get(url, params=params, headers=connection.headers, timeout=timeout) as response:
        async for line in response.content:
            event = json.loads(line)
            yield event["type"], event["object"]


class Children:
    """When each PyTorchJob appeared and went, as a watch tells."""

    def __init__(self, api: Api) -> None:
        self.appeared: dict[str, float] = {}
        self.gone: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run(api))

    async def _run(self, api: Api) -> None:
        async for kind, body in watch(api, PYTORCH_JOB):
            times = self.gone if kind == "DELETED" else self.appeared
            if kind != "MODIFIED":
                times[body["metadata"]["name"]] = time.monotonic()
            self._changed.set()

    async def until(self, done: Any, timeout_s: float = 600) -> None:
        """Waits until a condition over the times holds."""
        deadline = time.monotonic() + timeout_s
        while not done():
            self._changed.clear()
            remaining = deadline - time.monotonic()
            await asyncio.wait_for(self._changed.wait(), max(0.1, remaining))

    async def stop(self) -> None:
        """Ends the watch."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def version(api: Api) -> int:
    """The API server's newest resource version: it counts every write that changed something."""
    _, newest = await api.list(CLAIM, namespace=NAMESPACE)
    return int(newest)


# Measurements


def quantile(values: list[float], share: float) -> float:
    """The value below which that share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def latencies(api: Api, children: Children, names: list[str]) -> list[float]:
    """Milliseconds from creating each resource to its child, one after the other."""
    measured = []
    for name in names:
        begun = time.monotonic()
        await api.create(FINE_TUNE_JOB, NAMESPACE, fine_tune_job(name))
        await children.until(lambda name=name: f"{name}-1" in children.appeared)
        measured.append(1000 * (children.appeared[f"{name}-1"] - begun))
    return measured


async def create_all(api: Api, children: Children, names: list[str]) -> float:
    """Seconds from the first creation to the last child."""
    slots = asyncio.Semaphore(16)

    async def create(name: str) -> None:
        async with slots:
            await api.create(FINE_TUNE_JOB, NAMESPACE, fine_tune_job(name))

    begun = time.monotonic()
    await asyncio.gather(*(create(name) for name in names))
    await children.until(lambda: all(f"{name}-1" in children.appeared for name in names))
    return time.monotonic() - begun


async def settled(api: Api, subject: Subject) -> None:
    """Waits until a subject neither writes nor works any more."""
    before, used = -1, -1.0
    while True:
        newest, cpu = await version(api), subject.cpu_s()
        if newest == before and cpu - used < 0.02:
            return
        before, used = newest, cpu
        await asyncio.sleep(1.0)


async def changes(api: Api, children: Children, names: list[str]) -> list[float]:
    """Milliseconds from suspending a resource to the end of its child, with all others idle."""
    measured = []
    for name in names:
        path = FINE_TUNE_JOB.path(NAMESPACE, name)
        begun = time.monotonic()
        await api._send("PATCH", FINE_TUNE_JOB, path, params=None, body={"spec": {"suspend": True}},
                        content_type="application/merge-patch+json")  # fmt: skip
        await children.until(lambda name=name, begun=begun: children.gone.get(f"{name}-1", 0) > begun)
        measured.append(1000 * (children.gone[f"{name}-1"] - begun))
    return measured


async def deletions(api: Api, children: Children, names: list[str]) -> list[float]:
    """Milliseconds from deleting a child by hand to the one that takes its place."""
    measured = []
    for name in names:
        child = await api.get(PYTORCH_JOB, NAMESPACE, f"{name}-1")
        begun = time.monotonic()
        await api.delete(PYTORCH_JOB, NAMESPACE, f"{name}-1", uid=child["metadata"]["uid"])
        await children.until(lambda name=name, begun=begun: children.appeared[f"{name}-1"] > begun)
        measured.append(1000 * (children.appeared[f"{name}-1"] - begun))
    return measured


async def measure(
    subject: Subject, api: Api, environment: dict[str, str], *, at_once: int, idle: int
) -> dict[str, Any]:
    """All measurements of one subject."""
    is_operator = subject.name == "alidade-operator"
    result: dict[str, Any] = {"start_s": await subject.start(environment)}
    await settled(api, subject)
    result["resident_mb_0"] = subject.resident_mb()
    children = Children(api)
    await asyncio.sleep(0.5)
    one_by_one = await latencies(api, children, [f"one-{number}" for number in range(50)])
    result["child_ms_p50"], result["child_ms_p95"] = statistics.median(one_by_one), quantile(one_by_one, 0.95)
    await settled(api, subject)

    names = [f"many-{number}" for number in range(at_once)]
    written, cpu = await version(api), subject.cpu_s()
    result["all_children_s"] = await create_all(api, children, names)
    result["children_per_s"] = at_once / result["all_children_s"]
    await settled(api, subject)
    result["cpu_ms_per_resource"] = 1000 * (subject.cpu_s() - cpu) / at_once
    result["writes_per_resource"] = (await version(api) - written - at_once) / at_once
    result["resident_mb_500"] = subject.resident_mb()
    cpu, begun = subject.cpu_s(), time.monotonic()
    await asyncio.sleep(10)
    result["idle_cpu_percent"] = 100 * (subject.cpu_s() - cpu) / (time.monotonic() - begun)

    if is_operator:
        acted = await changes(api, children, names[:40])
        result["change_ms_p50"], result["change_ms_p95"] = statistics.median(acted), quantile(acted, 0.95)
        back = await deletions(api, children, names[40:60])
        result["deleted_child_back_ms_p50"] = statistics.median(back)
        await settled(api, subject)
    subject.kill()
    written = await version(api)
    result["restart_s"] = await subject.start(environment)
    await settled(api, subject)
    result["restart_writes"] = await version(api) - written
    result["restart_cpu_s"] = subject.cpu_s()

    await create_all(api, children, [f"idle-{number}" for number in range(idle - at_once - 50)])
    await settled(api, subject)
    result["resident_mb_2000"] = subject.resident_mb()
    await children.stop()
    subject.kill()
    return result


# The bare informer


async def run_bare() -> None:
    """Lists and watches FineTuneJobs; for each without a status makes the same children, status and event."""
    api = Api(log_in, connections=16)
    queue: asyncio.Queue[JsonObject] = asyncio.Queue()
    for _ in range(8):
        asyncio.create_task(_bare_worker(api, queue))  # noqa: RUF006  # they live as long as the process
    items, newest = await api.list(FINE_TUNE_JOB, namespace=None)
    for body in items:
        queue.put_nowait(body)
    print("serving", flush=True)
    connection = api._connection
    url = connection.server + FINE_TUNE_JOB.path()
    params = {"watch": "true", "resourceVersion": newest}
    timeout = aiohttp.ClientTimeout(total=None)
    async with api._session.get(url, params=params, headers=connection.headers, timeout=timeout) as response:
        async for line in response.content:
            event = json.loads(line)
            if event["type"] == "ADDED":
                queue.put_nowait(event["object"])


async def _bare_worker(api: Api, queue: asyncio.Queue[JsonObject]) -> None:
    while True:
        body = await queue.get()
        if not body.get("status"):
            name, uid = body["metadata"]["name"], body["metadata"]["uid"]
            text = json.dumps(TEMPLATE).replace("NAME", name).replace("UID", uid)
            config_map, job, status, event = json.loads(text)
            await api.apply(CONFIG_MAP, NAMESPACE, config_map)
            await api.create(PYTORCH_JOB, NAMESPACE, job)
            await api.apply(FINE_TUNE_JOB, NAMESPACE, status, subresource="status")
            await api.create(EVENT, NAMESPACE, event)


TEMPLATE: list[JsonObject] = []


def load_template(path: Path) -> None:
    """What the operator wrote for one resource, with its name and uid to be filled in."""
    TEMPLATE.extend(json.loads(path.read_text()))


async def template_of(api: Api, name: str) -> str:
    """What the operator made for a resource, as the text from which the bare informer makes the same for others."""
    resource = await api.get(FINE_TUNE_JOB, NAMESPACE, name)
    uid = resource["metadata"]["uid"]
    config_map = await api.get(CONFIG_MAP, NAMESPACE, f"{name}-job")
    job = await api.get(PYTORCH_JOB, NAMESPACE, f"{name}-1")
    events, _ = await api.list(EVENT, namespace=NAMESPACE)
    event = next(item for item in events if item["involvedObject"]["name"] == name)
    status = {key: resource[key] for key in ("apiVersion", "kind", "status")}
    status["metadata"] = {"name": name, "namespace": NAMESPACE, "uid": uid}
    kept = ("name", "namespace", "labels", "annotations", "ownerReferences")
    for body in (config_map, job, event):
        body["metadata"] = {key: value for key, value in body["metadata"].items() if key in kept}
        body.pop("status", None)
    return json.dumps([config_map, job, status, event]).replace(uid, "UID").replace(name, "NAME")


# The whole

ROWS = (
    ("child after one resource, p50 / p95, ms", "child_ms_p50", "child_ms_p95"),
    ("500 at once: all children, s", "all_children_s", None),
    ("500 at once: children per second", "children_per_s", None),
    ("CPU per resource, ms", "cpu_ms_per_resource", None),
    ("API writes per resource", "writes_per_resource", None),
    ("resident at 0 / 500 / 2,000 resources, MB", "resident_mb_0", "resident_mb_500", "resident_mb_2000"),
    ("idle CPU with 500, percent of a core", "idle_cpu_percent", None),
    ("change with 500 idle, p50 / p95, ms", "change_ms_p50", "change_ms_p95"),
    ("child deleted by hand is back, p50, ms", "deleted_child_back_ms_p50", None),
    ("restart with 500: serving after, s", "restart_s", None),
    ("restart with 500: API writes", "restart_writes", None),
)


def table(results: dict[str, dict[str, Any]]) -> str:
    """The results side by side."""
    lines = ["| | " + " | ".join(results) + " |", "|---|" + "---|" * len(results)]
    for title, *fields in ROWS:
        cells = [
            " / ".join(f"{result[name]:.1f}" for name in fields if name is not None and name in result) or "–"
            for result in results.values()
        ]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


async def run(at_once: int, idle: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Both subjects, each time on an API server of its own; the better figure of all rounds counts.

    The order alternates (A B, B A, ...), and what disturbs a shared machine only ever makes a figure worse.
    """
    measured: dict[str, list[dict[str, Any]]] = {"alidade-operator": [], "bare informer": []}
    with tempfile.TemporaryDirectory() as temporary:
        template = Path(temporary) / "template.json"
        commands = {
            "alidade-operator": ([sys.executable, "-m", "alidade_operator.main"], "listed every kind"),
            "bare informer": ([sys.executable, __file__, "--bare", str(template)], "serving"),
        }
        for number in range(rounds):
            for name in measured if number % 2 == 0 else reversed(measured):
                folder = Path(temporary) / f"{name.replace(' ', '-')}-{number}"
                folder.mkdir()
                command, ready = commands[name]
                async with api_server(folder) as (api, environment, _):
                    subject = Subject(name, command, ready, folder)
                    try:
                        measured[name].append(await measure(subject, api, environment, at_once=at_once, idle=idle))
                        if not template.exists():
                            template.write_text(await template_of(api, "one-0"))
                    finally:
                        if subject.process is not None and subject.process.poll() is None:
                            subject.kill()
    return {name: best(results) for name, results in measured.items()}


def best(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The better figure of each measurement: the greater for a rate, the smaller for everything else."""
    return {
        field: (max if field.endswith("_per_s") else min)(result[field] for result in rounds) for field in rounds[0]
    }


def main(argv: list[str]) -> int:
    """Measures, prints, writes; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--at-once", type=int, default=500, help="resources created at once (default 500)")
    parser.add_argument("--rounds", type=int, default=2, help="times that each subject is measured (default 2)")
    parser.add_argument("--idle", type=int, default=2000, help="resources for the last memory figure (default 2000)")
    arguments = parser.parse_args(argv)
    if arguments.bare is not None:
        load_template(arguments.bare)
        asyncio.run(run_bare())
        return 0
    load = os.getloadavg()[0]
    results = asyncio.run(run(arguments.at_once, arguments.idle, arguments.rounds))
    print(table(results))
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "load_before": load}
    setting = {"at_once": arguments.at_once, "idle": arguments.idle, "rounds": arguments.rounds}
    document = {"machine": machine, **setting, "results": results}
    path = ROOT / "bench" / "results" / "operator.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
