"""One run in a namespace of its own: what is applied, what was seen of it, and what it came to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientError

from alidade_operator.api import (
    ALIGNMENT_RUN,
    CHILD_KINDS,
    CONFIG_MAP,
    DEPLOYMENT,
    EVALUATION,
    FINE_TUNE_JOB,
    JOB,
    MODEL_SERVE,
    OPTIONAL_KINDS,
    PARENT_KINDS,
    PYTORCH_JOB,
    REWARD_MODEL,
    TRAIN_JOB,
    Api,
    ApiError,
    Kind,
)
from alidade_operator.resources.labels import SELECTOR
from tests.chaos.rig import PLAYED, REAL, Part, Rig
from tests.chaos.volume import WORKSPACE
from tests.e2e.jobs import PAIRS, TINY, TRAINING, config_map
from tests.operator.played import NAMESPACE, Played, send, watch

LEAST_LIMIT_S, TIMES_UNDISTURBED = 100.0, 12
"""A run that has not ended by then never will."""
RECORDED = (ALIGNMENT_RUN, FINE_TUNE_JOB, REWARD_MODEL, EVALUATION, MODEL_SERVE, PYTORCH_JOB, JOB, DEPLOYMENT)
REPLICA_SET = Kind("apps", "v1", "replicasets", "ReplicaSet")
OWNED = tuple(
    kind
    for kind in (*PARENT_KINDS, *CHILD_KINDS, CONFIG_MAP, REPLICA_SET)
    if kind not in OPTIONAL_KINDS and kind is not TRAIN_JOB
)
ATTEMPTS = 12
"""More than a fault costs."""

Body = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """What is run: resources in the order in which they are applied, of which the last one is watched."""

    name: str
    resources: tuple[tuple[Kind, str, Body], ...]

    @property
    def target(self) -> tuple[Kind, str]:
        """The resource whose end is the end."""
        kind, name, _ = self.resources[-1]
        return kind, name


DATA = {"uri": "configmap://records/train.json"}
_PLACE = {"nodePool": PLAYED, "workers": 2}
_JUDGED = {"dataset": DATA, "compute": _PLACE, "backoffLimit": ATTEMPTS}
RUN = Workload(
    "run",
    (
        (
            ALIGNMENT_RUN,
            "run",
            {
                "sft": {"template": {"method": "sft", "model": {"init": TINY}, **_JUDGED}},
                "rewardModels": [{"name": "judge", "template": _JUDGED}],
                "prompts": DATA,
                "align": [{"raft": {"iterations": 1}}],
                "compute": _PLACE,
                "backoffLimit": ATTEMPTS,
                "evaluation": {
                    "template": {
                        "suites": [{"type": "perplexity", "dataset": DATA["uri"]}],
                        "compute": {"nodePool": PLAYED},
                        "backoffLimit": ATTEMPTS,
                    }
                },
                "gate": [{"metric": "perplexity", "atMost": {"value": 20}}],
                "serve": {
                    "template": {
                        "engine": "embedded",
                        "quantization": {"method": "int8"},
                        "compute": {"nodePool": PLAYED},
                    }
                },
            },
        ),
    ),
)
STAGE = Workload(
    "stage", ((FINE_TUNE_JOB, "run", {"method": "sft", "model": {"init": TINY}, **_JUDGED}),)
)  # fmt: skip
_TRAINED = {
    "method": "sft",
    "dataset": DATA | {"maxLength": 64, "packing": False},
    "training": TRAINING | {"maxSteps": 12, "epochs": 1000},
    "checkpoint": {"everySteps": 3},
    "compute": {"nodePool": REAL},
}
JOBS = Workload(
    "jobs",
    (
        (FINE_TUNE_JOB, "base", {**_TRAINED, "model": {"init": TINY}}),
        (FINE_TUNE_JOB, "run", {**_TRAINED, "model": {"from": {"kind": "FineTuneJob", "name": "base"}}}),
    ),
)


@dataclass
class Record:
    """All that watches have seen."""

    made: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    """uids by kind and name."""
    statuses: list[Body] = field(default_factory=list)
    """Every status of the target, in order; of one that was deleted and applied again, of the newest."""
    target_uid: str = ""
    components: dict[tuple[str, str], str] = field(default_factory=dict)
    """What each was made for."""

    def take(self, kind: Kind, body: Body, target: tuple[Kind, str]) -> None:
        """Takes note of a version of an object."""
        metadata = body["metadata"]
        key = (kind.kind, metadata["name"])
        self.made[key].add(metadata["uid"])
        self.components[key] = (metadata.get("labels") or {}).get("app.kubernetes.io/component", "")
        if (kind, metadata["name"]) == target and "status" in body:
            if metadata["uid"] != self.target_uid:
                self.target_uid = metadata["uid"]
                self.statuses.clear()
            self.statuses.append(body["status"])

    def counts(self, *kinds: Kind) -> Counter[tuple[str, str]]:
        """How many objects of these kinds were made, by kind and what for."""
        names = {kind.kind for kind in kinds}
        return Counter(
            {
                (kind, self.components[kind, name]): len(uids)
                for (kind, name), uids in self.made.items()
                if kind in names
            }
        )


class Trial:
    """A run, and who disturbs it."""

    def __init__(self, rig: Rig, workload: Workload, namespace: str, chance: random.Random, lasts_s: float) -> None:
        """lasts_s: how long an undisturbed one takes."""
        self.rig = rig
        self.workload = workload
        self.namespace = namespace
        self.chance = chance
        self.lasts_s = lasts_s
        self.limit_s = max(LEAST_LIMIT_S, TIMES_UNDISTURBED * lasts_s)
        self.record = Record()
        self.struck = 0
        """How many times something was done to it."""
        self.remade: set[tuple[str, str]] = set()
        """Kind and name of what may be made anew, since somebody has deleted it."""
        self.played = Played(rig.api, namespace)

    async def prepare(self) -> None:
        """The namespace with a claim and data."""
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}}
        await retried(lambda: send(self.rig.api, "POST", NAMESPACE, NAMESPACE.path(), body))
        await self.played.claim(WORKSPACE)
        await self.give_data()
        await self.rig.furnish(self.namespace)

    async def delete_namespace(self) -> None:
        """With everything in it; returns when it is gone."""
        await delete_namespace(self.rig.api, self.namespace)

    async def give_data(self) -> None:
        """The user's ConfigMap."""
        records = config_map("records", train_json=json.dumps({"type": "text2text", "instances": PAIRS}))
        await self.rig.api.create(CONFIG_MAP, self.namespace, records)

    async def apply(self) -> None:
        """The user applies what is to be run."""
        for kind, name, spec in self.workload.resources:
            await retried(lambda kind=kind, name=name, spec=spec: self.played.apply_kind(kind, name, spec))

    @asynccontextmanager
    async def recording(self) -> AsyncIterator[None]:
        """While watches take notes."""
        tasks = [asyncio.create_task(self._record(kind)) for kind in RECORDED]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _record(self, kind: Kind) -> None:
        """Again and again: a watch ends with its API server. What came and went meanwhile is in the ledger only."""
        while True:
            with contextlib.suppress(ApiError, ClientError, OSError):
                async for event, body in watch(self.rig.api, kind, self.namespace):
                    if event != "ERROR":
                        self.record.take(kind, body, self.workload.target)
            await asyncio.sleep(0.1)

    # What can be seen

    async def target(self) -> Body:
        """The watched resource; {} while it cannot be read."""
        kind, name = self.workload.target
        try:
            return await self.rig.api.get(kind, self.namespace, name)
        except ApiError:
            return {}

    async def status(self) -> Body:
        """Its status."""
        found: Body = (await self.target()).get("status") or {}
        return found

    async def phase(self, *phases: str) -> Body:
        """The status, once it is in one of these phases for the newest spec."""

        async def look() -> Body | None:
            body = await self.target()
            status = body.get("status") or {}
            is_newest = status.get("observedGeneration") == (body.get("metadata") or {}).get("generation")
            return status if is_newest and status.get("phase") in phases else None

        try:
            return await until(look, f"{self.workload.target[1]} to be {' or '.join(phases)}", limit_s=self.limit_s)
        except TimeoutError as error:
            status = await self.status()
            told = [
                f"{one['type']}={one['status']} {one['message']}"
                for one in status.get("conditions", [])
                if one["status"] != "True"
            ]
            raise TimeoutError(f"{error}; it is {status.get('phase')}: {'; '.join(told)}") from None

    async def owned(self, *kinds: Kind) -> list[tuple[Kind, Body]]:
        """What there is that carries the operator's labels."""
        found: list[tuple[Kind, Body]] = []
        for kind in kinds or OWNED:
            items, _ = await self.rig.api.list(kind, namespace=self.namespace, selector=SELECTOR)
            found += [(kind, item) for item in items]
        return found

    async def at_volume(self, action: str, *arguments: Any) -> Any:
        """What a function of volume.py answers in the folder of the workspace."""
        return await self.rig.at_volume(self.namespace, action, *arguments)

    # What can be done

    async def instant(self) -> None:
        """A random moment of the run."""
        await asyncio.sleep(self.chance.uniform(0, self.lasts_s))

    async def a_little(self) -> None:
        """A random moment of a stage."""
        await asyncio.sleep(self.chance.uniform(0, 0.6))

    async def end(self, part: Part) -> bool:
        """Ends one of a part, a little after there is one, without asking. False: none came."""

        async def look() -> list[Any]:
            return await self.rig.running(self.namespace, part)

        async def gone() -> bool:
            return (await self.status()).get("phase") == "Succeeded"

        found = await until(lambda: either(look, gone), f"{part.words} to be at work", limit_s=self.limit_s)
        if found is True:
            return False
        await self.a_little()
        alive = await look()
        if alive:
            await self.rig.end(self.namespace, self.chance.choice(alive))
            self.struck += 1
        return bool(alive)

    async def delete(self, kind: Kind, body: Body) -> None:
        """Somebody deletes an object."""
        metadata = body["metadata"]
        with contextlib.suppress(ApiError):
            await self.rig.api.delete(kind, self.namespace, metadata["name"], uid=metadata["uid"])
            self.struck += 1

    async def change(self, kind: Kind, name: str, patch: Body) -> None:
        """Somebody edits an object, by a merge patch."""
        path = kind.path(self.namespace, name)
        with contextlib.suppress(ApiError):
            await send(self.rig.api, "PATCH", kind, path, patch, content_type="application/merge-patch+json")
            self.struck += 1


