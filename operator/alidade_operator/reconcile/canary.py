"""How a new model takes over from the one before: which of the two is asked how much, and when that changes.

Nothing of it is remembered but when a canary began and which one was taken back: the rest is read from what there is.

    stable serves A, the spec says B ── canaryPercent is 0 or 100 ──────────────────────► stable is rolled to B
      └► START: a canary of B is started, and gets nothing
           └► ASKED: it gets its share ── worse than A ─► RETURNED: A serves all, until the spec changes
                └► not worse after analysis.seconds and minRequests, previous is delete; or canaryPercent is 0 or 100
                     └► TAKING_OVER: stable is rolled to B while the canary keeps its share; then the canary goes

With another model C in the middle the canary is rolled to C and gets nothing until that is done; with A again it goes.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

from alidade_crds.contract import BackendCounts, GatewayDocument
from alidade_crds.modelserve import CanaryAnalysis, CanaryReport, ReturnedCanary, Rollout
from alidade_operator.reconcile.run import inputs_hash
from alidade_operator.reconcile.serve import ChildView
from alidade_operator.resources.engines.server import ServedModel

# The counts are looked at again and again, so that chance has many tries. Of 600 played canaries of 300 requests each,
# beside 1200 to a model with the same share of errors, looked at after every fifth request, this takes back 1 percent
# at a share of 0.01 or 0.02, and 2 percent at 0.05; at a significance of 0.05 it would be 11 to 17 percent.
SIGNIFICANCE = 0.005
# The 95th percentile of fewer is hardly more than the slowest of them.
_FEWEST_FOR_P95 = 20


class Stage(StrEnum):
    """Where a rollout is."""

    HELD = "held"  # the spec's model is not there yet
    ROLLED = "rolled"  # stable is brought to the spec's model, without or after a canary
    START = "start"
    ASKED = "asked"
    TAKING_OVER = "taking over"
    RETURNED = "returned"


@dataclass(frozen=True)
class Sides:
    """What both sides have been given since the gateway knows of the canary."""

    stable: BackendCounts
    canary: BackendCounts


@dataclass(frozen=True)
class Trial:
    """All that the next step depends on."""

    target: ServedModel | None
    """What the spec asks for; None while that is not there."""
    spec: str
    """Hash of what of the spec has to change before a canary that was taken back is tried again."""
    rollout: Rollout
    stable: ChildView | None
    is_stable_told: bool
    """Whether stable's Deployment reads as the spec asks."""
    canary: ChildView | None
    is_canary_told: bool
    known: CanaryReport | None
    """What the status said of the canary."""
    returned: ReturnedCanary | None
    """The canary that was taken back, as the status has it."""
    sides: Sides | None
    """None while no gateway has told of this canary."""
    now: datetime


@dataclass(frozen=True)
class Step:
    """What is to be. moves_stable: whether stable is brought to the target, or stays as it is. runs: whether there is
    to be a canary of the target. share: percent of the requests that the gateway sends to it."""

    stage: Stage
    moves_stable: bool = False
    runs: bool = False
    share: int = 0
    report: CanaryReport | None = None
    returned: ReturnedCanary | None = None
    look_again_s: float | None = None


def trial_key(model: ServedModel) -> str:
    """What tells one canary from another: its model."""
    return inputs_hash(model.uri, model.digest)


def next_step(trial: Trial) -> Step:
    """The step that a rollout is at."""
    target, percent = trial.target, trial.rollout.canary_percent
    if target is None:
        return Step(Stage.HELD)
    if trial.stable is None or is_at(trial.stable, target) or not 0 < percent < 100:
        return _taking_over(trial, target)
    if trial.returned is not None and trial.returned.inputs == trial.spec:
        return Step(Stage.RETURNED, returned=trial.returned)
    is_asked = _is_asked(trial, target)
    if not trial.stable.ready and not is_asked:
        # Nobody is served by the model before: there is nothing to compare with, and nothing to lose.
        return _taking_over(trial, target)
    has_started = trial.canary is not None and trial.is_canary_told and trial.canary.is_rolled_out
    if not is_asked and not has_started:
        return Step(Stage.START, runs=True)
    return _asked(trial, target, is_up=has_started)


def is_at(side: ChildView, model: ServedModel) -> bool:
    """Whether a Deployment was told to serve a model."""
    return (side.model, side.digest) == (model.uri, model.digest)


def _is_asked(trial: Trial, target: ServedModel) -> bool:
    """Whether the canary of the target has come up, and gets its share since. What it does from then on is judged by
    its answers: a canary that falls over is not to have begun anew."""
    there = trial.canary is not None and is_at(trial.canary, target)
    return there and trial.known is not None and trial.known.inputs == trial_key(target)


def _taking_over(trial: Trial, target: ServedModel) -> Step:
    """Stable is rolled to the target; a canary of it keeps its share till then."""
    stable = trial.stable
    is_done = stable is not None and is_at(stable, target) and trial.is_stable_told and stable.is_rolled_out
    if is_done or not _is_asked(trial, target):
        return Step(Stage.ROLLED, moves_stable=True)
    assert trial.known is not None, "what is asked is known"
    return Step(Stage.TAKING_OVER, moves_stable=True, runs=True, share=trial.known.percent, report=trial.known)


