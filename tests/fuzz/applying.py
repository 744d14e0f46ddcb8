"""Strange resources through an API server and a running operator, and what has to be true of each."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp

from alidade_operator.api import CLAIM, CONFIG_MAP, PARENT_KINDS, Api, Connection, Kind
from tests.fuzz.resources import Sort, named_by_examples, resource

_KINDS = {kind.kind: kind for kind in PARENT_KINDS}
NODE_POOLS = [
    {"name": "local"},
    {"name": "a100-80gb", "gpusPerNode": 8, "gpuMemoryGib": 80},
    {"name": "a100-spot", "gpusPerNode": 8, "gpuMemoryGib": 80},
]
"""Of an operator that knows the examples' pools."""
_AT_ONCE = 8
_MOST_BYTES = 3 * 1024 * 1024
"""Of a body, as API servers have it: a longer one is refused unread, which tests/local/conformance looks at."""
_PATIENCE_S = 120.0
_QUIET_S = 0.3
# A refusal names a field, or what is no resource at all.
_FIELD = re.compile(
    r"\b(spec|metadata|status|apiVersion|kind)\b|JSON|strict decoding|body of the request|entity too large"
)
_SENTENCE = re.compile(r"\w.*\w", re.DOTALL)


@dataclass
class Findings:
    """What came of a number of resources. wrong: each a line about a promise that was not kept."""

    sent: Counter[str] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    """Of the condition Accepted."""
    wrong: list[str] = field(default_factory=list)


class Applicant:
    """Sends resources to an API server as a user of one namespace."""

    def __init__(self, api: Api, connection: Connection, session: aiohttp.ClientSession, namespace: str) -> None:
        self._api = api
        self._connection = connection
        self._session = session
        self._namespace = namespace

    async def apply(
        self, seed: int, numbers: range, *, before_the_end: Callable[[], Awaitable[None]] | None = None
    ) -> Findings:
        """Creates the resources of these numbers, waits for the operator's word about each that was taken, and deletes
        them.

        before_the_end: called once the operator has made what it makes of them.
        """
        found, random, slots = Findings(), Random(f"{seed}-{numbers.start}"), asyncio.Semaphore(_AT_ONCE)
        names: list[tuple[Kind, str]] = []

        async def send(number: int, sort: Sort, body: dict[str, Any]) -> None:
            async with slots:
                status, answer = await self._create(_KINDS[body["kind"]], body)
            found.sent[sort] += 1
            where = f"seed {seed}, number {number}, {sort} {body['kind']}"
            if status == 201:
                found.taken[sort] += 1
                names.append((_KINDS[body["kind"]], answer["metadata"]["name"]))
            elif not 400 <= status < 500 or not _FIELD.search(str(answer.get("message", ""))):
                found.wrong.append(f"{where}: answered {status} {answer}"[:1000])

        made = [(number, *resource(random, number)) for number in numbers]
        await asyncio.gather(*(send(*one) for one in made if len(json.dumps(one[2])) <= _MOST_BYTES))
        await self._judge(names, found)
        await self._until_quiet()
        if before_the_end is not None:
            await before_the_end()
        for kind, name in names:
            await self._session.delete(self._url(kind, name), headers=self._connection.headers)
        return found

    def _url(self, kind: Kind, name: str = "") -> str:
        return self._connection.server + kind.path(self._namespace, name or None)

    async def _create(self, kind: Kind, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        headers = {**self._connection.headers, "Content-Type": "application/json"}
        text = json.dumps(body)  # a number that is none makes it something else than JSON
        try:
            async with self._session.post(self._url(kind), data=text.encode(), headers=headers) as response:
                return response.status, json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            return 0, {"message": f"{type(error).__name__} {error} to {text[:1500]}"}

    async def _judge(self, names: list[tuple[Kind, str]], found: Findings) -> None:
        """Waits for the condition Accepted of each, of its present generation, with a sentence."""
        waiting, deadline = set(names), time.monotonic() + _PATIENCE_S
        while waiting and time.monotonic() < deadline:
            for kind in {kind for kind, _ in waiting}:
                bodies, _ = await self._api.list(kind, namespace=self._namespace)
                for body in bodies:
                    one = (kind, body["metadata"]["name"])
                    if one in waiting and (accepted := _accepted(body)) is not None:
                        waiting.discard(one)
                        found.reasons[f"{accepted['status']} {accepted['reason']}"] += 1
                        if not _SENTENCE.search(accepted["message"]):
                            found.wrong.append(f"{kind.kind} {one[1]}: {accepted} has no sentence")
            await asyncio.sleep(0.1)
        for kind, name in sorted(waiting, key=str):
            body = await self._api.get(kind, self._namespace, name)
            found.wrong.append(f"{kind.kind} {name}: no word of the operator about {json.dumps(body)[:1500]}")

    async def _until_quiet(self) -> None:
        """Until the operator has made what it makes: nothing was written for a while."""
        before, deadline = "", time.monotonic() + _PATIENCE_S
        while before != (before := (await self._api.list(CLAIM, namespace=self._namespace))[1]):
            assert time.monotonic() < deadline, "the operator goes on writing"
            await asyncio.sleep(_QUIET_S)


async def furnish(api: Api, namespace: str) -> None:
    """Makes the ConfigMaps and the claim that the examples name, so that more than their absence is found."""
    keys = named_by_examples(r"configmap://([-a-z0-9]+)/([-.a-z0-9]+)")
    for name in {name for name, _ in keys}:
        data = {key: "[]" for other, key in keys if other == name}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
        await api.create(CONFIG_MAP, namespace, body)
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    body = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "datasets"}, "spec": spec}
    await api.create(CLAIM, namespace, body)


def _accepted(body: dict[str, Any]) -> dict[str, Any] | None:
    status = body.get("status")
    conditions = status.get("conditions", []) if isinstance(status, dict) else []
    return next((one for one in conditions if one["type"] == "Accepted"), None)


def mistakes(log: str) -> list[str]:
    """Lines of an operator's log about what it should not have met: whatever is an error."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [json.dumps(line)[:2000] for line in lines if line["level"] in ("error", "critical")]
