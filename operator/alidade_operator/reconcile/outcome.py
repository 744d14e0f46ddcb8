"""How an attempt ended: from what the training operator and the pods say to one result or one failure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from alidade_crds.contract import ExitCode, Failure, ResultDocument
from alidade_crds.reasons import FailureReason
from alidade_operator.resources.observation import PodView, TrainingJobView

# The job's end can be seen before its pods' end is; after this long no news will come.
GRACE = timedelta(seconds=20)

_SIGKILL = 137


@dataclass(frozen=True)
class AttemptFailure:
    """Why an attempt ended without a model."""

    reason: str
    message: str
    retryable: bool
    exit_code: int | None
    at: datetime


@dataclass(frozen=True)
class Undecided:
    """The attempt has ended, but its pods' end has not been seen yet."""


def outcome(
    job: TrainingJobView,
    pods: Sequence[PodView],
    *,
    now: datetime,
    has_result: Callable[[ResultDocument], bool],
    saves_memory: str,
) -> ResultDocument | AttemptFailure | Undecided:
    """The result of an ended attempt, its failure, or that it is too early to say.

    has_result: whether a result document has what the job is for. saves_memory: what takes less memory, for advice.
    """
    ended_at = job.ended_at or now
    waiting = now - ended_at < GRACE
    if job.state == "succeeded":
        return _success(pods, ended_at, waiting=waiting, has_result=has_result)
    failures = [failure for pod in pods if (failure := pod_failure(pod, ended_at, saves_memory)) is not None]
    if failures:
        return min(failures, key=_weight)
    if waiting:
        return Undecided()
    reason = FailureReason.WORKER_LOST if not pods else FailureReason.KILLED
    message = f"The training job failed and left no word why: {job.message or 'no message'}"
    return AttemptFailure(str(reason), message, retryable=True, exit_code=None, at=ended_at)


def _success(
    pods: Sequence[PodView], ended_at: datetime, *, waiting: bool, has_result: Callable[[ResultDocument], bool]
) -> ResultDocument | AttemptFailure | Undecided:
    master = next((pod for pod in pods if pod.is_master), None)
    result = master.termination.result() if master is not None and master.termination is not None else None
    if result is not None and result.outcome == "succeeded" and has_result(result):
        return result
    if waiting and (master is None or master.termination is None):
        return Undecided()
    # Another attempt finds the complete result at its place and reports it again.
    message = "The job ended well, but its result could not be read: the first pod is gone or left no result document."
    return AttemptFailure(str(FailureReason.RESULT_LOST), message, retryable=True, exit_code=None, at=ended_at)


def _weight(failure: AttemptFailure) -> tuple[bool, datetime]:
    """A failure that the user must mend explains the others; else the first is the cause and the rest its echo."""
    return failure.retryable, failure.at


def pod_failure(pod: PodView, ended_at: datetime, saves_memory: str) -> AttemptFailure | None:
    """Why one pod failed, or None when it did not, or has not said so yet."""
    termination = pod.termination
    if termination is None:
        if pod.phase != "Failed":
            return None
        evicted = pod.reason in ("Evicted", "Preempted", "Preempting", "NodeShutdown", "Terminated")
        reason = FailureReason.EVICTED if evicted else FailureReason.WORKER_LOST
        message = f"Pod {pod.name} was lost: {pod.message or pod.reason or 'no reason given'}"
        return AttemptFailure(str(reason), message, retryable=True, exit_code=None, at=ended_at)
    if termination.exit_code == ExitCode.SUCCEEDED:
        return None
    told = termination.result()
    at = termination.finished_at or ended_at
    code = termination.exit_code
    if termination.reason == "OOMKilled":
        message = (
            f"Pod {pod.name} used more memory than its limit and was killed. "
            f"Raise spec.compute.memory, or {saves_memory}."
        )
        return AttemptFailure(str(FailureReason.OUT_OF_MEMORY), message, retryable=True, exit_code=code, at=at)
    if told is not None and told.failure is not None:
        return _told(told.failure, code, at)
    return _untold(pod, code, at)


def _told(failure: Failure, code: int, at: datetime) -> AttemptFailure:
    return AttemptFailure(failure.reason, failure.message, retryable=failure.retryable, exit_code=code, at=at)


def _untold(pod: PodView, code: int, at: datetime) -> AttemptFailure:
    """A failure without a document: the process was killed, stopped, or died before it could write one."""
    if pod.reason == "Evicted":
        reason, message = FailureReason.EVICTED, f"Pod {pod.name} was evicted: {pod.message}"
    elif code == _SIGKILL:
        reason, message = FailureReason.KILLED, f"Pod {pod.name} was killed (SIGKILL)."
    elif code == ExitCode.TERMINATED:
        reason, message = FailureReason.KILLED, f"Pod {pod.name} was stopped from outside (SIGTERM)."
    else:
        reason = FailureReason.CRASHED
        message = f"Pod {pod.name} ended with exit code {code} and no message; see `kubectl logs {pod.name}`."
    return AttemptFailure(str(reason), message, retryable=True, exit_code=code, at=at)
