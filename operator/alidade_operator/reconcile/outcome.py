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
    interrupted: bool = False
    """Whether its node, or the room on it, was taken away: no fault of the job's, and not counted as one."""
    cause: bool = False
    """Whether Kubernetes itself says so of the pod; what else ends about then is an echo."""


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
    if not pods and job.had_pods:
        # Failed pods stay for their logs. Where they are gone somebody else deleted them: an eviction, a node's end.
        message = f"Its pods were taken away from outside: {job.message or 'no message'}"
        return _interruption(message, exit_code=None, at=ended_at)
    reason = FailureReason.KILLED if pods else FailureReason.WORKER_LOST
    message = f"The training job failed and left no word why: {job.message or 'no message'}"
    return AttemptFailure(str(reason), message, retryable=True, exit_code=None, at=ended_at)


def _interruption(message: str, *, exit_code: int | None, at: datetime, cause: bool = False) -> AttemptFailure:
    return AttemptFailure(
        str(FailureReason.INTERRUPTED),
        message,
        retryable=True,
        exit_code=exit_code,
        at=at,
        interrupted=True,
        cause=cause,
    )


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


def _weight(failure: AttemptFailure) -> tuple[bool, bool, datetime]:
    """A failure that the user must mend explains the others, then a pod of which Kubernetes says why it had to go; else
    the first is the cause and the rest its echo."""
    return failure.retryable, not failure.cause, failure.at


def pod_failure(pod: PodView, ended_at: datetime, saves_memory: str) -> AttemptFailure | None:
    """Why one pod failed, or None when it did not, or has not said so yet."""
    termination = pod.termination
    if termination is None:
        if pod.phase != "Failed":
            return None
        if pod.disruption:
            message = f"Pod {pod.name} was taken away ({pod.disruption})."
            return _interruption(message, exit_code=None, at=ended_at, cause=True)
        reason = FailureReason.EVICTED if pod.reason == "Evicted" else FailureReason.WORKER_LOST
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
    if pod.disruption and not _must_be_mended(told):
        message = f"Pod {pod.name} was taken away ({pod.disruption}); {_saved(told, code)}."
        return _interruption(message, exit_code=code, at=at, cause=True)
    if told is not None and told.failure is not None:
        return _told(told.failure, code, at)
    if code == ExitCode.TERMINATED and pod.reason != "Evicted":
        message = f"Pod {pod.name} was stopped from outside (SIGTERM); {_saved(told, code)}."
        return _interruption(message, exit_code=code, at=at)
    return _untold(pod, code, at)


def _must_be_mended(told: ResultDocument | None) -> bool:
    return told is not None and told.failure is not None and not told.failure.retryable


def _saved(told: ResultDocument | None, code: int) -> str:
    """What the next attempt begins with."""
    if told is not None and told.outcome == "terminated" and told.step == 0:
        return "it had not begun to train, and the newest checkpoint counts"
    if told is not None and told.outcome == "terminated":
        return f"its work was saved at step {told.step}" if told.step is not None else "its work was saved"
    if code == _SIGKILL:
        return "its grace period was too short to save its work, and the newest checkpoint counts"
    return "the newest checkpoint counts"


def _told(failure: Failure, code: int, at: datetime) -> AttemptFailure:
    return AttemptFailure(failure.reason, failure.message, retryable=failure.retryable, exit_code=code, at=at)


def _untold(pod: PodView, code: int, at: datetime) -> AttemptFailure:
    """A failure without a document: the process was killed, stopped, or died before it could write one."""
    if pod.reason == "Evicted":
        reason, message = FailureReason.EVICTED, f"Pod {pod.name} was evicted: {pod.message}"
    elif code == _SIGKILL:
        reason, message = FailureReason.KILLED, f"Pod {pod.name} was killed (SIGKILL)."
    else:
        reason = FailureReason.CRASHED
        message = f"Pod {pod.name} ended with exit code {code} and no message; see `kubectl logs {pod.name}`."
    return AttemptFailure(str(reason), message, retryable=True, exit_code=code, at=at)
