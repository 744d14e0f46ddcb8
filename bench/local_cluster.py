"""The local cluster's API server with 10,000 objects: lists, watchers, latencies, memory, restarts, kills.

    python bench/local_cluster.py                     writes bench/results/local_cluster.json and prints the table
    python bench/local_cluster.py --kills 200         also kills the server so often in the middle of writes
    python bench/local_cluster.py --kubeconfig FILE   sends the same requests to another API server, and writes nothing

The objects are FineTuneJobs as in examples/gpu, whose schema has defaults and CEL rules. The server is a process of its
own; the client is a bare aiohttp session that reads answers and parses nothing. Latencies are of one request after the
other, from before the request to the last byte of its answer, with all objects there. Another server needs the CRDs of
crds/ and a kubeconfig with a token; its memory, restarts and kills are not measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import re
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import psutil
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("crds", "local")]

from alidade_local.client import KubeConfig  # noqa: E402  # the path is set above

Json = dict[str, Any]

NAMESPACE = "bench-objects"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
JOBS = f"/apis/alidade.dev/v1alpha1/namespaces/{NAMESPACE}/finetunejobs"
CONFIG_MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"
WRITERS = 16
PAGE = 500
# A kill comes after at most so many acknowledged writes: some meet the first commits after a start, some a long queue.
MOST_WRITES_BEFORE_KILL = 200


_EXAMPLE: Json = yaml.safe_load((ROOT / "examples" / "gpu" / "finetune.yaml").read_text())


def fine_tune_job(name: str, label: str = "") -> Json:
    """That of examples/gpu under another name, with a label if one is given."""
    return {**_EXAMPLE, "metadata": {"name": name} | (_labelled(label)["metadata"] if label else {})}


def _labelled(value: str) -> Json:
    return {"metadata": {"labels": {"bench": value}}}


def config_map(name: str) -> Json:
    """A small object without rules, for the writes that kills interrupt."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": "x" * 100}}


class RefusedError(Exception):
    """An answer that says no."""


@dataclass
class Client:
    """A session with one API server."""

    session: aiohttp.ClientSession

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> bytes:
        """The answer's bytes; raises RefusedError, or aiohttp.ClientError when there is no answer."""
        data = None if body is None else orjson.dumps(body)
        kind = {} if data is None else {"Content-Type": headers.pop("content_type", "application/json")}
        async with self.session.request(method, path, data=data, headers=kind | headers) as answer:
            content = await answer.read()
            if answer.status >= 400:
                raise RefusedError(f"{method} {path}: {answer.status} {content[:500].decode(errors='replace')}")
            return content


@asynccontextmanager
async def connected(kubeconfig: Path) -> AsyncIterator[Client]:
    """A client of the server that a kubeconfig names."""
    config = KubeConfig.load(kubeconfig)
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=config.ca_pem), limit=0)
    headers = {"Authorization": f"Bearer {config.token}"}
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(config.server, connector=connector, headers=headers, timeout=timeout) as session:
        yield Client(session)


class Server:
    """The local cluster's API server as a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"
        self.started_in_s = 0.0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it; returns when it answers."""
        begun = time.monotonic()
        command = [sys.executable, "-m", "alidade_local.apiserver", "--data-dir", str(self.folder)]
        path = os.pathsep.join(str(ROOT / part) for part in ("crds", "local"))
        log = self.folder / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=output, text=True, env=os.environ | {"PYTHONPATH": path}
            )
        assert self._process.stdout is not None
        if "serving" not in self._process.stdout.readline():
            self._process.communicate()
            raise SystemExit(f"the server did not start: {log.read_text()[-2000:]}")
        self.started_in_s = time.monotonic() - begun

    def end(self, number: signal.Signals) -> None:
        """Send it a signal and wait for its end."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.communicate()

    def database_mb(self) -> float:
        return sum(file.stat().st_size for file in self.folder.glob("state.db*")) / 1e6

    def resident_mb(self) -> float:
        assert self._process is not None
        return float(psutil.Process(self._process.pid).memory_info().rss / 1e6)


# Measurements


def quantiles_ms(seconds: Sequence[float]) -> Json:
    """Median, 99th percentile and maximum, in milliseconds."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return {"p50_ms": statistics.median(ordered) * 1e3, "p99_ms": p99 * 1e3, "max_ms": ordered[-1] * 1e3}


