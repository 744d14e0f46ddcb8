"""From an exception to a failure that a user can act on."""

import errno
import re

from alidade_crds.contract import Failure, Stage
from alidade_crds.reasons import FailureReason
from alidade_trainer.failures import JobFailure
from alidade_trainer.outcomes import memory_advice

_OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|Cannot allocate memory", re.IGNORECASE
)
# What gloo, NCCL and TCPStore say when the process at the other end is gone.
_PEER_LOST = re.compile(
    r"Connection (closed|reset) by peer|Broken pipe|Socket Timeout|Timed out waiting|"
    r"NCCL.*(remote|unhandled system) error|failed to recv|"
    r"Connection refused|Application timeout caused pair closure|gloo/transport",
    re.IGNORECASE,
)
# torch writes its archives in C++ and drops the errno; safetensors has it in its text only.
_WRITE_FAILED = re.compile(
    r"No space left on device|os error 28|Disk quota exceeded|PytorchStreamWriter failed writing|iostream error|"
    r"inline_container\.cc:\d+\] \. unexpected pos"
)


def failure_of(error: BaseException, stage: Stage | None = None) -> Failure:
    """The failure that an exception stands for; the traceback is for the log, not for the user.

    stage: of the job, for advice.
    """
    if isinstance(error, JobFailure):
        return Failure(reason=error.reason, message=error.message[:3000], retryable=error.retryable)
    text = f"{error}"
    if (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or _WRITE_FAILED.search(text):
        return _disk_full(error)
    if isinstance(error, OSError) and error.errno == errno.EROFS:
        return Failure(
            reason=FailureReason.VOLUME_READ_ONLY,
            message=f"Nothing can be written to {error.filename}: the volume is read-only. Use an output.uri that pods "
            "may write.",
            retryable=False,
        )
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text):
        return Failure(
            reason=FailureReason.OUT_OF_MEMORY,
            message=f"Memory ran out while training ({_first_line(text)}). {memory_advice(stage)}",
            retryable=False,
        )
    if _PEER_LOST.search(text) or type(error).__name__ in ("DistBackendError", "DistNetworkError", "DistStoreError"):
        return Failure(
            reason=FailureReason.WORKER_LOST,
            message="Another training process of the job was lost. The next attempt goes on from the newest "
            "checkpoint.",
            retryable=True,
        )
    return Failure(
        reason=FailureReason.CRASHED,
        message=f"Training ended with an unexpected error ({type(error).__name__}: {_first_line(text)}); the log has "
        "the details. The next attempt goes on from the newest checkpoint.",
        retryable=True,
    )


def _disk_full(error: BaseException) -> Failure:
    where = f" at {error.filename}" if isinstance(error, OSError) and error.filename else ""
    return Failure(
        reason=FailureReason.DISK_FULL,
        message=f"The disk is full{where}: a checkpoint or the model could not be written; what was complete before is "
        "kept. Make room or enlarge the volume of output.uri, lower checkpoint.keep, or raise checkpoint.everySteps.",
        retryable=False,
    )


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0][:300] if lines else "no message"
