"""Conversations as token ids, with a mask of the tokens that the model answers with.

Training and inference share this module, and agree exactly: the tokens of a prompt are a prefix of the tokens of the
same prompt with its answer.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from alidade_crds.reasons import FailureReason
from alidade_engine import built_in
from alidade_engine.encoding import (
    Piece,
    Rendered,
    adds_bos,
    control_tokens,
    encode_pieces,
    encode_texts,
    eos_id,
    shield,
)
from alidade_engine.failures import JobFailure

Message = Mapping[str, Any]
"""role (system, user, assistant, tool) and content; the alpaca template also reads instruction and input."""

BUILT_IN = ("auto", "alpaca", "llama2", "chatml", "none")

_GENERATION_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")
# What Jinja and a template's own expressions raise on a conversation that they were not made for.
_RENDER_ERRORS = (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError)


class RenderError(ValueError):
    """A conversation that its template cannot render; `index` is its place in the batch."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index
        self.message = message


def resolve_template(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """The Jinja source of `dataset.template`: a built-in name, the tokenizer's own for auto (else chatml), or inline.

    Raises JobFailure(TemplateFailed) for an unknown name and for Jinja that does not parse.
    """
    name = template.strip()
    begins = "{{ bos_token }}" if adds_bos(tokenizer) else ""
    if name in BUILT_IN:
        own = _own_template(tokenizer) if name == "auto" else None
        named = {
            "auto": own or begins + built_in.CHATML,
            "alpaca": begins + built_in.ALPACA,
            "llama2": built_in.LLAMA2,
            "chatml": begins + built_in.CHATML,
            "none": begins + built_in.NONE,
        }
        source = named[name]
    elif "{" in name:
        source = template
    else:
        raise JobFailure(
            FailureReason.TEMPLATE_FAILED,
            f"dataset.template is {template!r}; write one of {', '.join(BUILT_IN)}, or a Jinja template over "
            "`messages`.",
        )
    _check_syntax(source)
    return source


def _own_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    own = tokenizer.chat_template
    if isinstance(own, dict):  # several by name; "default" is the one for plain conversations
        own = own.get("default")
    return str(own) if own else None


@lru_cache(maxsize=16)
def _check_syntax(source: str) -> None:
    # Once for a source, not for every conversation: parsing takes longer than rendering.
    # `generation` is a tag of transformers' own; plain Jinja parses the rest.
    plain = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", source)
    try:
        jinja2.Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=False).parse(plain)
    except jinja2.TemplateSyntaxError as error:
        raise JobFailure(
            FailureReason.TEMPLATE_FAILED,
            f"dataset.template is not valid Jinja: line {error.lineno}: {str(error.message).rstrip('.')}.",
        ) from error


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], template: str = "auto") -> Rendered:
    """A conversation as tokens with its answers marked; what follows the last answer is left out.

    Raises RenderError when the template cannot render it.
    """
    return render_batch(tokenizer, [messages], resolve_template(tokenizer, template))[0]


def render_batch(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Sequence[Message]], source: str
) -> list[Rendered]:
    """`render` for many conversations at once; `source` is what `resolve_template` returned.

    Raises RenderError, whose index says which conversation failed.
    """
    renderer = _Renderer(tokenizer, source)
    return encode_pieces(tokenizer, [renderer.training(*item) for item in enumerate(conversations)])


def render_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], template: str = "auto") -> list[int]:
    """The tokens after which the model answers the last message: a prefix of what `render` gives with the answer.

    Raises RenderError when the template cannot render it.
    """
    return render_prompts(tokenizer, [messages], resolve_template(tokenizer, template))[0]


def render_prompts(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Sequence[Message]], source: str
) -> list[list[int]]:
    """`render_prompt` for many conversations at once."""
    renderer = _Renderer(tokenizer, source)
    pieces = [renderer.prompt(*item) for item in enumerate(conversations)]
    return [rendered.input_ids for rendered in encode_pieces(tokenizer, pieces)]


def stop_token_ids(tokenizer: PreTrainedTokenizerBase, template: str = "auto") -> list[int]:
    """Ids at which an answer has ended: EOS, and the control token that ends answers in the template if it is another.

    Save them as the model's generation_config.eos_token_id, so that every inference engine stops there.
    """
    end = eos_id(tokenizer)
    probe = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    last = render(tokenizer, probe, template).input_ids[-1]
    return [end] if last == end else [end, last]


def check_agreement(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], source: str) -> None:
    """Raises RenderError unless the tokens of the prompt are a prefix of the tokens trained on.

    A template that ignores add_generation_prompt, or renders earlier turns in another way once an answer follows, would
    train one thing and ask another. messages holds at least one turn of the assistant.
    """
    last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
    trained = render_batch(tokenizer, [messages[: last + 1]], source)[0].input_ids
    asked = render_prompts(tokenizer, [messages[:last]], source)[0] if last else []
    if trained[: len(asked)] != asked:
        raise RenderError(
            0,
            "the template renders a prompt (add_generation_prompt) that is not how the same conversation begins when "
            f"its answer follows: it ends in {tokenizer.decode(asked)[-60:]!r}; use another template, such as chatml",
        )


