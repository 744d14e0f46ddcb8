"""The operator's core: events go into the cache, keys into the queue, and workers plan and carry out."""

import asyncio
import contextlib
import logging
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alidade_crds.contract import GatewayDocument, ProgressDocument
from alidade_crds.evaluation import EvaluationStatus
from alidade_crds.status import Condition, JobStatus, ResourceStatus
from alidade_operator import resourcegauges
from alidade_operator.adapterloader import AdapterLoader
from alidade_operator.api import (
    ALIGNMENT_RUN,
    CHILD_KINDS,
    CLAIM,
    EVALUATION,
    MODEL_SERVE,
    OPTIONAL_KINDS,
    PARENT_KINDS,
    Api,
    ApiError,
    JsonObject,
    Kind,
)
from alidade_operator.arenas import with_arenas_resolved
from alidade_operator.cache import Cache, Key, key_of, parent_key
from alidade_operator.config import ConfigError, OperatorConfig, read_config
from alidade_operator.executor import Executor, OutdatedPlanError
from alidade_operator.metrics import (
    MISSING_KINDS,
    QUEUE_DEPTH,
    QUEUE_WAIT,
    RECONCILE_DURATION,
    RECONCILES,
    RESOURCES,
    RESYNC_REPAIRS,
    WATCH_EVENTS,
    JobGauges,
    ResultGauges,
)
from alidade_operator.observe import Sight, observe
from alidade_operator.observerun import observe_run
from alidade_operator.observeserve import observe_serve
from alidade_operator.podreader import PROGRESS, SERVING, PodReader
from alidade_operator.reconcile.alignmentrun import plan_alignment_run
from alidade_operator.reconcile.backends import unused_kinds
from alidade_operator.reconcile.modelserve import plan_model_serve
from alidade_operator.reconcile.plan import STATUSES, Plan, TrainingJob, parse_status
from alidade_operator.reconcile.run import AlignmentRun
from alidade_operator.reconcile.serve import ModelServe
from alidade_operator.reconcile.trainingjob import plan_training_job
from alidade_operator.resources.observation import ReplicaLoad
from alidade_operator.resync import resync
from alidade_operator.spans import Change, Span, run_of, spans_of
from alidade_operator.workqueue import WorkQueue

_log = logging.getLogger(__name__)

_FIRST_LIST_RETRY_S = 0.5
_LAST_LIST_RETRY_S = 30.0
_CONFIG_LOOK_S = 5.0
# A kind that is not installed may be any time; jobs that wait for it go on then.
_MISSING_KIND_S = 15.0