async def timed(request: Callable[[int], Awaitable[object]], count: int) -> Json:
    """The latencies of `count` requests, one after the other."""
    taken = []
    for number in range(count):
        begun = time.perf_counter()
        await request(number)
        taken.append(time.perf_counter() - begun)
    return quantiles_ms(taken)


async def fill(client: Client, objects: int) -> float:
    """Create all objects by several writers at once; returns how many a second."""
    numbers = iter(range(objects))

    async def write() -> None:
        for number in numbers:
            await client.call("POST", JOBS, fine_tune_job(f"job-{number:05}"))

    begun = time.monotonic()
    await asyncio.gather(*(write() for _ in range(WRITERS)))
    return objects / (time.monotonic() - begun)


# The metadata of a list comes before its items or after them.
_CONTINUE = re.compile(rb'"continue":"([^"]+)"')


async def read_pages(client: Client) -> int:
    """Read the list page by page; returns how many objects there were."""
    found, token = 0, ""
    while True:
        content = await client.call("GET", f"{JOBS}?limit={PAGE}&continue={token}")
        found += content.count(b'"kind":"FineTuneJob"')
        following = _CONTINUE.search(content[:2000] + content[-2000:])
        if following is None:
            return found
        token = following.group(1).decode()


async def fan_out(client: Client, watchers: int, changes: int) -> Json:
    """How long a change takes to reach the first and the last of the watchers, one change after the other."""
    version = orjson.loads(await client.call("GET", f"{JOBS}?limit=1"))["metadata"]["resourceVersion"]
    arrived: list[float] = []
    complete = asyncio.Event()

    async def watch(answer: aiohttp.ClientResponse) -> None:
        async for line in answer.content:
            if line.startswith(b'{"type":"MODIFIED"'):
                arrived.append(time.perf_counter())
                if len(arrived) == watchers:
                    complete.set()

    path = f"{JOBS}?watch=1&resourceVersion={version}"
    answers = [await client.session.get(path, read_bufsize=2**22) for _ in range(watchers)]
    tasks = [asyncio.create_task(watch(answer)) for answer in answers]
    first, last = [], []
    for number in range(changes):
        arrived.clear()
        complete.clear()
        begun = time.perf_counter()
        await client.call("PATCH", f"{JOBS}/job-00000", _labelled(f"w{number}"), content_type=MERGE)
        await asyncio.wait_for(complete.wait(), 30)
        first.append(arrived[0] - begun)
        last.append(arrived[-1] - begun)
    for task, answer in zip(tasks, answers, strict=True):
        task.cancel()
        answer.close()
    return {"first": quantiles_ms(first), "last": quantiles_ms(last)}


async def make_namespace(client: Client) -> None:
    """Have the namespace of all objects."""
    with suppress(RefusedError):  # there already
        await client.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})


