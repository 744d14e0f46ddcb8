"""The spans of a run's trace, from what its status says before and after a change: pure, and the same for everybody.

A trace is one run of a resource; what an AlignmentRun makes is part of its trace. Identifiers are hashes of uids and of
times in the status, so that another replica, or the operator after a restart, continues the same trace. Whoever writes
the change of a status tells of it: a change is written once, and so is its span.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import zip_longest

from alidade_crds.alignmentrun import AlignmentRunStatus, StageStatus
from alidade_crds.reasons import ConditionType, Reason
from alidade_crds.status import Condition, JobStatus
from alidade_operator.api import ALIGNMENT_RUN, JsonObject
from alidade_operator.reconcile.plan import STATUSES, parse_status
from alidade_operator.resources.labels import COMPONENT_LABEL, is_owned_by

Attributes = Mapping[str, str | int | float]

_TRACE_BYTES, _SPAN_BYTES = 16, 8
# An attempt whose Launched gives one of these reasons does not run.
_AT_REST = frozenset({Reason.COMPLETED, Reason.REUSED})
_WAITS = {str(Reason.SUSPENDED_BY_QUEUE): "queue", str(Reason.SUSPENDED_BY_USER): "suspended"}


@dataclass(frozen=True)
class Span:
    """One span. parent: 0 for the root of its trace. error: why it did not end well; empty when it did."""

    trace: int
    id: int
    parent: int
    name: str
    start: datetime
    end: datetime
    attributes: Attributes = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class Change:
    """A change of a job's status that has been written. run: the AlignmentRun that has made the resource, if any."""

    body: JsonObject
    """The resource as it was, with its status before."""
    after: JobStatus
    now: datetime
    default_pool: str
    run: JsonObject | None = None

    @cached_property
    def before(self) -> JobStatus:
        """The status before."""
        return _status(self.body)

    @cached_property
    def begun(self) -> datetime:
        """When the run of this resource began."""
        # A run whose new spec asks for nothing that is not there begins and ends with one change.
        return self.now if _ended(self.before) is not None else _begun(self.body)

    @cached_property
    def trace(self) -> int:
        """The trace that the change belongs to."""
        root, begun = (self.body, self.begun) if self.run is None else (self.run, _begun(self.run))
        return _hash(_TRACE_BYTES, root["metadata"]["uid"], begun.isoformat())

    @cached_property
    def root(self) -> int:
        """The span of the resource as a whole."""
        return _hash(_SPAN_BYTES, self.trace, self.body["metadata"]["uid"])

    @cached_property
    def parent(self) -> int:
        """The span that that one is part of."""
        return _hash(_SPAN_BYTES, self.trace, self.run["metadata"]["uid"]) if self.run is not None else 0


def run_of(body: JsonObject, found: JsonObject | None) -> JsonObject | None:
    """What was found as a resource's parent, where it is the AlignmentRun that has made it."""
    is_run = found is not None and found["kind"] == ALIGNMENT_RUN.kind
    return found if is_run and found is not None and is_owned_by(body["metadata"], found["metadata"]["uid"]) else None


def spans_of(change: Change) -> list[Span]:
    """What has ended with a change: a wait, an attempt, the whole."""
    return [*_waits(change), *_attempts(change), *_whole(change)]


def _waits(change: Change) -> Iterator[Span]:
    """The time that a queue, or the user, has held a job back."""
    before, after = (
        _condition(change.before, ConditionType.SUSPENDED),
        _condition(change.after, ConditionType.SUSPENDED),
    )
    if before is None or before.status != "True" or before.reason not in _WAITS:
        return
    if after is not None and (after.status, after.reason) == (before.status, before.reason):
        return
    start, end = before.last_transition_time, _flipped(after, "False", change.now)
    launched = _live(change.before)
    parent = _attempt(change, change.before, launched) if launched is not None else change.root
    queue = _compute(change.body).get("queue")
    attributes = _place(change.body) | ({"alidade.queue": queue} if queue else {})
    yield _span(change, parent, _WAITS[before.reason], start, end, attributes)


