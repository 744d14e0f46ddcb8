"""Conversations with a served model: questions go out, answers are heard as they are written."""

import http.client
import json
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from alidade_cli.doors import Door
from alidade_cli.errors import CommandFailed
from alidade_cli.loadtest.apis import error_text

Message = dict[str, str]
Exchange = tuple[Message, Message]

SILENCE_S = 180.0
"""After so long without a word a server is given up; a model that was scaled to zero takes a minute or two."""
_MOST_ERROR_BYTES = 8192
_TOO_MUCH = (400, 413, 422)
"""What servers answer to a conversation that is longer than they take; text-generation-inference 422, vLLM 400."""


class NotAnsweredError(CommandFailed):
    """A question that got no answer, or not a whole one. status: of HTTP, None when there was none."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Asking:
    """What every question asks for. temperature: 0 takes the likeliest token. max_new_tokens: of an answer; None: as
    many as the server gives."""

    model: str
    temperature: float
    max_new_tokens: int | None


@dataclass
class Conversation:
    """A conversation that remembers its newest exchanges. system: what stands before every one of them."""

    door: Door
    asking: Asking
    system: str
    most_exchanges: int
    is_cut_off: bool = False
    """Whether the last answer ended at max_new_tokens."""
    forgotten: int = 0
    """Exchanges that the last question left out because the server took no more."""
    _exchanges: deque[Exchange] = field(init=False)

    def __post_init__(self) -> None:
        self._exchanges = deque(maxlen=self.most_exchanges)

    def answer(self, question: str) -> Generator[str]:
        """The answer, part by part; what was heard is remembered, also when the iteration is left before its end.

        NotAnsweredError when there is none; the question is forgotten then.
        """
        turn = {"role": "user", "content": question}
        parts: list[str] = []
        self.is_cut_off, self.forgotten = False, 0
        try:
            for part in self._heard(turn):
                parts.append(part)
                yield part
        except NotAnsweredError:
            parts.clear()
            raise
        finally:
            if parts:
                for _ in range(self.forgotten):
                    self._exchanges.popleft()
                self._exchanges.append((turn, {"role": "assistant", "content": "".join(parts)}))

    def _heard(self, turn: Message) -> Iterator[str]:
        """Asks with as much of the conversation as the server takes: first all, then without the oldest exchange, …"""
        while True:
            earlier = list(self._exchanges)[self.forgotten :]
            messages = [{"role": "system", "content": self.system}] if self.system else []
            messages += [message for exchange in earlier for message in exchange]
            try:
                for part, finish_reason in _stream(self.door, self.asking, [*messages, turn]):
                    self.is_cut_off = finish_reason == "length"
                    if part:
                        yield part
                return
            except NotAnsweredError as error:
                if error.status not in _TOO_MUCH or not earlier:
                    raise
            self.forgotten += 1


def model_of(door: Door) -> str:
    """The name to ask for: the door's, else the first that the server names."""
    if door.model is not None:
        return door.model
    with _Connection(door) as connection:
        body = _json(connection.ask("GET", "/v1/models").read())
    rows = body.get("data") if isinstance(body, dict) else None
    if not isinstance(rows, list) or not rows or not isinstance(rows[0], dict) or "id" not in rows[0]:
        raise CommandFailed(f"{door.url}/v1/models names no model; give its name with --model")
    return str(rows[0]["id"])


def _stream(door: Door, asking: Asking, messages: list[Message]) -> Iterator[tuple[str, str | None]]:
    """(text, why the answer ended) of each event; a request that is left is closed, which ends it at the server."""
    body = {
        "model": asking.model,
        "messages": messages,
        "temperature": asking.temperature,
        "stream": True,
    }
    if asking.max_new_tokens is not None:
        body["max_tokens"] = asking.max_new_tokens
    with _Connection(door) as connection:
        answer = connection.ask("POST", "/v1/chat/completions", body)
        is_ended = False
        for line in connection.lines(answer):
            if line == b"[DONE]":
                return
            event = _json(line)
            if not isinstance(event, dict):
                raise NotAnsweredError(f"{door.url} sent what is no event: {line[:200].decode(errors='replace')}")
            if event.get("error"):
                raise NotAnsweredError(f"the answer ended with an error: {error_text(event) or event['error']}")
            choice: dict[str, Any] = next(iter(event.get("choices") or []), {})
            finish_reason = choice.get("finish_reason")
            is_ended = is_ended or finish_reason is not None
            if choice:
                yield (choice.get("delta") or {}).get("content") or "", finish_reason
        if not is_ended:
            raise NotAnsweredError("the connection ended before the answer did")


class _Connection:
    """One connection, for one request. Failures of the network are NotAnsweredError."""

    def __init__(self, door: Door) -> None:
        address = urlsplit(door.url)
        host, port = address.hostname or "", address.port
        self._door, self._prefix = door, address.path
        if door.tls is None:
            self._http = http.client.HTTPConnection(host, port, timeout=SILENCE_S)
        else:
            self._http = http.client.HTTPSConnection(host, port, timeout=SILENCE_S, context=door.tls)

    def __enter__(self) -> "_Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(self, method: str, path: str, body: object = None) -> http.client.HTTPResponse:
        """The answer, its body unread; NotAnsweredError when its status is not 200."""
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **self._door.headers}
        try:
            self._http.request(method, self._prefix + path, content, headers)
            answer = self._http.getresponse()
            if answer.status == http.HTTPStatus.OK:
                return answer
            text = answer.read(_MOST_ERROR_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise NotAnsweredError(self._sentence(error)) from error
        said = error_text(_json(text)) or text[:200].decode(errors="replace").strip()
        later = answer.headers.get("Retry-After")
        raise NotAnsweredError(
            f"{self._door.url} answers {answer.status}{': ' + said if said else ''}"
            + (f"; ask again in {later} s" if later else ""),
            answer.status,
        )

    def lines(self, answer: http.client.HTTPResponse) -> Iterator[bytes]:
        """The data of each event."""
        try:
            for line in answer:
                if line.startswith(b"data:"):
                    yield line[5:].strip()
        except http.client.HTTPException as error:
            raise NotAnsweredError("the connection ended before the answer did") from error
        except OSError as error:
            raise NotAnsweredError(self._sentence(error)) from error

    def _sentence(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"{self._door.url} has said nothing for {SILENCE_S:g} s"
        return f"{self._door.url} does not answer: {error or type(error).__name__}"


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
