"""Text and conversations as prompts, checked against the limits of the server."""

import asyncio
from collections.abc import Sequence
from typing import Any

from alidade_engine.templates import RenderError, render_prompt
from alidade_serving.front.refusals import invalid
from alidade_serving.models import Model
from alidade_serving.settings import Settings

# Longer texts are tokenized on a thread: on the loop, 16,000 characters take about as long as a token is generated.
_SHORT = 16_000


async def tokenize(
    model: Model, text: str, field: str, settings: Settings, *, truncate: int | None = None
) -> list[int]:
    """The tokens of a prompt; with truncate its last so many. Raises Refusal(422): empty, too long, no valid text."""
    _check_text(text, field)
    if not text:
        raise invalid(f"{field} is empty; write a prompt.", field)
    if truncate is None:
        _check_length(len(text) // model.longest_token, field, settings, "at least ")
    encode = model.tokenizer
    ids: list[int] = (
        encode(text)["input_ids"] if len(text) < _SHORT else (await asyncio.to_thread(encode, text))["input_ids"]
    )
    if truncate is not None:
        ids = ids[-truncate:]
    if not ids:
        raise invalid(f"{field} has no token; write a prompt.", field)
    _check_length(len(ids), field, settings)
    return ids


async def render(model: Model, messages: Sequence[dict[str, Any]], settings: Settings) -> list[int]:
    """The tokens after which the model answers a conversation, exactly those that it was trained with.

    A control token that a user wrote is encoded as plain text. Raises Refusal(422).
    """
    if not messages:
        raise invalid("messages is empty; write at least one message.", "messages")
    for number, message in enumerate(messages):
        _check_text(message["content"], f"messages.{number}.content")
    length = sum(len(message["content"]) for message in messages)
    _check_length(length // model.longest_token, "messages", settings, "at least ")
    try:
        if length < _SHORT:
            ids = render_prompt(model.tokenizer, messages)
        else:
            ids = await asyncio.to_thread(render_prompt, model.tokenizer, messages)
    except RenderError as error:
        raise invalid(
            f"messages cannot be rendered by the model's chat template: {error.message}", "messages"
        ) from error
    _check_length(len(ids), "messages", settings)
    return ids


def check_ids(ids: list[int], model: Model, field: str, settings: Settings) -> list[int]:
    """Tokens that came as ids. Raises Refusal(422): none, too many, or outside the vocabulary."""
    if not ids:
        raise invalid(f"{field} is empty; write a prompt.", field)
    outside = [number for number in ids if not 0 <= number < len(model.tokenizer)]
    if outside:
        raise invalid(f"{field} holds the token {outside[0]}; the vocabulary has {len(model.tokenizer)}.", field)
    _check_length(len(ids), field, settings)
    return ids


def answer_length(prompt: int, asked: int | None, default: int | None, field: str, settings: Settings) -> int:
    """Tokens that an answer may have. Raises Refusal(422) when prompt and answer would exceed the limit."""
    left = settings.max_total_tokens - prompt
    if asked is None:
        return left if default is None else min(default, left)
    if asked > left:
        raise invalid(
            f"{field} is {asked} after a prompt of {prompt} tokens; both together may have "
            f"{settings.max_total_tokens}. Ask for at most {left}.",
            field,
        )
    return asked


def check_stops(stops: Sequence[str], field: str, settings: Settings) -> tuple[str, ...]:
    """Stop sequences. Raises Refusal(422): too many, or one that is empty."""
    if len(stops) > settings.max_stop_sequences:
        raise invalid(f"{field} has {len(stops)} sequences; at most {settings.max_stop_sequences} are allowed.", field)
    for stop in stops:
        _check_text(stop, field)
        if not 0 < len(stop) <= 256:
            raise invalid(f"{field} holds a sequence of {len(stop)} characters; write 1 to 256.", field)
    return tuple(stops)


def _check_text(text: str, field: str) -> None:
    """JSON can write halves of a surrogate pair, which no text holds."""
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise invalid(f"{field} is not text: character {error.start} is half of a pair.", field) from None


def _check_length(tokens: int, field: str, settings: Settings, about: str = "") -> None:
    if tokens > settings.max_input_tokens:
        raise invalid(
            f"{field} has {about}{tokens} tokens; at most {settings.max_input_tokens} are allowed. Shorten it.", field
        )