class Controller:
    """Everything between the event source and the API. One per process."""

    def __init__(
        self,
        config: OperatorConfig,
        api: Api,
        *,
        config_path: Path | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_span: Callable[[Span], None] | None = None,
    ) -> None:
        """on_span: takes the spans of runs, at once; without, none are made."""
        self.config = config
        self.ready = asyncio.Event()
        """Set once every kind has been listed."""
        self._config_path = config_path
        self._api = api
        self._clock = clock
        self._cache = Cache()
        self._queue: WorkQueue[Key] = WorkQueue(on_wait=QUEUE_WAIT.observe)
        self._on_span = on_span
        self._executor = Executor(api, self._cache, on_resource=self._enqueue_resource, on_status=self._trace)
        self._progress: PodReader[Key, ProgressDocument] = PodReader(
            PROGRESS, interval_s=config.progress_interval_s, on_change=self._queue.add
        )
        self._serving: PodReader[Key, GatewayDocument | ReplicaLoad] = PodReader(
            SERVING, interval_s=config.progress_interval_s, on_change=self._queue.add
        )
        self._adapters: AdapterLoader[Key] = AdapterLoader(
            interval_s=config.progress_interval_s, on_change=self._queue.add
        )
        self._gauges = JobGauges()
        self._results = ResultGauges()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, *, may_work: asyncio.Event | None = None) -> None:
        """Starts the tasks: listings, workers (which wait for the first listing), progress, configuration.

        may_work: set when the workers may begin; they may at once without it.
        """
        self._spawn(self._resync_for_ever(), "resync")
        self._spawn(self._progress.run(), "progress")
        self._spawn(self._serving.run(), "serving")
        self._spawn(self._adapters.run(), "adapters")
        for number in range(self.config.workers):
            self._spawn(self._work(may_work), f"worker {number}")
        if self._config_path is not None:
            self._spawn(self._follow_config(self._config_path), "configuration")

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(coroutine, name=f"alidade {name}")
        task.add_done_callback(end_with)
        self._tasks.append(task)

    async def stop(self) -> None:
        """Ends the tasks; what they were in the middle of, the next start picks up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._queue.close()

    # Events

    def take_event(self, kind: Kind, event_type: str | None, body: JsonObject) -> None:
        """Takes in an event of the watch: ADDED, MODIFIED, DELETED, or None for an object of the first listing."""
        WATCH_EVENTS.labels(kind.plural).inc()
        is_new = self._cache.get(key_of(kind, body)) is None
        if event_type == "DELETED":
            changed = self._cache.remove(kind, body)
        else:
            changed = self._cache.put(kind, body)
        if changed:
            self._enqueue(kind, body, appeared_or_went=is_new or event_type == "DELETED")

    def _take_listed(self, kind: Kind, body: JsonObject) -> None:
        """Takes note of what a listing has brought that the cache had not, or no longer has that it had."""
        if self.ready.is_set():
            RESYNC_REPAIRS.labels(kind.plural).inc()
        self._enqueue(kind, body, appeared_or_went=True)

    def _enqueue(self, kind: Kind, body: JsonObject, *, appeared_or_went: bool) -> None:
        """Puts in line whom a change concerns."""
        if kind in PARENT_KINDS or kind in CHILD_KINDS:
            parent = parent_key(kind, body)
            if parent is not None:
                self._queue.add(parent)
        if kind in PARENT_KINDS:
            key = key_of(kind, body)
            self._queue.add(key)
            for dependent in self._cache.dependents(key):
                self._queue.add(dependent)
        elif kind is CLAIM and appeared_or_went:
            namespace = body["metadata"].get("namespace")
            for own in PARENT_KINDS:
                for resource in self._cache.all(own):
                    if resource["metadata"]["namespace"] == namespace:
                        self._queue.add(key_of(own, resource))

    def _enqueue_resource(self, key: Key) -> None:
        """Puts in line a resource that we have written or deleted, and who takes its result."""
        for concerned in (key, *self._cache.dependents(key)):
            self._queue.add(concerned)

    def enqueue_all(self) -> None:
        """Puts every resource in line."""
        for kind in PARENT_KINDS:
            for body in self._cache.all(kind):
                self._queue.add(key_of(kind, body))

    # Tasks

    async def _resync_for_ever(self) -> None:
        missing = set(self._cache.missing_kinds)
        while True:
            optional = (*OPTIONAL_KINDS, *unused_kinds(self.config))
            await self._list_all(optional)
            if not self.ready.is_set():
                self.ready.set()
                _log.info("listed every kind", extra={"action": "list", "why": "start", "objects": self._cache.size})
            if self._cache.missing_kinds != missing:
                missing = set(self._cache.missing_kinds)
                self.enqueue_all()
            interval_s = self.config.resync_interval_s
            if self._cache.missing_kinds - {kind.kind for kind in optional}:
                interval_s = min(interval_s, _MISSING_KIND_S)
            # Spread, so that several operators do not list at the same time.
            await asyncio.sleep(interval_s * random.uniform(1.0, 1.2))

    async def _list_all(self, optional: Collection[Kind]) -> None:
        """Lists every kind; what has been listed stays listed when another listing fails, which is tried again."""
        delay_s = _FIRST_LIST_RETRY_S
        listed: set[tuple[Kind, str | None]] = set()
        while True:
            before = len(listed)
            try:
                await resync(
                    self._cache,
                    self._api,
                    self.config.namespaces,
                    self._take_listed,
                    optional=optional,
                    listed=listed,
                )
            except ApiError as error:
                _log.error("listing failed", extra={"action": "list", "why": str(error)})
                delay_s = _FIRST_LIST_RETRY_S if len(listed) > before else min(_LAST_LIST_RETRY_S, delay_s * 2)
                await asyncio.sleep(delay_s)
            else:
                return

    async def _follow_config(self, path: Path) -> None:
        """Takes up a changed configuration file; a wrong one is told of and the last good one stays in force."""
        seen = await asyncio.to_thread(path.read_bytes)
        while True:
            await asyncio.sleep(_CONFIG_LOOK_S)
            with contextlib.suppress(OSError):  # while a ConfigMap volume swaps its files
                content = await asyncio.to_thread(path.read_bytes)
                if content == seen:
                    continue
                seen = content
                self._take_config(path)

    def _take_config(self, path: Path) -> None:
        try:
            self.config = read_config(path)
        except ConfigError as error:
            _log.error("configuration refused", extra={"action": "configure", "why": str(error)})
            return
        _log.info("configuration read", extra={"action": "configure", "why": "the file has changed"})
        self.enqueue_all()

    async def _work(self, may_work: asyncio.Event | None) -> None:
        await self.ready.wait()
        if may_work is not None:
            await may_work.wait()
        while True:
            key = await self._queue.take()
            begun = time.monotonic()
            try:
                outcome = await self._reconcile(key)
            except OutdatedPlanError:
                # Not at once: what the plan did not know may still be on its way.
                self._queue.failed(key)
                outcome = "outdated"
            except Exception as error:
                outcome = "error"
                self._report(key, error, self._queue.failed(key))
            else:
                self._queue.done(key)
            RECONCILES.labels(key.kind, outcome).inc()
            RECONCILE_DURATION.labels(key.kind).observe(time.monotonic() - begun)

    def _report(self, key: Key, error: Exception, delay_s: float) -> None:
        fields = _fields(key) | {"action": "try again", "why": str(error), "in_s": round(delay_s, 1)}
        # An answer of the API is expected trouble; anything else is a mistake of ours, whose place we want to know.
        _log.error("reconciling failed", extra=fields, exc_info=None if isinstance(error, ApiError) else error)

    async def _reconcile(self, key: Key) -> str:
        kind = kind_named(key.kind)
        body = self._cache.get(key)
        if body is None:
            self._progress.watch(key, ())
            self._serving.watch(key, ())
            self._adapters.watch(key, ())
            self._gauges.hide(*key)
            if kind is EVALUATION:
                self._results.hide(key.namespace, key.name)
            return "gone"
        plan, now = await self._plan(kind, body)
        self._progress.watch(key, (plan.progress,) if plan.progress is not None else ())
        self._serving.watch(key, plan.readings)
        self._adapters.watch(key, plan.loading)
        try:
            await self._executor.carry_out(plan, kind, body, now)
        except ApiError as error:
            if error.namespace_terminating:
                return "gone"
            raise
        self._after(key, plan)
        return "changed" if plan.status is not None or plan.children or plan.deletions else "unchanged"

    async def foresee(self, kind: Kind, body: JsonObject, *, alone: bool = False) -> list[Condition]:
        """The conditions that a resource would have if it were as proposed; nothing is done about it.

        They come from the very plan that a reconcile makes. alone: as if there were no other resource of ours.
        """
        plan, _ = await self._plan(kind, body, self._cache.proposing(kind, body, alone=alone))
        return (plan.status or parse_status(STATUSES.get(kind.kind, JobStatus), body)).conditions

    async def _plan(self, kind: Kind, body: JsonObject, cache: Cache | None = None) -> tuple[Plan, datetime]:
        """What is to be done, and the time as of which."""
        told = (self._progress.documents, self._serving.documents, self._adapters.loaded)
        seen = Sight(cache or self._cache, self._api, self.config, *told)
        body = with_arenas_resolved(body, self.config)
        if kind is ALIGNMENT_RUN:
            run = AlignmentRun.parse(body)
            observed_run = await observe_run(run, seen)
            now = self._clock()
            return plan_alignment_run(run, observed_run, self.config, now), now
        if kind is MODEL_SERVE:
            serve = ModelServe.parse(body)
            observed_serve = await observe_serve(serve, seen)
            now = self._clock()
            return plan_model_serve(serve, observed_serve, self.config, now), now
        job = TrainingJob.parse(kind, body)
        observed = await observe(job, seen)
        now = self._clock()
        return plan_training_job(job, observed, self.config, now), now

    def _after(self, key: Key, plan: Plan) -> None:
        for decision in plan.decisions:
            _log.info(decision.action, extra=_fields(key) | {"action": decision.action, "why": decision.why})
        if plan.look_again_s is not None:
            self._queue.add_after(key, max(plan.look_again_s, 0.01))
        body = self._cache.get(key)
        if plan.progress is not None and body is not None:
            status = parse_status(STATUSES.get(key.kind, JobStatus), body)
            assert isinstance(status, JobStatus), "only jobs have progress"
            self._gauges.show(*key, status)
        else:
            self._gauges.hide(*key)
        if key.kind == EVALUATION.kind and body is not None:
            self._results.show(key.namespace, key.name, parse_status(EvaluationStatus, body))
        if plan.status is not None and body is not None:
            parent = parent_key(kind_named(key.kind), body)
            for other in (*self._cache.dependents(key), *([parent] if parent is not None else [])):
                self._queue.add(other)

    def _trace(self, kind: Kind, body: JsonObject, status: ResourceStatus, now: datetime) -> None:
        """Tells of what has ended with a change of a job's status that was written; body: the resource as it was."""
        if self._on_span is None or not isinstance(status, JobStatus):
            return
        parent = parent_key(kind, body)
        run = run_of(body, self._cache.get(parent)) if parent is not None else None
        for span in spans_of(Change(body, status, now, self.config.node_pools[0].name, run)):
            self._on_span(span)

    def refresh_gauges(self) -> None:
        """Brings the gauges that count up to date."""
        QUEUE_DEPTH.set(len(self._queue))
        MISSING_KINDS.clear()
        for name in self._cache.missing_kinds:
            MISSING_KINDS.labels(name).set(1)
        RESOURCES.clear()
        for kind in PARENT_KINDS:
            phases = Counter((body.get("status") or {}).get("phase") or "New" for body in self._cache.all(kind))
            for phase, count in phases.items():
                RESOURCES.labels(kind.kind, phase).set(count)
        resourcegauges.refresh((body for kind in PARENT_KINDS for body in self._cache.all(kind)), self._clock())


def kind_named(name: str) -> Kind:
    """The kind of ours of that name."""
    return next(kind for kind in PARENT_KINDS if kind.kind == name)


def end_with(task: asyncio.Task[None]) -> None:
    """Ends the process when a task ends that should run for ever: half an operator would look alive and do nothing."""
    if task.cancelled():
        return
    _log.critical("a task has ended", extra={"action": "stop", "why": task.get_name()}, exc_info=task.exception())
    signal.raise_signal(signal.SIGTERM)


def _fields(key: Key) -> dict[str, str]:
    return {"kind": key.kind, "namespace": key.namespace, "resource": key.name}
