"""How many replicas the load needs, where the operator scales them itself."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from alidade_crds.modelserve import Autoscaling, ScalingReport
from alidade_operator.resources.observation import ReplicaLoad


@dataclass(frozen=True)
class Load:
    """What is known of the load. present: replicas asked for now. replicas: what each one that answers tells, None of
    those that tell nothing. held: requests that the gateways hold; None without a gateway, or while one tells nothing.
    """

    present: int
    replicas: tuple[ReplicaLoad | None, ...]
    held: int | None
    passed_on: int = 0
    """Requests that the gateways have passed on and that are not answered yet."""
    last_request_at: datetime | None = None
    """When a gateway got its newest request; short ones are over before anybody asks for the load."""

    @property
    def is_known(self) -> bool:
        """Whether everybody tells of it, so that replicas can be taken away."""
        return None not in self.replicas


@dataclass(frozen=True)
class Scale:
    """How many replicas there are to be, and what to remember. look_again_s: when time alone changes that."""

    replicas: int
    report: ScalingReport
    look_again_s: float | None = None


def needed(load: Load, asked: Autoscaling) -> int:
    """Replicas without which requests would wait longer than the target says; none is taken from who is busy."""
    told = [one for one in load.replicas if one is not None]
    waiting = sum(one.waiting for one in told) + (load.held or 0)
    busy = sum(1 for one in told if one.waiting or one.running)
    at_work = max(busy, 1 if load.passed_on else 0)
    return max(math.ceil(waiting / asked.target.queue_depth_per_replica), at_work)


def scale(asked: Autoscaling, load: Load, known: ScalingReport | None, now: datetime) -> Scale:
    """The number of replicas: more at once, fewer once as many were not needed for scaleDownAfterSeconds.

    While somebody does not tell of the load there may be more than is seen: none is taken away then. The last one goes
    only where a gateway holds the next request.
    """
    present = min(max(load.present, asked.min), asked.max)
    need = min(max(needed(load, asked), asked.min), asked.max)
    since = now.replace(microsecond=0)
    if need >= present or not load.is_known or (asked.min == 0 and load.held is None):
        return Scale(max(need, present), _without_surplus(max(need, present), known, since))
    if known is None or known.replicas != present or known.needed >= present:
        known = ScalingReport(replicas=present, needed=need, since=since)
    report = known.model_copy(update={"needed": max(known.needed, need)})
    window = timedelta(seconds=asked.scale_down_after_seconds)
    left = report.since + window - now
    if report.needed == 0 and load.last_request_at is not None:
        left = max(left, load.last_request_at + window - now)
    if left > timedelta():
        return Scale(present, report, left.total_seconds())
    return Scale(report.needed, _without_surplus(report.needed, None, since))


def _without_surplus(replicas: int, known: ScalingReport | None, since: datetime) -> ScalingReport:
    """What is remembered while every replica is needed: nothing that moves."""
    if known is not None and (known.replicas, known.needed) == (replicas, replicas):
        return known
    return ScalingReport(replicas=replicas, needed=replicas, since=since)
