"""Questions over HTTP that are asked again when no answer came: the manners that endpoints and judges share."""

import dataclasses
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import InferenceClient, constants, get_session, is_offline_mode, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError, OfflineModeIsEnabled

from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure

FIRST_DELAY_S, LAST_DELAY_S = 0.5, 30.0
STARTUP_S = 60.0
"""How long a server that does not answer at first is waited for."""
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which the same question may be answered a little later."""
REFUSALS = frozenset({400, 413, 422})
"""Answers that are about one question, such as one that is too long, and say nothing of the others."""
NO_KEY = "none"
"""Sent where no key is given: without one, the client would send this machine's token of the Hugging Face hub."""

T = TypeVar("T")


class Unanswered(Exception):  # noqa: N818  # it is an outcome
    """A question that got no answer.

    passing: whether asking again later could help. refused: whether the server did not like this question.
    """

    def __init__(self, why: str, *, passing: bool, refused: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(why)
        self.passing = passing
        self.refused = refused
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Server:
    """An inference server and how patiently it is asked. field: where the spec names it, for messages."""

    url: str
    key: str | None
    timeout_s: float
    retries: int
    field: str
    _given_up: threading.Event = dataclasses.field(default_factory=threading.Event, init=False)

    def __post_init__(self) -> None:
        set_client_factory(_session)

    def client(self, path: str) -> InferenceClient:
        """A client of the API at a path, which asks nobody else."""
        return InferenceClient(base_url=f"{self.root}{path}", api_key=self.key or NO_KEY, timeout=self.timeout_s)

    def ask(self, question: Callable[[], T]) -> T:
        """The answer. Raises Unanswered when there is none after all tries."""
        for attempt in range(self.retries + 1):
            try:
                return self._once(question)
            except Unanswered as error:
                if not error.passing or attempt == self.retries:
                    raise
                if self._given_up.wait(delay_s(attempt, error.retry_after_s)):
                    raise
        raise AssertionError("the last try answers or raises")

    def give_up(self) -> None:
        """Lets no question be asked again: nobody waits for the answers any more."""
        self._given_up.set()

    def get(self, path: str) -> Any:
        """The JSON at a path, or None where there is none. Raises Unanswered when the server does not answer."""

        def question() -> Any:
            headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
            answer = get_session().get(
                f"{self.root}{path}", headers=headers, timeout=min(self.timeout_s, 10.0), follow_redirects=False
            )
            if answer.status_code in (401, 403):
                raise Unanswered(f"{path} answers {answer.status_code}: the key is absent or wrong", passing=False)
            if answer.status_code in PASSING:
                raise Unanswered(f"{path} answers {answer.status_code}", passing=True)
            return _json(answer) if answer.status_code == 200 else None

        return self._once(question)

    def _once(self, question: Callable[[], T]) -> T:
        """One try. Raises Unanswered, whose words do not show the key, for whatever is no answer."""
        try:
            return _once(question)
        except Unanswered as error:
            if self.key and self.key in str(error):
                # Not from the error: its words would be in a stack trace.
                raise Unanswered(
                    str(error).replace(self.key, "(the key)"),
                    passing=error.passing,
                    refused=error.refused,
                    retry_after_s=error.retry_after_s,
                ) from None
            raise

    def wait(self, look: Callable[[], T | None]) -> T:
        """What look finds at the server; a server that is only starting is waited for.

        Raises JobFailure (EndpointUnavailable) when it does not answer within STARTUP_S, or with nothing of use.
        """
        deadline = time.monotonic() + STARTUP_S
        for attempt in range(1000):
            try:
                found = look()
            except Unanswered as error:
                if not error.passing or time.monotonic() > deadline:
                    raise self.unavailable(str(error), retryable=error.passing) from error
                time.sleep(delay_s(min(attempt, 3), error.retry_after_s))
                continue
            if found is None:
                raise self.unavailable(
                    "it is neither text-generation-inference (/info) nor an OpenAI-compatible server (/v1/models)",
                    retryable=False,
                )
            return found
        raise AssertionError("the deadline comes first")

    def unavailable(self, why: str, *, retryable: bool) -> JobFailure:
        """The failure of an evaluation whose server is of no use."""
        return JobFailure(
            FailureReason.ENDPOINT_UNAVAILABLE,
            f"{self.field} is {self.url}: {why}. Check that the server runs, that pods of this namespace may reach it, "
            "and its key.",
            retryable=retryable,
        )

    @property
    def root(self) -> str:
        """The address without the path of an API."""
        parts = urlsplit(self.url)
        path = parts.path.rstrip("/").removesuffix("/v1")
        return f"{parts.scheme}://{parts.netloc}{path}"


def key_in(environment: Mapping[str, str], name: str) -> str | None:
    """A key as it is sent: Secrets made of files often end with a line break, which no header may have."""
    return environment.get(name, "").strip() or None


def _session() -> httpx2.Client:
    """The one session of huggingface_hub in this process, which downloads models and data, too.

    It differs from the library's own in what own servers need: they are asked also where the hub must not be
    (HF_HUB_OFFLINE), and a question never goes on to where a redirection points.
    """
    return httpx2.Client(
        event_hooks={"request": [_keep_off_hub], "response": [_stay]}, follow_redirects=True, timeout=None
    )


def _is_of_hub(request: httpx2.Request) -> bool:
    return request.url.host == httpx2.URL(constants.ENDPOINT).host


def _keep_off_hub(request: httpx2.Request) -> None:
    if is_offline_mode() and _is_of_hub(request):
        raise OfflineModeIsEnabled(f"{request.url} is not asked: HF_HUB_OFFLINE is set.")


def _stay(response: httpx2.Response) -> None:
    request = response.request
    if request.method == "POST" and response.has_redirect_location and not _is_of_hub(request):
        raise Unanswered(
            f"it answers {response.status_code} and points to {response.headers['location'][:200]}, which is not asked",
            passing=False,
        )


def _json(answer: httpx2.Response) -> Any:
    try:
        return answer.json()
    except ValueError:  # a page for people: some servers have one at every path
        return None


def _once(question: Callable[[], T]) -> T:
    """One try. Raises Unanswered for whatever is no answer."""
    try:
        return question()
    except Unanswered:
        raise
    except InferenceTimeoutError as error:
        raise Unanswered("it did not answer in time", passing=True) from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        text = " ".join(error.response.text.split())[:200]
        raise Unanswered(
            f"it answers {status}: {text}",
            passing=status in PASSING,
            refused=status in REFUSALS,
            retry_after_s=_retry_after(error.response.headers),
        ) from error
    except httpx2.TimeoutException as error:
        raise Unanswered("it did not answer in time", passing=True) from error
    except httpx2.LocalProtocolError:
        # Its words are the header's: the key.
        raise Unanswered("the key has signs that no header may have, such as a line break", passing=False) from None
    except httpx2.HTTPError as error:
        raise Unanswered(f"it cannot be reached ({type(error).__name__}: {error})", passing=True) from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise Unanswered(f"its answer is not what was asked for ({type(error).__name__})", passing=True) from error


def delay_s(attempt: int, retry_after_s: float | None) -> float:
    """Seconds before the next try: the server's wish, else doubling, with jitter so that not all come at once."""
    if retry_after_s is not None:
        return min(retry_after_s, LAST_DELAY_S)
    return min(LAST_DELAY_S, FIRST_DELAY_S * 2.0**attempt) * random.uniform(0.5, 1.0)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after", "")
    return float(value) if value.replace(".", "", 1).isdigit() else None
