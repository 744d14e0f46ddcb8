"""From an exception to a failure that a user can act on."""

import errno
import re

from alidade_crds.contract import Failure
from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure

_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory", re.IGNORECASE)
MEMORY_ADVICE = (
    "Give the pods more memory or GPUs with more, make suites[].maxNewTokens or suites[].window smaller, or set "
    "precision: bf16."
)


def failure_of(error: BaseException) -> Failure:
    """The failure that an exception stands for; the traceback is for the log, not for the user."""
    if isinstance(error, JobFailure):
        return Failure(reason=error.reason, message=error.message[:3000], retryable=error.retryable)
    text = str(error)
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.ENOSPC, errno.EDQUOT):
        message = (
            "The disk is full: samples could not be written; those before are kept. Make room or enlarge the "
            "volume of output.uri."
        )
        return Failure(reason=FailureReason.DISK_FULL, message=message, retryable=False)
    if code == errno.EROFS:
        message = (
            "Nothing can be written to the output: the volume is read-only. Use an output.uri that pods may write."
        )
        return Failure(reason=FailureReason.VOLUME_READ_ONLY, message=message, retryable=False)
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text):
        message = f"Memory ran out ({_first_line(text)}). {MEMORY_ADVICE}"
        return Failure(reason=FailureReason.OUT_OF_MEMORY, message=message, retryable=False)
    message = (
        f"The evaluation ended with an unexpected error ({type(error).__name__}: {_first_line(text)}); the log has the "
        "details. The next attempt goes on from the samples there are."
    )
    return Failure(reason=FailureReason.CRASHED, message=message, retryable=True)


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0][:300] if lines else "no message"