def _attempts(change: Change) -> Iterator[Span]:
    """The attempt that has ended, and the time until its first pod ran where the status has it."""
    before, after, launched = change.before, change.after, _live(change.before)
    if launched is None or (_live(after) is not None and after.job_ref == before.job_ref):
        return
    failed = after.last_failure if after.last_failure != before.last_failure else None
    now_launched = _condition(after, ConditionType.LAUNCHED)
    start = launched.last_transition_time
    end = failed.at if failed is not None else _flipped(now_launched, "False", after.finished_at or change.now)
    outcome, reason, error = _outcome(after, now_launched)
    attributes = _place(change.body) | _hardware(change) | {
        "alidade.attempt": before.attempts,
        "alidade.job": before.job_ref.name if before.job_ref is not None else "",
        "alidade.outcome": outcome,
        "alidade.reason": reason,
    }  # fmt: skip
    own = _attempt(change, before, launched)
    yield Span(change.trace, own, change.root, "attempt", start, max(start, end), attributes, error)
    admitted = _condition(before, ConditionType.SUSPENDED)
    waited = max(start, admitted.last_transition_time) if admitted is not None else start
    running = _first_pod_ran(after)
    if running is not None and waited <= running <= end:
        yield _span(change, own, "pods starting", waited, running, _place(change.body))


def _outcome(after: JobStatus, launched: Condition | None) -> tuple[str, str, str]:
    """Outcome, reason and error of an attempt that is over."""
    reason = launched.reason if launched is not None else ""
    if reason in _AT_REST:
        return "succeeded", reason, ""
    failure = after.last_failure
    if failure is not None and failure.attempt == after.attempts:
        return "interrupted" if failure.interrupted else "failed", failure.reason, failure.message
    message = launched.message if launched is not None else ""
    if _holds(after, ConditionType.FAILED):
        return "failed", reason, message
    return "stopped", reason, ""


def _whole(change: Change) -> Iterator[Span]:
    """The resource as a whole, and of a run the stages that are no resources with a trace of their own."""
    before, after = change.before, change.after
    is_same = before.observed_generation == after.observed_generation
    if _ended(after) is None or (is_same and _ended(before) is not None):
        return
    start, end = change.begun, after.finished_at or change.now
    kind = ConditionType.SUCCEEDED if _holds(after, ConditionType.SUCCEEDED) else ConditionType.FAILED
    told = _condition(after, kind)
    assert told is not None, "it holds"
    used = {"alidade.gpu_hours": after.gpu_hours, "alidade.cost": after.cost}
    attributes = _place(change.body) | _hardware(change) | {
        "alidade.attempts": after.attempts,
        "alidade.outcome": kind.lower(),
        "alidade.reason": told.reason,
    } | {name: value for name, value in used.items() if value is not None}  # fmt: skip
    if change.run is not None:
        attributes["alidade.stage"] = (change.body["metadata"].get("labels") or {}).get(COMPONENT_LABEL, "")
    error = told.message if kind is ConditionType.FAILED else ""
    name = change.body["kind"]
    yield Span(change.trace, change.root, change.parent, name, start, max(start, end), attributes, error)
    if isinstance(after, AlignmentRunStatus):
        yield from _stages(change, after, end)


def _stages(change: Change, after: AlignmentRunStatus, end: datetime) -> Iterator[Span]:
    """The steps of the alignment, one after the other, the gate and the rollout of what is served."""
    steps = [(one, one.started_at) for one in after.stages if one.kind == "Alignment" and one.started_at is not None]
    aligned = _flipped(_condition(after, ConditionType.ALIGNED), "True", end)
    for (step, begun), following in zip_longest(steps, [begun for _, begun in steps[1:]]):
        yield _stage(change, step, begun, following or step.finished_at or aligned)
    evaluated, judged, served = (
        _condition(after, kind) for kind in (ConditionType.EVALUATED, ConditionType.GATE_PASSED, ConditionType.SERVED)
    )
    for stage in after.stages:
        if stage.kind == "Gate" and evaluated is not None and judged is not None:
            yield _stage(change, stage, evaluated.last_transition_time, _flipped(judged, "True", end))
        elif stage.kind == "ModelServe" and judged is not None and served is not None:
            yield _stage(change, stage, judged.last_transition_time, _flipped(served, "True", end))


