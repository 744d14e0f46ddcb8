"""The one exception that clients see: a status, a kind that programs may rely on, and a sentence."""

from http import HTTPStatus


class Refusal(Exception):  # noqa: N818  # it is an answer, said in the client's word
    """Ends a request. `kind` is text-generation-inference's error_type where it has one for the case."""

    def __init__(
        self, status: HTTPStatus, kind: str, message: str, *, field: str | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.field = field
        self.retry_after_s = retry_after_s


def invalid(message: str, field: str | None = None) -> Refusal:
    """422: the request can be read, and asks for what is not served."""
    return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "validation", message, field=field)


def malformed(message: str) -> Refusal:
    """400: the body is not JSON."""
    return Refusal(HTTPStatus.BAD_REQUEST, "malformed", message)


def overloaded(message: str, retry_after_s: int) -> Refusal:
    """429: the queue is full; nothing was begun."""
    return Refusal(HTTPStatus.TOO_MANY_REQUESTS, "overloaded", message, retry_after_s=retry_after_s)


def failed(message: str) -> Refusal:
    """424: the engine could not generate."""
    return Refusal(HTTPStatus.FAILED_DEPENDENCY, "generation", message)


def incomplete(message: str) -> Refusal:
    """500: the engine ended before the answer did."""
    return Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "incomplete_generation", message)


def unavailable(message: str) -> Refusal:
    """503: not warm yet, or about to end; another replica may answer."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "healthcheck", message, retry_after_s=1)
