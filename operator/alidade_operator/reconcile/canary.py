"""How a new model takes over from the one before: which of the two is asked how much, and when that changes.

Nothing of it is remembered but when a canary began and which one was taken back: the rest is read from what there is.

    stable serves A, the spec says B ── canaryPercent is 0 or 100 ──────────────────────► stable is rolled to B
      └► START: a canary of B is started, and gets nothing
           └► ASKED: it gets its share ── worse than A ─► RETURNED: A serves all, until the spec changes
                └► not worse after analysis.seconds and minRequests, previous is delete; or canaryPercent is 0 or 100
                     └► TAKING_OVER: stable is rolled to B while the canary keeps its share; then the canary goes

With another model C in the middle the canary is rolled to C and gets nothing until that is done; with A again it goes.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from alidade_crds.contract import BackendCounts
from alidade_crds.modelserve import CanaryReport, ReturnedCanary, Rollout
from alidade_operator.reconcile.canaryjudge import Sides, judge
from alidade_operator.reconcile.run import inputs_hash
from alidade_operator.reconcile.serve import ChildView
from alidade_operator.resources.engines.server import ServedModel


class Stage(StrEnum):
    """Where a rollout is."""

    HELD = "held"  # the spec's model is not there yet
    ROLLED = "rolled"  # stable is brought to the spec's model, without or after a canary
    START = "start"
    ASKED = "asked"
    TAKING_OVER = "taking over"
    RETURNED = "returned"


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
