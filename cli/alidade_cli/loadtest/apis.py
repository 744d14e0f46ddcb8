"""The three APIs: what a request's body is, and what an event of a streamed answer means."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from alidade_cli.loadtest.prompts import Question

Json = dict[str, Any]
ApiName = Literal["chat", "completions", "tgi"]
APIS: tuple[ApiName, ...] = get_args(ApiName)


@dataclass(frozen=True)
class Heard:
    """An event. prompt_tokens, answer_tokens: as the server counts them, where the event says."""

    has_text: bool = False
    is_end: bool = False
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class Api:
    """One API of a server. model: the name that is asked for."""

    name: ApiName
    model: str

    @property
    def path(self) -> str:
        """Route of a streamed answer."""
        paths: dict[ApiName, str] = {
            "chat": "/v1/chat/completions",
            "completions": "/v1/completions",
            "tgi": "/generate_stream",
        }
        return paths[self.name]

    def body(self, question: Question) -> Json:
        """Asks for the likeliest tokens: the same work each time."""
        if self.name == "tgi":
            # No seed: text-generation-inference draws nothing without a parameter of drawing.
            parameters = {"max_new_tokens": question.answer_tokens, "details": True}
            return {"inputs": question.text, "parameters": parameters}
        content = {"messages": list(question.messages)} if self.name == "chat" else {"prompt": question.text}
        return {
            "model": self.model,
            **content,
            "max_tokens": question.answer_tokens,
            "temperature": 0,
            "seed": question.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def read(self, event: Json) -> Heard:
        """What an event says."""
        if event.get("error"):
            return Heard(error=error_text(event))
        return _read_tgi(event) if self.name == "tgi" else _read_openai(event)


def _read_tgi(event: Json) -> Heard:
    details = event.get("details") or {}
    token = event.get("token") or {}
    return Heard(
        has_text=bool(token.get("text")) and not token.get("special"),
        is_end=event.get("generated_text") is not None,
        prompt_tokens=details.get("input_length"),
        answer_tokens=details.get("generated_tokens"),
    )


def _read_openai(event: Json) -> Heard:
    usage = event.get("usage") or {}
    choice: Json = next(iter(event.get("choices") or []), {})
    delta = choice.get("delta") or {}
    # Thinking is generated, and waited for, as an answer is. The first chunk of a chat often has a role and no text.
    said = choice.get("text") or delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning")
    return Heard(
        has_text=bool(said),
        is_end=choice.get("finish_reason") is not None,
        prompt_tokens=usage.get("prompt_tokens"),
        answer_tokens=usage.get("completion_tokens"),
    )


def error_text(body: Any) -> str:
    """The sentence in an error's body, in whichever of the usual shapes it has; empty when there is none."""
    if not isinstance(body, dict):
        return ""
    error = body.get("error", body.get("message", body.get("detail")))
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) else ""