async def measure(client: Client, objects: int, requests: int, watchers: int) -> Json:
    """Everything that any API server can be asked."""
    await make_namespace(client)
    rate = await fill(client, objects)
    count = len(orjson.loads(await client.call("GET", JOBS))["items"])
    assert count == objects == await read_pages(client), f"{count} of {objects} objects are there"

    def name(number: int) -> str:
        return f"{JOBS}/job-{number * 7919 % objects:05}"

    def apply(number: int) -> Awaitable[bytes]:
        body = fine_tune_job(name(number).rpartition("/")[2], f"a{number}")
        return client.call("PATCH", f"{name(number)}?fieldManager=bench&force=true", body, content_type=APPLY)

    def patch(number: int) -> Awaitable[bytes]:
        return client.call("PATCH", name(number), _labelled(f"p{number}"), content_type=MERGE)

    def same(_: int) -> Awaitable[bytes]:
        return client.call("PATCH", f"{JOBS}/job-00000?fieldManager=same&force=true", fine_tune_job("job-00000"),
                           content_type=APPLY)  # fmt: skip

    return {
        "created_per_s": rate,
        "list": await timed(lambda _: client.call("GET", JOBS), 5),
        "list_in_pages": await timed(lambda _: read_pages(client), 3),
        "list_as_table": await timed(lambda _: client.call("GET", JOBS, Accept=TABLE), 5),
        "list_by_label": await timed(lambda _: client.call("GET", f"{JOBS}?labelSelector=bench%3Dnone"), 5),
        "get": await timed(lambda number: client.call("GET", name(number)), requests),
        "patch": await timed(patch, requests),
        "apply": await timed(apply, requests),
        "apply_unchanged": await timed(same, requests),
        "watchers": await fan_out(client, watchers, max(requests // 5, 20)),
    }


async def run_own(arguments: argparse.Namespace, folder: Path) -> Json:
    """The measurements of our server, with what its process tells."""
    server = Server(folder)
    server.start()
    result: Json = {"start_s": server.started_in_s, "resident_mb": {"empty": server.resident_mb()}}
    async with connected(server.kubeconfig) as client:
        for file in sorted((ROOT / "crds").glob("*.alidade.dev.yaml")):
            await client.call("POST", DEFINITIONS, yaml.load(file.read_text(), Loader=yaml.CSafeLoader))
        while True:
            with suppress(RefusedError):  # the kind is not served yet
                await client.call("GET", JOBS)
                break
            await asyncio.sleep(0.05)
        result |= await measure(client, arguments.objects, arguments.requests, arguments.watchers)
    result["resident_mb"]["full"] = server.resident_mb()
    result["database_mb"] = server.database_mb()
    for number in (signal.SIGTERM, signal.SIGKILL):
        server.end(number)
        server.start()
        result[f"restart_after_{number.name.lower()}_s"] = server.started_in_s
    result["resident_mb"]["restarted"] = server.resident_mb()
    if arguments.kills:
        result["kills"] = await kill_often(server, arguments.kills)
    server.end(signal.SIGTERM)
    return result


# Kills


@dataclass
class Ledger:
    """What the server acknowledged: the last value of each object, objects that it said are deleted, all versions.

    unsure: objects of which a write was under way at the kill; it may or may not have been done.
    """

    values: dict[str, str]
    deleted: set[str]
    unsure: set[str]
    versions: set[str] = field(default_factory=set)
    acknowledged: int = 0
    goal: int = 0
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    def expect(self, writes: int) -> None:
        """Set `reached` after so many more."""
        self.goal = self.acknowledged + writes
        self.reached.clear()

    def count(self) -> None:
        """One more write was acknowledged."""
        self.acknowledged += 1
        if self.acknowledged >= self.goal:
            self.reached.set()


async def kill_often(server: Server, kills: int) -> Json:
    """Kill the server again and again while writers create, patch and delete; raises SystemExit for a lost write."""
    chance = random.Random(0)
    ledger = Ledger({}, set(), set())
    begun = time.monotonic()
    async with connected(server.kubeconfig) as client:
        await make_namespace(client)
    for number in range(kills):
        ledger.expect(chance.randint(1, MOST_WRITES_BEFORE_KILL))
        async with connected(server.kubeconfig) as client:
            await check(client, ledger)
            writers = [asyncio.create_task(_write(client, ledger, f"k{number}-{w}", chance)) for w in range(WRITERS)]
            reached = asyncio.create_task(ledger.reached.wait())
            await asyncio.wait([reached, *writers], return_when=asyncio.FIRST_COMPLETED)  # a writer may be refused
            reached.cancel()
            await asyncio.sleep(chance.uniform(0, 0.003))
            server.end(signal.SIGKILL)
            await asyncio.gather(*writers)
        server.start()
    async with connected(server.kubeconfig) as client:
        await check(client, ledger)
    return {"kills": kills, "acknowledged": ledger.acknowledged, "lost": 0, "took_s": time.monotonic() - begun}


async def _write(client: Client, ledger: Ledger, prefix: str, chance: random.Random) -> None:
    """Create, patch and sometimes delete one object after the other until the server is gone."""
    count = 0
    while True:
        name = f"{prefix}-{count}"
        count += 1
        ledger.unsure.add(name)
        try:
            _acknowledge(ledger, name, await client.call("POST", CONFIG_MAPS, config_map(name)))
            ledger.unsure.add(name)
            change = {"data": {"text": f"{prefix} {chance.random()}"}}
            _acknowledge(ledger, name, await client.call("PATCH", f"{CONFIG_MAPS}/{name}", change, content_type=MERGE))
            if count % 3 == 0:
                ledger.unsure.add(name)
                await client.call("DELETE", f"{CONFIG_MAPS}/{name}")
                ledger.unsure.discard(name)
                del ledger.values[name]
                ledger.deleted.add(name)
                ledger.count()
        except aiohttp.ClientError:
            return  # the server was killed


def _acknowledge(ledger: Ledger, name: str, answer: bytes) -> None:
    written = orjson.loads(answer)
    version = written["metadata"]["resourceVersion"]
    if version in ledger.versions:
        raise SystemExit(f"{name}: the resource version {version} was given before")
    ledger.versions.add(version)
    ledger.values[name] = written["data"]["text"]
    ledger.unsure.discard(name)
    ledger.count()


async def check(client: Client, ledger: Ledger) -> None:
    """Compare what is there with what was acknowledged; then what was unsure is known."""
    items = orjson.loads(await client.call("GET", CONFIG_MAPS))["items"]
    there = {item["metadata"]["name"]: item["data"]["text"] for item in items if "text" in item.get("data", {})}
    lost = {name for name, value in ledger.values.items() if there.get(name) != value} - ledger.unsure
    back = ledger.deleted & there.keys()
    if lost or back:
        raise SystemExit(f"lost: {sorted(lost)[:10]}; deleted and back: {sorted(back)[:10]}")
    ledger.values = there
    ledger.unsure.clear()


# The table


def table(result: Json) -> str:
    """What was measured, as Markdown."""
    rows = [
        f"| {label} | {result[key]['p50_ms']:.1f} | {result[key]['p99_ms']:.1f} | {result[key]['max_ms']:.1f} |"
        for key, label in LABELS.items()
    ]
    watchers = result["watchers"]
    rows += [
        f"| a change reaches the {which} watcher | {watchers[which]['p50_ms']:.1f} | {watchers[which]['p99_ms']:.1f} "
        f"| {watchers[which]['max_ms']:.1f} |"
        for which in ("first", "last")
    ]
    lines = ["| | p50, ms | p99, ms | max, ms |", "|---|---|---|---|", *rows, ""]
    lines.append(f"created: {result['created_per_s']:.0f} a second")
    if "start_s" in result:
        memory = result["resident_mb"]
        lines += [
            f"start: empty {result['start_s']:.2f} s, after SIGTERM {result['restart_after_sigterm_s']:.2f} s, "
            f"after SIGKILL {result['restart_after_sigkill_s']:.2f} s",
            f"resident: empty {memory['empty']:.0f}, full {memory['full']:.0f}, "
            f"restarted {memory['restarted']:.0f} MB; database {result['database_mb']:.0f} MB",
        ]
    if "kills" in result:
        lines.append("kills: {kills}, acknowledged writes {acknowledged}, lost {lost}".format(**result["kills"]))
    return "\n".join(lines)


LABELS = {
    "list": "list, all at once",
    "list_in_pages": f"list, in pages of {PAGE}",
    "list_as_table": "list, as kubectl's table",
    "list_by_label": "list by a label that none has",
    "get": "get",
    "patch": "merge patch",
    "apply": "server-side apply",
    "apply_unchanged": "server-side apply that changes nothing",
}


async def run_other(arguments: argparse.Namespace) -> Json:
    """The measurements of another API server; what was made there is deleted."""
    async with connected(arguments.kubeconfig) as client:
        try:
            return await measure(client, arguments.objects, arguments.requests, arguments.watchers)
        finally:
            await client.call("DELETE", JOBS)
            await client.call("DELETE", f"/api/v1/namespaces/{NAMESPACE}")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=1_000, help="requests of each kind (default 1000)")
    parser.add_argument("--watchers", type=int, default=50)
    parser.add_argument("--kills", type=int, default=0, help="times that the server is killed during writes")
    parser.add_argument("--kubeconfig", type=Path, help="another API server to measure")
    arguments = parser.parse_args(argv)
    load = os.getloadavg()[0]
    if arguments.kubeconfig is not None:
        print(table(asyncio.run(run_other(arguments))))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        result = asyncio.run(run_own(arguments, Path(temporary)))
    print(table(result))
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "load_before": load}
    setting = {name: getattr(arguments, name) for name in ("objects", "requests", "watchers")}
    path = ROOT / "bench" / "results" / "local_cluster.json"
    path.write_text(json.dumps({"machine": machine, **setting, "results": result}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