@dataclass(frozen=True)
class _Spans:
    """A rendered text and where its answers stand, as (start, end) in characters."""

    text: str
    answers: list[tuple[int, int]]

    def cut(self) -> list[Piece]:
        """The text as pieces."""
        pieces = []
        at = 0
        for start, end in self.answers:
            pieces += [(self.text[at:start], False), (self.text[start:end], True)]
            at = end
        pieces.append((self.text[at:], False))
        return [piece for piece in pieces if piece[0]]


class _Renderer:
    """One template on one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
        eos_id(tokenizer)
        self._source = source
        self._marks_answers = bool(_GENERATION_TAG.search(source))
        self._controls = control_tokens(tokenizer)
        self._names = dict(tokenizer.special_tokens_map)
        self._end: str = tokenizer.eos_token
        self._end_follows = re.compile(rf" *(?:{self._controls.pattern})")

    def training(self, index: int, messages: Sequence[Message]) -> list[Piece]:
        """The conversation through its last answer, which ends with a control token: the template's, or EOS."""
        try:
            spans = self._spans(self._shielded(messages))
        except _RENDER_ERRORS as error:
            raise RenderError(index, _explain(error)) from error
        if not spans.answers:
            return spans.cut()
        start, end = spans.answers[-1]
        text = spans.text[:end]
        if not self._ends(text[start:]):
            text += self._end
        return _Spans(text, [*spans.answers[:-1], (start, len(text))]).cut()

    def prompt(self, index: int, messages: Sequence[Message]) -> list[Piece]:
        """The conversation as it stands before an answer; earlier answers are pieces of their own as in training."""
        try:
            shielded = self._shielded(messages)
            text = self._apply(shielded, prompt=True).text
            answered = any(message["role"] == "assistant" for message in messages)
            return _Spans(text, self._spans(shielded).answers if answered else []).cut()
        except _RENDER_ERRORS as error:
            raise RenderError(index, _explain(error)) from error

    def _shielded(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        if not messages:
            raise ValueError("the conversation has no turns")
        return [
            {key: shield(value, self._controls) if isinstance(value, str) else value for key, value in message.items()}
            for message in messages
        ]

    def _apply(self, messages: list[dict[str, Any]], *, prompt: bool) -> _Spans:
        """What the template makes of the messages; answers only where it marks them and this is no prompt."""
        mask = self._marks_answers and not prompt
        texts, spans = render_jinja_template(
            [messages],
            chat_template=self._source,
            add_generation_prompt=prompt,
            return_assistant_tokens_mask=mask,
            **self._names,
        )
        return _Spans(texts[0], list(spans[0]) if mask else [])

    def _spans(self, messages: list[dict[str, Any]]) -> _Spans:
        """The whole text, and its answers, each through the control token that ends it."""
        rendered = self._apply(messages, prompt=False)
        answers = rendered.answers if self._marks_answers else self._answers_by_prefix(messages, rendered.text)
        limits = [*(start for start, _ in answers[1:]), len(rendered.text)]
        return _Spans(
            rendered.text,
            [
                (start, self._through_end(rendered.text, start, end, limit))
                for (start, end), limit in zip(answers, limits, strict=True)
            ],
        )

    def _answers_by_prefix(self, messages: list[dict[str, Any]], text: str) -> list[tuple[int, int]]:
        """Where answers stand in a template without `{% generation %}`: behind the prompt that comes before them."""
        answers = []
        for index, message in enumerate(messages):
            if message["role"] != "assistant" or index == 0:
                continue
            before = self._apply(messages[:index], prompt=True).text
            if not text.startswith(before):
                raise ValueError(
                    "it renders earlier turns in another way once a later one follows, so answers cannot be told "
                    "apart; mark them in it with {% generation %} … {% endgeneration %}, or use another, such as chatml"
                )
            content = message["content"].strip()
            found = text.find(content, len(before))
            if found < 0:
                raise ValueError("it leaves out or rewrites an answer; use another template, such as chatml")
            answers.append((len(before), found + len(content)))
        return answers

    def _through_end(self, text: str, start: int, end: int, limit: int) -> int:
        """Where an answer ends: behind the control token that ends it, within what was marked or right behind it."""
        within = [match.end() for match in self._controls.finditer(text, start, end)]
        if within and not text[within[-1] : end].strip():
            return within[-1]
        after = self._end_follows.match(text, end, limit)
        return after.end() if after else end

    def _ends(self, text: str) -> bool:
        return any(match.end() == len(text) for match in self._controls.finditer(text))


def _explain(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__


__all__ = [
    "BUILT_IN",
    "Message",
    "RenderError",
    "Rendered",
    "check_agreement",
    "encode_texts",
    "render",
    "render_batch",
    "render_prompt",
    "render_prompts",
    "resolve_template",
    "stop_token_ids",
]
