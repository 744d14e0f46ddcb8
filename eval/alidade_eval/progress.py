"""How far an evaluation is, for the operator and for Prometheus."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from alidade_crds.contract import ProgressDocument
from alidade_crds.metric_names import EvaluationMetric

State = Literal["starting", "loading", "evaluating", "saving", "finished"]


@dataclass
class Progress:
    """What is done of what there is. Written by the evaluation, read by HTTP threads.

    total: samples of all collections and models. done: those that are on the disk, whoever has made them.
    """

    state: State = "starting"
    total: int = 0
    activity: str | None = None
    _done: int = 0
    _failures: Counter[str] = field(default_factory=Counter)
    _first: tuple[float, int] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self, state: State, activity: str | None = None) -> None:
        """Says what the job is busy with from now on."""
        with self._lock:
            self.state, self.activity = state, activity

    def begin(self, total: int, done: int) -> None:
        """Says how much there is to do, and what an earlier attempt has done."""
        with self._lock:
            self.total, self._done, self._first = total, done, (time.monotonic(), done)

    def count(self, *, failure_of: str | None = None) -> None:
        """Takes up one more sample. failure_of: model that has failed at it."""
        with self._lock:
            self._done += 1
            if failure_of is not None:
                self._failures[failure_of] += 1

    def note(self, done: int) -> None:
        """Takes up what all processes together have done."""
        with self._lock:
            self._done = max(self._done, done)

    def to_document(self) -> ProgressDocument:
        """The answer of GET /progress."""
        with self._lock:
            return ProgressDocument(
                state=self.state,
                step=min(self._done, self.total) if self.total else self._done,
                total_steps=self.total,
                eta_s=self._seconds_left(),
                activity=self.activity[:32] if self.activity else None,
                updated_at=datetime.now(UTC),
            )

    def _seconds_left(self) -> float | None:
        if self._first is None or self._done <= self._first[1]:
            return None
        begun, before = self._first
        return max(0, self.total - self._done) * (time.monotonic() - begun) / (self._done - before)

    def counts(self) -> tuple[int, int, dict[str, int]]:
        """Samples done, samples in all, failures by model."""
        with self._lock:
            return self._done, self.total, dict(self._failures)


class ProgressCollector(Collector):
    """Prometheus metrics read from Progress when they are asked for."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def collect(self) -> Iterator[Metric]:
        """Samples and failures."""
        done, total, failures = self._progress.counts()
        yield GaugeMetricFamily(EvaluationMetric.SAMPLES, EvaluationMetric.SAMPLES.meaning, value=done)
        yield GaugeMetricFamily(EvaluationMetric.TOTAL_SAMPLES, EvaluationMetric.TOTAL_SAMPLES.meaning, value=total)
        name = EvaluationMetric.FAILURES.removesuffix("_total")
        counter = CounterMetricFamily(name, EvaluationMetric.FAILURES.meaning, labels=["model"])
        for model, count in failures.items():
            counter.add_metric([model], count)
        yield counter
