"""Asks pods for documents over HTTP: running jobs for their progress, gateways and replicas for their load."""

import asyncio
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import aiohttp
from prometheus_client import Counter
from pydantic import ValidationError

from alidade_crds.base import MOST_COUNTED
from alidade_crds.contract import GatewayDocument, ProgressDocument
from alidade_crds.metric_names import TgiMetric
from alidade_operator.metrics import PROGRESS_READS, SERVING_READS
from alidade_operator.podhttp import pod_session, pod_url, read_content, tell_of_a_mistake
from alidade_operator.reconcile.plan import PodTarget
from alidade_operator.resources.engines.server import METRICS_PATH, QUEUE_METRICS
from alidade_operator.resources.observation import ReplicaLoad
from alidade_operator.resources.trainingpod import PROGRESS_PORT

K = TypeVar("K", bound=Hashable)
D = TypeVar("D")

_READ_TIMEOUT_S = 2.0
# Pods are not trusted: documents have about 400 bytes, servers' metrics up to some 200 KiB, and no more is read.
_MOST_BYTES = 1024 * 1024
_AT_ONCE = 32


@dataclass(frozen=True)
class Dialect(Generic[D]):
    """What is asked for. parse: the document of an answer to a path, or None. is_news: whether one says something else
    than the one before. forgotten_after: reads in a row that fail before the newest document counts no more."""

    parse: Callable[[str, bytes], D | None]
    is_news: Callable[[D, D], bool]
    reads: Counter
    forgotten_after: int | None = None


class PodReader(Generic[K, D]):
    """Asks every target each interval, so many at a time, and tells of what is new. A target that does not answer is
    asked again in the next round; that is nothing to report, since a job loads its model before it serves."""

    def __init__(self, dialect: Dialect[D], *, interval_s: float, on_change: Callable[[K], None]) -> None:
        self.documents: dict[str, D] = {}
        """The newest document of each pod, by the pod's uid."""
        self._dialect = dialect
        self._interval_s = interval_s
        self._on_change = on_change
        self._targets: dict[K, frozenset[PodTarget]] = {}
        self._failures: dict[str, int] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def watch(self, key: K, targets: Sequence[PodTarget]) -> None:
        """Sets the pods that are asked for a resource; none ends the asking."""
        wanted = frozenset(targets)
        for gone in self._targets.get(key, frozenset()) - wanted:
            self._forget(gone)
        if wanted:
            self._targets[key] = wanted
        else:
            self._targets.pop(key, None)

    def _forget(self, target: PodTarget) -> bool:
        self._failures.pop(target.pod_uid, None)
        return self.documents.pop(target.pod_uid, None) is not None

    async def run(self) -> None:
        """Reads for ever."""
        async with pod_session(at_once=_AT_ONCE, timeout_s=_READ_TIMEOUT_S) as session:
            while True:
                targets = [(key, target) for key, several in self._targets.items() for target in several]
                await asyncio.gather(*(self._read(session, key, target) for key, target in targets))
                await asyncio.sleep(self._interval_s)

    async def _read(self, session: aiohttp.ClientSession, key: K, target: PodTarget) -> None:
        url = pod_url(target.ip, PROGRESS_PORT, target.path)
        try:
            async with self._slots, session.get(url, allow_redirects=False) as response:
                content = await read_content(response, _MOST_BYTES)
                status = response.status
        except (aiohttp.ClientError, TimeoutError):
            self._dialect.reads.labels("unreachable").inc()
            self._failed(key, target)
            return
        document = self._parsed(target, content) if status == 200 else None
        self._dialect.reads.labels("read" if document is not None else "malformed").inc()
        if document is None:
            self._failed(key, target)
        elif target in self._targets.get(key, frozenset()):
            self._take(key, target, document)

    def _parsed(self, target: PodTarget, content: bytes) -> D | None:
        try:
            return self._dialect.parse(target.path, content)
        except Exception:
            tell_of_a_mistake(target.pod_uid)
            return None

    def _take(self, key: K, target: PodTarget, document: D) -> None:
        self._failures.pop(target.pod_uid, None)
        before = self.documents.get(target.pod_uid)
        if before is None or self._dialect.is_news(before, document):
            self.documents[target.pod_uid] = document
            self._on_change(key)

    def _failed(self, key: K, target: PodTarget) -> None:
        limit = self._dialect.forgotten_after
        if limit is None or target not in self._targets.get(key, frozenset()):
            return
        self._failures[target.pod_uid] = self._failures.get(target.pod_uid, 0) + 1
        if self._failures[target.pod_uid] >= limit and self._forget(target):
            self._on_change(key)


# Progress


def _parse_progress(path: str, content: bytes) -> ProgressDocument | None:  # noqa: ARG001
    try:
        return ProgressDocument.model_validate_json(content)
    except ValidationError:
        return None


def _is_progress(before: ProgressDocument, document: ProgressDocument) -> bool:
    return before.model_copy(update={"updated_at": document.updated_at}) != document


PROGRESS: Dialect[ProgressDocument] = Dialect(_parse_progress, _is_progress, PROGRESS_READS)


# What serves


def _parse_serving(path: str, content: bytes) -> GatewayDocument | ReplicaLoad | None:
    if path == METRICS_PATH:
        return parse_load(content)
    try:
        return GatewayDocument.model_validate_json(content)
    except ValidationError:
        return None


_WAITING = frozenset(QUEUE_METRICS.values())
_RUNNING = frozenset({TgiMetric.BATCH_SIZE.value, "vllm:num_requests_running"})
_SAMPLE = re.compile(rb"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{[^}]*\})? +([-+0-9.eE]+)(?: +-?[0-9]+)?$", re.MULTILINE)


def parse_load(content: bytes) -> ReplicaLoad | None:
    """The load in a server's metrics, in Prometheus' text format; None where they say nothing of a queue."""
    waiting: float | None = None
    running = 0.0
    for name, value in _SAMPLE.findall(content):
        try:
            number = min(float(value), MOST_COUNTED)
        except ValueError:
            continue
        if name.decode() in _WAITING:
            waiting = (waiting or 0.0) + number
        elif name.decode() in _RUNNING:
            running += number
    if waiting is None:
        return None
    return ReplicaLoad(*(round(min(max(number, 0), MOST_COUNTED)) for number in (waiting, running)))


SERVING: Dialect[GatewayDocument | ReplicaLoad] = Dialect(
    _parse_serving, lambda before, document: before != document, SERVING_READS, forgotten_after=3
)
