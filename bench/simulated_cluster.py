"""A kubelet and the controllers of PyTorchJobs, Jobs and Deployments, of whom each does what it says and runs nothing.

Every object that the operator makes is attended by a coroutine: it writes what the real ones would write, and answers
for a training pod at an address of loopback of its own. How an attempt ends is decided beforehand, by a fate.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from alidade_crds.contract import ExitCode, ProgressDocument, ResultDocument
from alidade_local.client import ApiClient, KubeConfig
from alidade_local.informer import Informer, Informers
from alidade_local.objects import Key, Object, controller_of, key_of, uid_of
from alidade_local.resources import Resource
from alidade_operator.api import DEPLOYMENT, EVALUATION, JOB, PARENT_KINDS, PYTORCH_JOB, Api, ApiError, Kind
from alidade_operator.resources.trainingpod import PROGRESS_PORT
from tests.operator.builders import MODEL, evaluated, failure, measured, success
from tests.operator.played import Played

PATIENCE_S = 120.0
"""The operator has to react within it."""
_SPARE_ADDRESSES = 64


class Fate(Enum):
    """How an attempt ends."""

    SUCCEEDS = "succeeds"
    IS_RETRIED = "is retried"
    FAILS = "fails"


class Pace:
    """How long things take, until all shall end soon."""

    def __init__(self, *, start_s: float, run_s: float, step_s: float, chance: random.Random) -> None:
        """start_s, run_s: means, of the time until a pod runs (evenly spread) and of the time that it runs then
        (exponential, as where any time is as good as another to end). step_s: of a training."""
        self.start_s, self.run_s, self.step_s = start_s, run_s, step_s
        self.chance = chance
        self._hurry = asyncio.Event()

    def hurry(self) -> None:
        """Ends all that goes on, and lets nothing take time any more."""
        self._hurry.set()

    async def starts(self) -> None:
        """The time from an object to its running pod."""
        await self.rest(self.chance.uniform(0, 2 * self.start_s))

    async def runs(self, share: float = 1.0) -> None:
        """The time that something runs, or a share of it on average."""
        await self.rest(share * self.chance.expovariate(1 / self.run_s) if self.run_s else 0)

    async def rest(self, seconds: float) -> None:
        """That time, unless all shall end soon."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), seconds)


class ProgressServer:
    """Answers for training pods, each at its own address, as long as it runs."""

    def __init__(self, pace: Pace, addresses: int, on_step: Callable[[], None]) -> None:
        """on_step: called when a step is told that was not told before."""
        self._pace, self._on_step = pace, on_step
        # Below those of the local cluster's pods; by the process, so that two benchmarks do not meet.
        block = f"127.{2 + os.getpid() % 13}"
        self._free = [f"{block}.{number // 250}.{number % 250 + 1}" for number in range(addresses)]
        self._since: dict[str, float] = {}
        self._told: dict[str, int] = {}
        app = web.Application()
        app.add_routes([web.get("/progress", self._answer)])
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> None:
        """Makes it ready to take addresses."""
        await self._runner.setup()

    async def stop(self) -> None:
        """Ends it."""
        await self._runner.cleanup()

    @asynccontextmanager
    async def pod(self) -> AsyncIterator[str]:
        """The address of a pod that answers from now on."""
        address = self._free.pop()
        site = web.TCPSite(self._runner, address, PROGRESS_PORT)
        try:
            await site.start()
            self._since[address] = time.monotonic()
            yield address
        finally:
            await site.stop()
            self._since.pop(address, None)
            self._told.pop(address, None)
            self._free.append(address)

    async def _answer(self, request: web.Request) -> web.Response:
        since = self._since.get(request.url.host or "")
        if since is None:
            raise web.HTTPNotFound
        step = int((time.monotonic() - since) / self._pace.step_s)
        if self._told.get(request.url.host or "") != step:
            self._told[request.url.host or ""] = step
            self._on_step()
        told = ProgressDocument(
            state="training", step=step, total_steps=1000, epoch=step / 1000, loss=8 / (1 + step), learning_rate=2e-5,
            tokens_per_second=4000.0, eta_s=(1000 - step) * self._pace.step_s, updated_at=datetime.now(UTC),
        )  # fmt: skip
        return web.Response(text=told.model_dump_json(by_alias=True), content_type="application/json")


