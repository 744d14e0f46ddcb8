"""One side of a comparison asked, and its answer taken in piece by piece."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import ClientError
from multidict import CIMultiDict

from alidade_gateway.forwarding import Answer, Forwarder, Order
from alidade_gateway.pages.comparisons import Side
from alidade_gateway.pages.votes import Messages
from alidade_serving.front.refusals import Refusal

_log = logging.getLogger("alidade_serving")

MOST_ANSWER = 16_000
"""Characters; a model that does not stop is cut off there, and is voted on as it is."""
TEMPERATURE = 0.7
"""Of both sides alike: their servers' defaults may differ. Low enough for sense, high enough for answers to vary."""
_MOST_LINE_BYTES = 1 << 20
_PATH = "/v1/chat/completions"
# What these say is about the message, which the person who wrote it can mend.
_OF_THE_MESSAGE = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}
)


class Unanswered(Exception):  # noqa: N818  # what happened is told to a person
    """A side gave no whole answer. The message names neither side nor server."""


async def ask(
    side: Side,
    prompt: Messages,
    forwarder: Forwarder,
    headers: CIMultiDict[str],
    *,
    silence_s: float,
    on_text: Callable[[str], Awaitable[None]],
) -> None:
    """Appends to the side's text what its server answers, and passes on each piece. Raises Unanswered."""
    order = Order("POST", _PATH, headers, _body(side.model, prompt))
    try:
        answer = await forwarder.open(order, (side.backend,))
    except Refusal as refusal:
        _log.warning("arena: %s did not answer: %s", side.backend.name, refusal.message)
        raise Unanswered("This side did not answer; ask again in a while.") from refusal
    with answer:
        if answer.response.status != HTTPStatus.OK:
            raise _refused(answer, side)
        try:
            async for piece in _pieces(answer, silence_s):
                room = MOST_ANSWER - len(side.text)
                side.text += piece[:room]
                await on_text(piece[:room])
                if len(piece) >= room:
                    break
        except _BrokenOff as error:
            answer.broke()
            _log.warning("arena: %s broke off: %s", side.backend.name, error)
            raise Unanswered("This side's answer broke off; ask again.") from error
        answer.ended()


def _body(model: str, prompt: Messages) -> bytes:
    asked = {"model": model, "messages": prompt, "stream": True, "temperature": TEMPERATURE}
    return json.dumps(asked, ensure_ascii=False).encode()


def _refused(answer: Answer, side: Side) -> Unanswered:
    """Why a server did not take the message, as far as its answer's beginning says."""
    body = answer.first
    answer.ended()
    status = answer.response.status
    _log.warning("arena: %s answered with %d", side.backend.name, status)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Unanswered("This side has too much to do; ask again in a while.")
    if status in _OF_THE_MESSAGE and (said := _message(body)):
        return Unanswered(f"This side does not take the message: {said[:500]}")
    return Unanswered(f"This side's server answered with an error ({status}); its log says why.")


def _message(body: bytes) -> str | None:
    try:
        error = json.loads(body)["error"]
        said = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return said if isinstance(said, str) else None


class _BrokenOff(Exception):  # noqa: N818
    """A stream that ended early, stood still, or is not what OpenAI's is."""


async def _pieces(answer: Answer, silence_s: float) -> AsyncIterator[str]:
    """The texts of a stream of chat completions. Raises _BrokenOff when it ends early or says something else."""
    async for line in _lines(answer, silence_s):
        if not line.startswith(b"data:"):
            continue
        data = line[len(b"data:") :].strip()
        if data == b"[DONE]":
            return
        piece = _piece(data)
        if piece:
            # Half a character can be no part of a record.
            yield piece.encode("utf-8", "replace").decode()
    raise _BrokenOff("the stream ended without [DONE]")


def _piece(data: bytes) -> str:
    try:
        document: dict[str, Any] = json.loads(data)
        if document.get("error"):
            raise _BrokenOff("an error was sent within the stream")
        choices = document["choices"]
        text = choices[0]["delta"].get("content") if choices else None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise _BrokenOff("an event is not what it should be") from error
    return text if isinstance(text, str) else ""


async def _lines(answer: Answer, silence_s: float) -> AsyncIterator[bytes]:
    rest, chunk = b"", answer.first
    while chunk:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > _MOST_LINE_BYTES:
            raise _BrokenOff("a line does not end")
        try:
            async with asyncio.timeout(silence_s):
                chunk = await answer.response.content.readany()
        except (ClientError, OSError, TimeoutError) as error:
            raise _BrokenOff(repr(error)) from error
