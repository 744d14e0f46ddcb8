"""What can go wrong, each with a sentence that says what to do."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

_NOT_FOUND = 404
_REFUSALS = (400, 403, 409, 422)
# A server-side apply of a field that the schema does not have is an internal error to the API server.
_NOT_DECLARED = "field not declared in schema"


class AlidadeError(Exception):
    """What all errors of this package are."""


class NotFoundError(AlidadeError):
    """There is no such resource."""


class RefusedError(AlidadeError):
    """The API server did not take it: schema, admission, rights, or somebody else's field; its words."""


class UnreachableError(AlidadeError):
    """The API server does not answer, or answers that it cannot."""


class ResourceFailedError(AlidadeError):
    """The resource has ended without a result. reason: of the condition Failed."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class WaitTimeoutError(AlidadeError):
    """The time is over; the message says how far it is."""


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turns the errors of the kubernetes client into ours. what: was to be done, for the message."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        message = f"{what}: {_words(error)}"
        if error.status == _NOT_FOUND:
            raise NotFoundError(message) from error
        if error.status in _REFUSALS or _NOT_DECLARED in message:
            raise RefusedError(message) from error
        raise UnreachableError(message) from error
    except (HTTPError, OSError) as error:
        raise UnreachableError(f"{what}: {error}") from error


def _words(error: object) -> str:
    body, reason, status = (getattr(error, name, None) for name in ("body", "reason", "status"))
    try:
        return str(json.loads(body or "{}")["message"])
    except (ValueError, KeyError, TypeError):
        return f"{status} {reason}"