@dataclass
class Course:
    """What has become of a resource's attempts. alive: uids of those that have not ended."""

    fates: list[Fate] = field(default_factory=list)
    """Of its next attempts; those after succeed."""
    names: set[str] = field(default_factory=set)
    alive: set[str] = field(default_factory=set)
    digest: str = ""
    """Of the model that the last one told of."""
    ended_at: float = 0.0
    """When the first word of the last end was written, by time.monotonic()."""


class SimulatedCluster:
    """Everybody but the operator and its users."""

    def __init__(self, api: Api, kubeconfig: Path, namespace: str, pace: Pace, *, pods: int) -> None:
        """pods: most that run at a time."""
        self.played = Played(api, namespace)
        self.pace = pace
        self.changes: Counter[str] = Counter()
        """What the operator was to take note of, by who did it."""
        self.wrong: list[str] = []
        self.courses: dict[str, Course] = defaultdict(Course)
        """By the resource's uid."""
        self._client = ApiClient(KubeConfig.load(kubeconfig))
        self._informers = Informers(self._client)
        self._progress = ProgressServer(pace, pods + _SPARE_ADDRESSES, lambda: self.changes.update(["progress"]))
        self._attended: dict[str, asyncio.Task[None]] = {}
        self._waiters: dict[str, set[tuple[Callable[[], Any], asyncio.Future[float]]]] = defaultdict(set)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> SimulatedCluster:
        """Follows the API server from now on."""
        await self._client.__aenter__()
        await self._progress.start()
        for kind in PARENT_KINDS:
            self._informer(kind).listen(self._tell)
        for kind in (PYTORCH_JOB, JOB, DEPLOYMENT):
            self._informer(kind).listen(partial(self._take, kind))
        self._tasks.append(asyncio.create_task(self._informers.run()))
        await self._informers.wait_until_synced()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Lets go of all pods."""
        for task in (*self._tasks, *self._attended.values()):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._attended.values(), return_exceptions=True)
        await self._progress.stop()
        await self._client.__aexit__(None, None, None)

    # What is there

    def get(self, kind: Kind, name: str) -> Object | None:
        """An object as it was last seen."""
        return self._informer(kind).get(Key(self.played.namespace, name))

    def all(self, kind: Kind) -> list[Object]:
        """All objects of a kind."""
        return self._informer(kind).all(self.played.namespace)

    def children(self, kind: Kind, owner: Object) -> list[Object]:
        """Those of a kind that belong to an object."""
        return self._informer(kind).controlled_by(owner)

    async def until(
        self, body: Object, look: Callable[[], Any], what: str, *, timeout_s: float | None = PATIENCE_S
    ) -> float:
        """When it was first seen, by time.monotonic(), that something holds of an object and of what belongs to it;
        raises TimeoutError after the time."""
        if look():
            return time.monotonic()
        waiter = (look, asyncio.get_running_loop().create_future())
        self._waiters[uid_of(body)].add(waiter)
        try:
            return await asyncio.wait_for(waiter[1], timeout_s)
        except TimeoutError:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}") from None
        finally:
            self._waiters[uid_of(body)].discard(waiter)
            if not self._waiters[uid_of(body)]:
                del self._waiters[uid_of(body)]

    def _informer(self, kind: Kind) -> Informer:
        return self._informers.of(Resource(kind.group, kind.version, kind.plural, kind.kind))

    def _tell(self, before: Object | None, after: Object | None) -> None:
        body = after or before
        assert body is not None, "an informer tells of an object"
        owner = controller_of(body)
        for uid in (uid_of(body), owner["uid"] if owner is not None else ""):
            for look, seen in tuple(self._waiters.get(uid, ())):
                if not seen.done() and look():
                    seen.set_result(time.monotonic())

    # What is done with it

    def _take(self, kind: Kind, before: Object | None, after: Object | None) -> None:
        body = after or before
        assert body is not None, "an informer tells of an object"
        owner = controller_of(body)
        if owner is None or key_of(body).namespace != self.played.namespace:
            return
        if after is None:
            self._ended(owner["uid"], uid_of(body))
            self._release(uid_of(body))
        elif kind is DEPLOYMENT:
            if (before or {}).get("metadata", {}).get("generation") != after["metadata"]["generation"]:
                self._release(uid_of(body))
                self._attend(lambda: self._roll_out(after), body)
        elif before is None:
            course = self.courses[owner["uid"]]
            if course.alive:
                self.wrong.append(f"{owner['kind']} {owner['name']} has two attempts at a time: {key_of(body).name}")
            course.names.add(key_of(body).name)
            course.alive.add(uid_of(body))
            work = self._train if kind is PYTORCH_JOB else self._measure
            self._attend(lambda: work(after, owner), body)
        self._tell(before, after)

    def _ended(self, owner_uid: str, uid: str) -> None:
        self.courses[owner_uid].alive.discard(uid)

    def _attend(self, work: Callable[[], Awaitable[None]], body: Object) -> None:
        async def guarded() -> None:
            try:
                await work()
            except ApiError as error:
                # The object, or what has its place now, was deleted meanwhile.
                if not error.not_found and not error.conflict:
                    self.wrong.append(f"{key_of(body).name}: {error}")

        task = asyncio.create_task(guarded())
        self._attended[uid_of(body)] = task
        task.add_done_callback(lambda done: self._attended.pop(uid_of(body), None) if done is task else None)

    def _release(self, uid: str) -> None:
        task = self._attended.pop(uid, None)
        if task is not None:
            task.cancel()

    async def _train(self, job: Object, owner: Object) -> None:
        await self.pace.starts()
        async with self._progress.pod() as address:
            await self.played.run_pod(job, ip=address)
            self.changes["pod started"] += 1
            await self.pace.runs()
            course = self.courses[owner["uid"]]
            fate = course.fates.pop(0) if course.fates else Fate.SUCCEEDS
            result, code = self._result(job, owner, fate)
            course.ended_at, course.digest = time.monotonic(), result.model.digest if result.model else ""
            self._ended(owner["uid"], uid_of(job))
            await self.played.end_pod(key_of(job).name, exit_code=code, result=result)
            self.changes["pod ended"] += 1

    async def _measure(self, job: Object, owner: Object) -> None:
        await self.pace.starts()
        await self.pace.runs()
        evaluation = self.get(EVALUATION, owner["name"])
        names = [one["name"] for one in evaluation["spec"]["models"]] if evaluation is not None else []
        self.courses[owner["uid"]].ended_at = time.monotonic()
        self._ended(owner["uid"], uid_of(job))
        await self.played.end_job(job, "evaluation", evaluated(*(measured(name) for name in names)))
        self.changes["pod ended"] += 1

    async def _roll_out(self, deployment: Object) -> None:
        await self.pace.starts()
        await self.played.make_ready(deployment)
        self.changes["rolled out"] += 1

    def _result(self, job: Object, owner: Object, fate: Fate) -> tuple[ResultDocument, int]:
        if fate is Fate.FAILS:
            return failure(), ExitCode.FAILED
        if fate is Fate.IS_RETRIED:
            return failure("WorkerLost", retryable=True, message="A worker was lost."), ExitCode.RETRY
        more: dict[str, Any] = {}
        if owner["kind"] == "AlignmentRun":
            more = {"align_step": "1-raft", "metrics": {"reward": 1.5}}
        elif owner["kind"] == "RewardModel":
            more = {"metrics": {"accuracy": 0.75}}
        model = MODEL.model_copy(update={"digest": f"sha256:{uid_of(job)}"})
        return success(model=model, **more), ExitCode.SUCCEEDED
