"""The inference server, the gateway before it and the local API server under requests drawn from OpenAPI documents.

    python bench/http_fuzz.py [--seconds 60] [--seed 1] [--only gateway]
        writes bench/results/http_fuzz.json and prints the numbers

schemathesis (in an environment of its own, .tools/fuzz) sends what each document allows, what it nearly allows, and
what it does not, for so many seconds. Documents are the servers' own; the gateway passes its server's on, and what it
answers itself is described here. No answer may be a 5xx, and none may take longer than 20 seconds.
Measured: requests, resident memory before and after, and what failed, which is printed with a command that repeats it.
Exit code 1 where something failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("crds", "operator", "local", "engine", "serving")
sys.path[:0] = [str(ROOT), *(str(ROOT / package) for package in PACKAGES)]

from tests.local.conformance.servers import local_server  # noqa: E402
from tests.operator.played import install_all_kinds  # noqa: E402

GROUPS = ("api/v1", "apis/apps/v1", "apis/apiextensions.k8s.io/v1", "apis/alidade.dev/v1alpha1")
SCHEMATHESIS = "schemathesis==4.32.5"
COMPARISONS = "/arena/api/comparisons"
COMPARED = 20
"""Comparisons to vote on."""


@dataclass(frozen=True)
class Target:
    """A server and one of its documents. trust: the file of its authority."""

    name: str
    url: str
    document: dict[str, Any]
    pid: int
    authorization: str | None = None
    trust: Path | None = None


@contextmanager
def api_server() -> Iterator[list[Target]]:
    """The local API server with our kinds, by groups of its kinds."""
    with local_server() as server:
        asyncio.run(install_all_kinds(server.kubeconfig))
        assert server.pid is not None
        targets = []
        for group in GROUPS:
            answer = server.pool.request("GET", f"{server.url}/openapi/v3/{group}", headers=server.headers)
            # Kubernetes' documents name no type of body.
            document = json.loads(answer.data.decode().replace('"*/*"', '"application/json"'))
            key, trust = server.headers["Authorization"], server.kubeconfig.parent / "pki" / "ca.crt"
            targets.append(Target(f"API server, {group}", server.url, document, server.pid, key, trust))
        yield targets


@contextmanager
def inference_server() -> Iterator[list[Target]]:
    """The embedded server of a tiny model."""
    from tests.serving.conftest import tiny_model  # loads torch
    from tests.serving.running import Server

    with tempfile.TemporaryDirectory() as folder:
        server = Server(tiny_model(Path(folder) / "tiny"), Path(folder) / "cache", {})
        try:
            server.wait_until_ready()
            document = json.loads(server.get("/openapi.json")[1])
            yield [Target("inference server", server.url, document, server.process.pid)]
        finally:
            server.kill()


@contextmanager
def gateway() -> Iterator[list[Target]]:
    """A gateway that asks for a key, with chat and arena, before the embedded server."""
    from tests.gateway.running import Gateway, ask

    with inference_server() as (server,), tempfile.TemporaryDirectory() as folder:
        keys = Path(folder) / "keys"
        keys.write_text("opensesame\n")
        arena = {"arena": "true", "arena_against": server.url, "arena_against_name": "tiny"}
        made = Gateway(server.url, chat="true", votes=Path(folder) / "votes", keys_from=keys, **arena)
        try:
            key = "Bearer opensesame"
            headers = {"Authorization": key, "Content-Type": "application/json"}
            answers = [ask(made.url, COMPARISONS, b'{"message": "Hi"}', headers=headers) for _ in range(COMPARED)]
            compared = [json.loads(answer.body.split(b"\n")[0].removeprefix(b"data: "))["id"] for answer in answers]
            pid = made.process.pid
            yield [
                Target("gateway, its server's document", made.url, server.document, pid, key),
                Target("gateway, its own paths", made.url, own_paths(compared), pid, key),
            ]
        finally:
            made.end()  # fails where the log tells of a failure of its own


def own_paths(compared: list[str]) -> dict[str, Any]:
    """What a gateway answers itself. compared: comparisons that may be voted on."""

    def body(required: str, **properties: Any) -> dict[str, Any]:
        schema = {"type": "object", "required": [required], "properties": properties, "additionalProperties": False}
        return {"content": {"application/json": {"schema": schema}}, "required": True}

    known = {"anyOf": [{"enum": compared}, {"type": "string"}]}
    identifier = {"name": "id", "in": "path", "required": True, "schema": known}
    done: dict[str, Any] = {"responses": {"200": {"description": "Done."}}}
    message = body("message", message={"type": "string", "minLength": 1, "maxLength": 8000}, after=known)
    vote = body("vote", vote={"enum": ["left", "right", "tie", "both_bad"]})
    read = ("/health", "/readyz", "/livez", "/metrics", "/internal/status", "/chat", "/arena", "/arena/api/ratings")
    return {
        "openapi": "3.1.0",
        "info": {"title": "Alidade gateway", "version": "1"},
        "paths": {
            **{path: {"get": done} for path in read},
            COMPARISONS: {"post": done | {"requestBody": message}},
            COMPARISONS + "/{id}/vote": {"post": done | {"requestBody": vote, "parameters": [identifier]}},
        },
    }


def run(target: Target, tool: Path, *, seconds: int, seed: int) -> dict[str, Any]:
    """What came of one document."""
    process = psutil.Process(target.pid)
    before, begun = process.memory_info().rss, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder) / "openapi.json"
        document.write_text(json.dumps(target.document))
        command = [
            str(tool), "run", str(document), "--url", target.url, "--checks", "not_a_server_error",
            "--phases", "coverage,fuzzing", "--max-time", str(seconds), "--seed", str(seed), "--warnings", "off",
            "--no-shrink", "--continue-on-failure", "--request-timeout", "20", "--suppress-health-check", "all",
        ]  # fmt: skip
        command += ["--header", f"Authorization: {target.authorization}"] if target.authorization else []
        command += ["--tls-verify", str(target.trust)] if target.trust else []
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    print(f"{target.name}\n{done.stdout[-4000:]}{done.stderr[-2000:]}", flush=True)
    cases = re.search(r"(\d[\d,]*) generated", done.stdout)
    return {
        "target": target.name,
        "operations": sum(len(set(item) - {"parameters"}) for item in target.document["paths"].values()),
        "requests": int(cases[1].replace(",", "")) if cases else 0,
        "seconds": round(time.monotonic() - begun, 1),
        "residentMib": [round(value / 2**20, 1) for value in (before, process.memory_info().rss)],
        "failed": done.returncode != 0,
    }


SERVERS = {"api-server": api_server, "inference-server": inference_server, "gateway": gateway}


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="for each document")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=SERVERS, help="the one whose numbers are made anew")
    options = parser.parse_args()
    made = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "environment.py"), str(ROOT / ".tools" / "fuzz"), SCHEMATHESIS],
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    tool = (ROOT / made.stdout.strip()).parent / "schemathesis"
    results = []
    for name, servers in SERVERS.items():
        if options.only in (None, name):
            with servers() as targets:
                results += [run(target, tool, seconds=options.seconds, seed=options.seed) for target in targets]
    written = ROOT / "bench" / "results" / "http_fuzz.json"
    known = {one["target"]: one for one in json.loads(written.read_text())} if options.only else {}
    known |= {one["target"]: one for one in results}
    written.write_text(json.dumps(list(known.values()), indent=1) + "\n")
    print(json.dumps(results, indent=1))
    return 1 if any(one["failed"] for one in results) else 0


if __name__ == "__main__":
    raise SystemExit(main())
