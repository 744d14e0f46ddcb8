"""One request over HTTP, and what was heard of its answer."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from alidade_cli.loadtest.apis import Api, error_text
from alidade_cli.loadtest.prompts import Question
from alidade_cli.loadtest.records import Outcome, Record

if TYPE_CHECKING:
    import aiohttp

Clock = Callable[[], float]
# Of a body that is no stream, enough for the sentence in it.
_MOST_ERROR_BYTES = 8192
_OVERLOADED = 429
_CUT_SHORT = ("stream cut short", "the connection ended before the answer did")


class BrokenAnswerError(Exception):
    """The answer is none. reason: a few words, the same for the same cause."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(reason)
        self.reason, self.message = reason, message


async def ask(
    session: "aiohttp.ClientSession", url: str, api: Api, question: Question, record: Record, clock: Clock
) -> None:
    """Sends a question, and writes into the record when what came, to the end of the answer. Raises nothing of HTTP."""
    import aiohttp

    record.sent_s = clock()
    try:
        async with session.post(url + api.path, json=api.body(question)) as answer:
            if answer.status != 200:
                text = (await answer.content.read(_MOST_ERROR_BYTES)).decode(errors="replace")
                outcome: Outcome = "shed" if answer.status == _OVERLOADED else "failed"
                record.end(outcome, clock(), f"{answer.status} {answer.reason or ''}".strip(), _sentence(text))
                return
            await _listen(answer, api, record, clock)
    except BrokenAnswerError as error:
        record.end("failed", clock(), error.reason, error.message)
    except aiohttp.ClientPayloadError:
        record.end("failed", clock(), *_CUT_SHORT)
    except aiohttp.ClientConnectorError as error:
        record.end("failed", clock(), "no connection", why_not_connected(error))
    except (aiohttp.ClientError, OSError) as error:
        record.end("failed", clock(), "connection broken", str(error) or type(error).__name__)


def why_not_connected(error: "aiohttp.ClientConnectorError") -> str:
    """The sentence of a connection that was not made."""
    return f"cannot connect to {error.host}:{error.port}: {error.os_error.strerror or error.os_error}"


async def _listen(answer: "aiohttp.ClientResponse", api: Api, record: Record, clock: Clock) -> None:
    if answer.content_type != "text/event-stream":
        raise BrokenAnswerError("no stream", f"the answer is {answer.content_type}, not text/event-stream")
    last_text_s, is_ended = None, False
    async for line in _lines(answer):
        now = clock()
        if line == b"[DONE]":
            is_ended = True
            continue
        heard = api.read(_event(line))
        if heard.error is not None:
            raise BrokenAnswerError("error in the stream", heard.error)
        if heard.has_text:
            if last_text_s is None:
                record.first_token_s = now
            else:
                record.gaps_s.append(now - last_text_s)
            last_text_s = now
        is_ended = is_ended or heard.is_end
        record.prompt_tokens = heard.prompt_tokens if heard.prompt_tokens is not None else record.prompt_tokens
        record.answer_tokens = heard.answer_tokens if heard.answer_tokens is not None else record.answer_tokens
        record.ended_s = now
    if not is_ended:
        raise BrokenAnswerError(*_CUT_SHORT)
    record.end("answered", record.ended_s)
    if record.first_token_s is None:
        # An answer without a visible token: its end is the first that the user hears.
        record.first_token_s = record.ended_s


async def _lines(answer: "aiohttp.ClientResponse") -> Any:
    """The data of each event."""
    try:
        async for line in answer.content:
            if line.startswith(b"data:"):
                yield line[5:].strip()
    except ValueError as error:
        raise BrokenAnswerError("line too long", str(error)) from error


def _event(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError as error:
        raise BrokenAnswerError("event is not JSON", line[:200].decode(errors="replace")) from error
    if not isinstance(event, dict):
        raise BrokenAnswerError("event is no object", line[:200].decode(errors="replace"))
    return event


def _sentence(text: str) -> str:
    try:
        return error_text(json.loads(text)) or text[:200]
    except ValueError:
        return text[:200]