def _stage(change: Change, stage: StageStatus, start: datetime, end: datetime) -> Span:
    attributes = _place(change.body) | {"alidade.stage": stage.name, "alidade.outcome": stage.phase.lower()}
    error = f"Stage {stage.name} has failed." if stage.phase == "Failed" else ""
    return _span(change, change.root, stage.name, start, end, attributes, error)


def _span(
    change: Change,
    parent: int,
    name: str,
    start: datetime,
    end: datetime,
    attributes: Attributes,
    error: str = "",
) -> Span:
    """A span that nothing else is part of."""
    own = _hash(_SPAN_BYTES, change.trace, parent, name, start.isoformat())
    return Span(change.trace, own, parent, name, start, max(start, end), attributes, error)


def _attempt(change: Change, status: JobStatus, launched: Condition) -> int:
    """The span of the attempt that a status tells of. The same attempt may be launched again after a suspension."""
    name = status.job_ref.name if status.job_ref is not None else ""
    return _hash(_SPAN_BYTES, change.trace, name, launched.last_transition_time.isoformat())


def _status(body: JsonObject) -> JobStatus:
    status = parse_status(STATUSES.get(body["kind"], JobStatus), body)
    assert isinstance(status, JobStatus), "only jobs have traces"
    return status


def _begun(body: JsonObject) -> datetime:
    """When the present run began: since then it has neither succeeded nor failed. Before the first look, its creation.

    A change of the spec under way does not begin another run.
    """
    ends = [_condition(_status(body), kind) for kind in (ConditionType.SUCCEEDED, ConditionType.FAILED)]
    since = [item.last_transition_time for item in ends if item is not None and item.status == "False"]
    return max(since, default=None) or datetime.fromisoformat(body["metadata"]["creationTimestamp"])


def _ended(status: JobStatus) -> Condition | None:
    ends = (_condition(status, kind) for kind in (ConditionType.SUCCEEDED, ConditionType.FAILED))
    return next((item for item in ends if item is not None and item.status == "True"), None)


def _live(status: JobStatus) -> Condition | None:
    """The condition Launched of a status that tells of an attempt under way; None without one."""
    launched = _condition(status, ConditionType.LAUNCHED)
    if launched is None or launched.status != "True" or launched.reason in _AT_REST or status.job_ref is None:
        return None
    return launched


def _first_pod_ran(status: JobStatus) -> datetime | None:
    if isinstance(status, AlignmentRunStatus):
        return next((stage.started_at for stage in status.stages if stage.kind == "Alignment"), None)
    return status.started_at


def _condition(status: JobStatus, kind: ConditionType) -> Condition | None:
    return next((item for item in status.conditions if item.type == kind), None)


def _holds(status: JobStatus, kind: ConditionType) -> bool:
    found = _condition(status, kind)
    return found is not None and found.status == "True"


def _flipped(condition: Condition | None, status: str, otherwise: datetime) -> datetime:
    """When a condition came to have a status; otherwise, where it has another one."""
    return condition.last_transition_time if condition is not None and condition.status == status else otherwise


def _place(body: JsonObject) -> dict[str, str | int | float]:
    metadata = body["metadata"]
    return {
        "k8s.namespace.name": metadata["namespace"],
        "alidade.kind": body["kind"],
        "alidade.name": metadata["name"],
        "alidade.uid": metadata["uid"],
    }


def _hardware(change: Change) -> dict[str, str | int | float]:
    compute = _compute(change.body)
    return {
        "alidade.node_pool": compute.get("nodePool", change.default_pool),
        "alidade.gpus": int(compute.get("workers", 1)) * int(compute.get("gpusPerWorker", 0)),
    }


def _compute(body: JsonObject) -> JsonObject:
    found: JsonObject = (body.get("spec") or {}).get("compute") or {}
    return found


def _hash(size: int, *parts: object) -> int:
    """A number of so many bytes, and never 0, which means none."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:size]) or 1
