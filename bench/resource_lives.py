"""The lives of resources on a simulated cluster: users create, suspend, resume, change and delete them, jobs are lost
and fail, and whatever a status says is compared with what was done."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from alidade_local.objects import Object, uid_of
from alidade_operator.api import (
    ALIGNMENT_RUN,
    DEPLOYMENT,
    EVALUATION,
    FINE_TUNE_JOB,
    JOB,
    MODEL_SERVE,
    PYTORCH_JOB,
    REWARD_MODEL,
    Kind,
)
from bench.simulated_cluster import Fate, SimulatedCluster
from tests.operator.memory import PROMPTS
from tests.operator.played import send

SHARES = {FINE_TUNE_JOB: 0.6, REWARD_MODEL: 0.15, EVALUATION: 0.12, MODEL_SERVE: 0.08, ALIGNMENT_RUN: 0.05}
"""How many of the resources are of a kind."""
PLOTS = {"suspended": 0.1, "retried": 0.1, "lost": 0.05, "failed": 0.05, "given up": 0.05}
"""What happens to so many of the training jobs; nothing to the others."""
LINGER = 0.05
"""Of the time that jobs run on average: how long a resource that has ended stays."""
DATA = {"uri": "pvc://data/train.json"}
TINY = {"init": {"hiddenSize": 64, "layers": 2, "heads": 4, "vocabSize": 512}}
SUITES = [{"type": "generation", "dataset": "pvc://data/questions.json"}]
MODELS = [{"name": name, "model": {"uri": f"pvc://data/{name}"}} for name in ("base", "tuned")]


def spec_of(kind: Kind, number: int) -> dict[str, Any]:
    """A spec as a user writes it; number: the seed, so that no two runs share a stage."""
    training = {"seed": number}
    if kind is FINE_TUNE_JOB:
        return {"method": "pretrain", "model": TINY, "dataset": DATA, "training": training}
    if kind is REWARD_MODEL:
        return {"model": {"uri": "pvc://data/base"}, "dataset": DATA, "training": training}
    if kind is EVALUATION:
        return {"models": MODELS, "suites": SUITES}
    if kind is MODEL_SERVE:
        return {"model": {"uri": "pvc://data/tuned"}}
    sft = {"method": "sft", "model": {"uri": "pvc://data/base"}, "dataset": DATA, "training": training}
    judge = {"name": "judge", "template": {"dataset": {"uri": "pvc://data/pairs.json"}, "training": training}}
    parts = {"sft": {"template": sft}, "rewardModels": [judge], "evaluation": {"template": {"suites": SUITES}}}
    return {**parts, "prompts": PROMPTS, "align": [{"raft": {}}], "training": training}


class Lives:
    """Users of a simulated cluster, and what they have found."""

    def __init__(self, cluster: SimulatedCluster, chance: random.Random) -> None:
        self.cluster = cluster
        self.reactions_s: dict[str, list[float]] = defaultdict(list)
        """Seconds from a change to what the operator made of it, since somebody took them."""
        self.ended = 0
        self.wrong: list[str] = []
        self._chance = chance
        self._numbers = itertools.count(1)

    async def slot(self, kind: Kind, goes_on: Callable[[], bool]) -> None:
        """One resource after the other; the last one stays."""
        while goes_on():
            body = await self._guarded(self._live, kind)
            self.ended += 1
            if body is not None and goes_on():
                await self.cluster.pace.rest(LINGER * self.cluster.pace.run_s)
                self._check(kind, body)
                await self._delete(kind, body)

    async def idle(self, kind: Kind, number: int) -> None:
        """A resource that is left alone once it has ended, is suspended, or serves: every third job is suspended."""
        if kind in (FINE_TUNE_JOB, REWARD_MODEL) and number % 3 == 0:
            await self._guarded(self._suspended_from_the_start, kind)
        else:
            await self._guarded(self._straight, kind)

    async def _guarded(self, work: Callable[[Kind], Any], kind: Kind) -> Object | None:
        try:
            body: Object | None = await work(kind)
        except TimeoutError as error:
            self.wrong.append(f"{kind.kind}: {error}")
            return None
        return body

    # Lives

    async def _live(self, kind: Kind) -> Object | None:
        if kind is MODEL_SERVE:
            return await self._served(kind)
        if kind in (ALIGNMENT_RUN, EVALUATION):
            return await self._straight(kind)
        plot = self._chance.choices([*PLOTS, ""], [*PLOTS.values(), 1 - sum(PLOTS.values())])[0]
        body = await self._created(kind)
        course = self.cluster.courses[uid_of(body)]
        if plot in ("retried", "failed"):
            course.fates.append({"retried": Fate.IS_RETRIED, "failed": Fate.FAILS}[plot])
        elif plot:
            await self.cluster.pace.rest(self.cluster.pace.start_s)
            await self.cluster.pace.runs(0.5)
        if not course.alive or plot in ("", "retried", "failed"):
            return await self._to_the_end(kind, body)
        if plot == "suspended":
            await self._suspend_and_resume(kind, body)
        elif plot == "lost":
            await self._lose(kind, body)
        else:
            await self._delete(kind, body)
            await self.cluster.until(body, lambda: not course.alive, "a deleted resource's job is gone")
            return None
        return await self._to_the_end(kind, body)

    async def _straight(self, kind: Kind) -> Object:
        if kind is MODEL_SERVE:
            return await self._serving(kind, await self._created(kind))
        return await self._to_the_end(kind, await self._created(kind))

    async def _served(self, kind: Kind) -> Object:
        """Served, twice with another number of replicas."""
        body = await self._serving(kind, await self._created(kind))
        for replicas in (2, 1):
            await self.cluster.pace.runs()
            begun = time.monotonic()
            await self._change(kind, body, {"replicas": replicas})

            def scaled(replicas: int = replicas) -> bool:
                return any(one["spec"]["replicas"] == replicas for one in self.cluster.children(DEPLOYMENT, body))

            self._note("changed", begun, await self.cluster.until(body, scaled, "a Deployment is scaled"))
            await self._serving(kind, body)
        await self.cluster.pace.runs()
        return body

    async def _serving(self, kind: Kind, body: Object) -> Object:
        what = f"{body['metadata']['name']} serves"
        await self.cluster.until(body, lambda: self._holds(kind, body, "Available"), what)
        return body

    async def _suspended_from_the_start(self, kind: Kind) -> Object:
        body = await self._apply(kind, suspend=True)
        what = f"{body['metadata']['name']} is suspended"
        await self.cluster.until(body, lambda: self._holds(kind, body, "Suspended"), what)
        return body

    async def _suspend_and_resume(self, kind: Kind, body: Object) -> None:
        course, name = self.cluster.courses[uid_of(body)], body["metadata"]["name"]

        def is_over() -> bool:
            return self._has_ended(kind, body)

        begun = time.monotonic()
        await self._change(kind, body, {"suspend": True})
        seen = await self.cluster.until(body, lambda: not course.alive, f"{name} is suspended")
        if not course.ended_at:  # by itself, before the operator knew
            self._note("suspended", begun, seen)
        said = f"{name} says that it is suspended"
        await self.cluster.until(body, lambda: self._holds(kind, body, "Suspended") or is_over(), said)
        if not is_over():
            await self.cluster.pace.runs(0.1)
            begun = time.monotonic()
            await self._change(kind, body, {"suspend": False})
            seen = await self.cluster.until(body, lambda: course.alive, f"{name} is resumed")
            self._note("resumed", begun, seen)

    async def _lose(self, kind: Kind, body: Object) -> None:
        course = self.cluster.courses[uid_of(body)]
        known = self.cluster.children(PYTORCH_JOB, body)
        job = next((one for one in known if uid_of(one) in course.alive), None)
        if job is None:  # it has just ended by itself
            return

        def others() -> set[str]:
            return course.alive - {uid_of(job)}

        begun = time.monotonic()
        await self.cluster.played.delete(PYTORCH_JOB, job["metadata"]["name"])
        self.cluster.changes["job lost"] += 1
        what = f"{job['metadata']['name']} is there again"
        seen = await self.cluster.until(body, lambda: others() or self._has_ended(kind, body), what)
        if others():
            self._note("lost", begun, seen)

    async def _to_the_end(self, kind: Kind, body: Object) -> Object:
        what = f"{body['metadata']['name']} ends"
        # How long pods take is not the operator's: whoever waits for all lives sets the limit.
        was_awaited = not self._has_ended(kind, body)
        seen = await self.cluster.until(body, lambda: self._has_ended(kind, body), what, timeout_s=None)
        if was_awaited and kind is not ALIGNMENT_RUN:  # whose own job is not the last of it
            self._note("ended", self.cluster.courses[uid_of(body)].ended_at, seen)
        self._check_end(kind, body)
        return body

    # Changes

    async def _created(self, kind: Kind) -> Object:
        begun = time.monotonic()
        body = await self._apply(kind)
        first = {EVALUATION: JOB, MODEL_SERVE: DEPLOYMENT, ALIGNMENT_RUN: FINE_TUNE_JOB}.get(kind, PYTORCH_JOB)
        what = f"{body['metadata']['name']} has its {first.kind}"
        self._note("created", begun, await self.cluster.until(body, lambda: self.cluster.children(first, body), what))
        return body

    async def _apply(self, kind: Kind, **more: Any) -> Object:
        number = next(self._numbers)
        self.cluster.changes["created"] += 1
        return await self.cluster.played.apply_kind(kind, f"{kind.kind.lower()}-{number}", spec_of(kind, number) | more)

    async def _change(self, kind: Kind, body: Object, spec: dict[str, Any]) -> None:
        self.cluster.changes["changed"] += 1
        played = self.cluster.played
        path = kind.path(played.namespace, body["metadata"]["name"])
        await send(played.api, "PATCH", kind, path, {"spec": spec}, content_type="application/merge-patch+json")

    async def _delete(self, kind: Kind, body: Object) -> None:
        self.cluster.changes["deleted"] += 1
        await self.cluster.played.delete(kind, body["metadata"]["name"])

    def _note(self, sort: str, begun: float, seen: float) -> None:
        self.reactions_s[sort].append(max(0.0, seen - begun))

    # Statuses

    def check_all(self) -> None:
        """Every resource that is there is as it should be left."""
        for kind in SHARES:
            for body in self.cluster.all(kind):
                self._check(kind, body)

    def _check(self, kind: Kind, body: Object) -> None:
        """It serves, is suspended, or has ended as it should, and nothing else."""
        if kind is not MODEL_SERVE and self._has_ended(kind, body):
            self._check_end(kind, body)
        elif not self._holds(kind, body, "Available" if kind is MODEL_SERVE else "Suspended"):
            self.wrong.append(f"{body['metadata']['name']} was left as {json.dumps(self._status(kind, body))}")

    def _status(self, kind: Kind, body: Object) -> dict[str, Any]:
        """The newest status of a resource that tells of its newest spec; empty where there is none yet."""
        now = self.cluster.get(kind, body["metadata"]["name"])
        if now is None or uid_of(now) != uid_of(body):
            return {}
        status: dict[str, Any] = now.get("status") or {}
        return status if status.get("observedGeneration") == now["metadata"]["generation"] else {}

    def _truths(self, kind: Kind, body: Object) -> set[str]:
        conditions = self._status(kind, body).get("conditions") or []
        return {one["type"] for one in conditions if one["status"] == "True"}

    def _holds(self, kind: Kind, body: Object, condition: str) -> bool:
        return condition in self._truths(kind, body)

    def _has_ended(self, kind: Kind, body: Object) -> bool:
        return bool(self._truths(kind, body) & {"Succeeded", "Failed"})

    def _check_end(self, kind: Kind, body: Object) -> None:
        """What a status says of an end is what the kubelet has told, and it took as many attempts as there were."""
        course, status = self.cluster.courses[uid_of(body)], self._status(kind, body)
        is_training = kind in (FINE_TUNE_JOB, REWARD_MODEL, ALIGNMENT_RUN)
        expected = {
            "end": {"Failed"} if is_training and not course.digest else {"Succeeded"},
            "digest": course.digest,
            "attempts": len(course.names),
        }
        found = {
            "end": self._truths(kind, body) & {"Succeeded", "Failed"},
            "digest": (status.get("model") or {}).get("digest", ""),
            "attempts": status.get("attempts"),
        }
        if found != expected:
            self.wrong.append(f"{body['metadata']['name']} says {found}, and should say {expected}")
        if course.alive:
            self.wrong.append(f"{body['metadata']['name']} has ended, and an attempt of it has not")