async def either(*looks: Callable[[], Awaitable[Any]]) -> Any:
    """The first true answer."""
    for look in looks:
        answer = await look()
        if answer:
            return answer
    return None


async def until(look: Callable[[], Awaitable[Any]], what: str, *, limit_s: float = LEAST_LIMIT_S) -> Any:
    """The first answer that is true; TimeoutError, which says what did not happen."""
    deadline = time.monotonic() + limit_s
    while True:
        answer = await look()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit_s:g} s: {what}")
        await asyncio.sleep(0.05)


async def retried(call: Callable[[], Awaitable[Any]]) -> Any:
    """The answer of a call, also when the API server is away for a moment."""

    async def attempt() -> Any:
        try:
            return await call()
        except ApiError as error:
            if error.status in (0, 404, 503):
                return None
            raise

    return await until(attempt, "the API server to take a call", limit_s=30)


async def delete_namespace(api: Api, name: str) -> None:
    """With everything in it; returns when it is gone."""

    async def gone() -> bool:
        try:
            options = {"kind": "DeleteOptions", "apiVersion": "v1"}
            await send(api, "DELETE", NAMESPACE, NAMESPACE.path(None, name), options)
        except ApiError as error:
            return error.not_found
        return False

    await until(gone, f"namespace {name} to be gone", limit_s=60)