def _asked(trial: Trial, target: ServedModel, *, is_up: bool) -> Step:
    report, rollout, now = _report(trial, target), trial.rollout, trial.now
    asked = Step(Stage.ASKED, runs=True, share=rollout.canary_percent, report=report)
    if trial.sides is None:
        return asked
    verdict, why = judge(trial.sides, rollout.analysis)
    if verdict == "worse":
        message = f"The canary of {target.uri} was taken back: {why}."
        return Step(Stage.RETURNED, returned=ReturnedCanary(inputs=trial.spec, message=message, report=report))
    if rollout.previous == "keep":
        return asked
    left = report.since + timedelta(seconds=rollout.analysis.seconds) - now
    if left > timedelta():
        return Step(Stage.ASKED, runs=True, share=asked.share, report=report, look_again_s=left.total_seconds())
    if verdict == "well" and is_up:
        return Step(Stage.TAKING_OVER, moves_stable=True, runs=True, share=asked.share, report=report)
    return asked


def _report(trial: Trial, target: ServedModel) -> CanaryReport:
    inputs, known = trial_key(target), trial.known
    since = known.since if known is not None and known.inputs == inputs else trial.now.replace(microsecond=0)
    sides = trial.sides or Sides(BackendCounts(), BackendCounts())
    return CanaryReport(
        model=target.uri,
        inputs=inputs,
        percent=trial.rollout.canary_percent,
        since=since,
        requests=sides.canary.requests,
        errors=sides.canary.errors,
        stable_requests=sides.stable.requests,
        stable_errors=sides.stable.errors,
        seconds_p95=sides.canary.seconds_p95,
        stable_seconds_p95=sides.stable.seconds_p95,
    )


# The judge


def counted(documents: Iterable[GatewayDocument]) -> Sides | None:
    """Both sides over all gateways; None when none has told of a canary.

    Of percentiles the mean weighted by requests is taken: gateways share the requests at random, so that theirs differ
    by chance only.
    """
    told = [(one.backends.stable, one.backends.canary) for one in documents if one.backends.canary is not None]
    if not told:
        return None
    return Sides(_sum(stable for stable, _ in told), _sum(canary for _, canary in told if canary is not None))


def _sum(counts: Iterable[BackendCounts]) -> BackendCounts:
    parts = list(counts)
    timed = [(one.requests, one.seconds_p95) for one in parts if one.requests and one.seconds_p95 is not None]
    weight = sum(requests for requests, _ in timed)
    return BackendCounts(
        requests=sum(one.requests for one in parts),
        errors=sum(one.errors for one in parts),
        seconds_p95=sum(requests * seconds for requests, seconds in timed) / weight if weight else None,
    )


def judge(sides: Sides, analysis: CanaryAnalysis) -> tuple[Literal["worse", "well", "open"], str]:
    """Whether a canary is worse than the model before, and by what numbers.

    worse: its share of errors is higher by more than maxErrorIncrease and that is no chance, or after minRequests its
    answers take longer than maxLatencyRatio allows. well: neither, after minRequests. Before, or while errors are too
    many and may be chance, it is open.
    """
    canary, stable = sides.canary, sides.stable
    increase = _share(canary) - _share(stable)
    if increase > analysis.max_error_increase:
        if chance_of_as_many_errors(canary, stable) < SIGNIFICANCE:
            return "worse", (
                f"{canary.errors} of {canary.requests} requests ended in errors, {stable.errors} of {stable.requests} "
                f"of the model before; rollout.analysis.maxErrorIncrease is {analysis.max_error_increase:g}"
            )
        return "open", ""
    if canary.requests < analysis.min_requests:
        return "open", ""
    ratio = _latency_ratio(canary, stable)
    if ratio is not None and ratio > analysis.max_latency_ratio:
        return "worse", (
            f"95 percent of its answers took up to {canary.seconds_p95:.3g} s, {stable.seconds_p95:.3g} s of the model "
            f"before; rollout.analysis.maxLatencyRatio is {analysis.max_latency_ratio:g}"
        )
    return "well", ""


def _share(counts: BackendCounts) -> float:
    return counts.errors / counts.requests if counts.requests else 0.0


def _latency_ratio(canary: BackendCounts, stable: BackendCounts) -> float | None:
    """How many times longer the canary's 95th percentile is; None where there are too few requests to tell."""
    if min(canary.requests, stable.requests) < _FEWEST_FOR_P95:
        return None
    if canary.seconds_p95 is None or not stable.seconds_p95:
        return None
    return canary.seconds_p95 / stable.seconds_p95


def chance_of_as_many_errors(canary: BackendCounts, stable: BackendCounts) -> float:
    """Fisher's exact test, one-sided: the chance that of all errors at least as many fall to the canary, if errors do
    not care whom they fall to.

    Of the ways to choose errors among requests it is the share with k >= canary.errors of them among the canary's:
    sum over k of C(canary, k) C(stable, errors - k) / C(canary + stable, errors).
    """
    errors = canary.errors + stable.errors
    whole = _log_ways(canary.requests + stable.requests, errors)
    return math.fsum(
        math.exp(_log_ways(canary.requests, k) + _log_ways(stable.requests, errors - k) - whole)
        for k in range(canary.errors, min(errors, canary.requests) + 1)
        if errors - k <= stable.requests
    )


def _log_ways(total: int, chosen: int) -> float:
    """The logarithm of math.comb(total, chosen), which itself has thousands of digits for a busy day's requests."""
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)
