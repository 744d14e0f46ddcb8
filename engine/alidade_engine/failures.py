"""The one exception that users see: a reason that programs may rely on, and a sentence that says what to do."""

from alidade_crds.reasons import FailureReason


class JobFailure(Exception):  # noqa: N818  # it is a job's outcome, said in the user's word
    """Ends a job; becomes `failure` of its result document.

    reason: why, as a word programs rely on.
    message: field or file, what was found, what to do; shown to the user as it is.
    retryable: whether another attempt could succeed without a change by the user.
    """

    def __init__(self, reason: FailureReason, message: str, retryable: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retryable = retryable

    def __reduce__(self) -> tuple[type["JobFailure"], tuple[FailureReason, str, bool]]:
        """Lets a failure cross from a worker process to its launcher."""
        return type(self), (self.reason, self.message, self.retryable)

    def __str__(self) -> str:
        return self.message
