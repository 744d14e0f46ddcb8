"""What clients send, as types: every field is checked, and what is not served is said and not ignored."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alidade_serving.front.refusals import Refusal, invalid

Seed = Annotated[int, Field(ge=0, lt=2**64)]


class Document(BaseModel):
    """Strict: a text is no number, true is no 1; what has no name here is refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


Read = TypeVar("Read", bound=Document)


class TgiParameters(Document):
    """`parameters` of text-generation-inference."""

    adapter_id: str | None = None
    best_of: int | None = Field(None, ge=1)
    decoder_input_details: bool = False
    details: bool | None = None
    do_sample: bool = False
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    grammar: Any = None
    max_new_tokens: int | None = Field(None, ge=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    return_full_text: bool | None = None
    seed: Seed | None = None
    stop: list[str] | None = None
    temperature: float | None = Field(None, gt=0, le=100)
    top_k: int | None = Field(None, ge=1, le=2**31 - 1)
    top_n_tokens: int | None = Field(None, ge=0, le=5)
    top_p: float | None = Field(None, gt=0, le=1)
    truncate: int | None = Field(None, ge=1)
    typical_p: float | None = Field(None, gt=0, le=1)
    watermark: bool = False

    def check(self) -> None:
        """Raises Refusal(422) for what the engine cannot do."""
        if self.best_of not in (None, 1):
            raise _unserved("parameters.best_of", self.best_of, "ask again with another seed")
        if self.decoder_input_details:
            raise _unserved(
                "parameters.decoder_input_details", True, "the engine gives no log-probabilities of prompts"
            )
        if self.watermark:
            raise _unserved("parameters.watermark", True, "leave it out")
        if self.grammar is not None:
            raise _unserved("parameters.grammar", "set", "leave it out and check the answer")

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn: asked for, or implied by a parameter of drawing."""
        chosen = (self.temperature, self.top_k, self.top_p, self.typical_p)
        return self.do_sample or any(value is not None for value in chosen)


class TgiRequest(Document):
    """Body of `/`, `/generate` and `/generate_stream`."""

    inputs: str
    parameters: TgiParameters = TgiParameters()
    stream: bool = False


class TokenizeRequest(Document):
    """Body of `/tokenize`."""

    inputs: str
    add_special_tokens: bool = True


class StreamOptions(Document):
    """`stream_options` of OpenAI."""

    include_usage: bool = False
    include_obfuscation: bool = False


class OpenAiRequest(Document):
    """What completions and chat completions share. Fields that only label a request are accepted and not used."""

    model: str
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = None
    min_p: float | None = Field(None, ge=0, le=1)
    n: int | None = Field(None, ge=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_k: int | None = Field(None, ge=1, le=2**31 - 1)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    user: str | None = None
    metadata: dict[str, str] | None = None

    def check(self) -> None:
        """Raises Refusal(422) for what is not served."""
        if self.n not in (None, 1):
            raise _unserved("n", self.n, "send a request for each answer")

    @property
    def stops(self) -> list[str]:
        """Stop sequences, also when there is one."""
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop


class CompletionRequest(OpenAiRequest):
    """Body of `/v1/completions`."""

    prompt: str | list[str] | list[int]
    best_of: int | None = Field(None, ge=1)
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=5)
    suffix: str | None = None

    def check(self) -> None:
        """Raises Refusal(422) for what is not served."""
        super().check()
        if self.best_of not in (None, 1):
            raise _unserved("best_of", self.best_of, "ask again with another seed")
        if self.echo:
            raise _unserved("echo", True, "put the prompt before the answer yourself")
        if self.suffix:
            raise _unserved("suffix", "set", "leave it out")
        if isinstance(self.prompt, list) and len(self.prompt) > 1 and isinstance(self.prompt[0], str):
            raise _unserved("prompt", f"a list of {len(self.prompt)} texts", "send a request for each")


class TextPart(Document):
    """A part of a message; only text is served."""

    type: Literal["text"]
    text: str


class ChatMessage(Document):
    """A turn. `name` labels it and is not shown to the model."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None

    def plain(self) -> dict[str, str]:
        """As chat templates read it: `developer` is OpenAI's newer word for `system`."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(OpenAiRequest):
    """Body of `/v1/chat/completions`."""

    messages: list[ChatMessage]
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    max_completion_tokens: int | None = Field(None, ge=1)
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    tool_prompt: str | None = None
    functions: list[Any] | None = None
    function_call: Any = None
    parallel_tool_calls: bool | None = None
    store: bool | None = None

    def check(self) -> None:
        """Raises Refusal(422) for what is not served."""
        super().check()
        if self.tools or self.functions:
            raise _unserved("tools" if self.tools else "functions", "set", "describe them in a message instead")
        if self.tool_choice not in (None, "none", "auto") or self.function_call not in (None, "none", "auto"):
            raise _unserved("tool_choice", "set", "leave it out")
        if self.response_format not in (None, {"type": "text"}):
            raise _unserved("response_format", repr(self.response_format)[:80], "ask for the format in a message")
        if self.top_logprobs is not None and not self.logprobs:
            raise invalid("top_logprobs is set without logprobs; set logprobs to true as well.", "top_logprobs")


def _unserved(field: str, value: object, instead: str) -> Refusal:
    return invalid(f"{field} is {value}, which this server does not offer; {instead}.", field)


def read_document(kind: type[Read], body: dict[str, Any]) -> Read:
    """The body as a type. Raises Refusal(422) that names the first field at fault, its value and the limit."""
    try:
        return kind.model_validate(_without_nulls(body))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"] if part not in ("str", "list[str]", "list[int]"))
        if first["type"] == "extra_forbidden":
            message = f"{field[:100]} is not known to this server; leave it out."
        elif first["type"] == "missing":
            message = f"{field} is missing."
        else:
            message = f"{field} is {_shown(first['input'])}: {first['msg'][0].lower()}{first['msg'][1:]}."
        raise invalid(message, field[:100]) from None


def _without_nulls(body: dict[str, Any]) -> dict[str, Any]:
    """Clients write null for what they leave to the server, also within parameters and messages."""
    written: dict[str, Any] = {}
    for name, value in body.items():
        if isinstance(value, dict) and name == "parameters":
            written[name] = _set(value)
        elif isinstance(value, list) and name == "messages":
            written[name] = [_set(item) if isinstance(item, dict) else item for item in value]
        else:
            written[name] = value
    return _set(written)


def _set(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"
