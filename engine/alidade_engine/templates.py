"""Conversations as token ids, with a mask of the tokens that the model answers with.

Training and inference share this module, and agree exactly: the tokens of a prompt are a prefix of the tokens of the same
prompt with its answer. Tokenizers whose pieces do not depend on what stands before them (byte-level BPE) encode prompt and
answer separately; the others (SentencePiece, which puts a space in front of every text) encode them together.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import jinja2
from alidade_crds.reasons import FailureReason
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from alidade_engine.failures import JobFailure

Message = Mapping[str, str]
"""role (system, user, assistant, tool) and content; the alpaca template also knows input."""

BUILT_IN = ("auto", "alpaca", "llama2", "chatml", "none")

# A turn of the assistant ends with the tokenizer's own end-of-sequence token, at which every inference engine stops.
_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# Stanford Alpaca (Taori et al. 2023), which knows one instruction with an optional input; further turns repeat its headings.
_ALPACA = (
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}"
    "{% elif messages[0]['input'] %}{{ 'Below is an instruction that describes a task, paired with an input that provides "
    "further context. Write a response that appropriately completes the request.' }}"
    "{% else %}{{ 'Below is an instruction that describes a task. Write a response that appropriately completes the "
    "request.' }}{% endif %}"
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ '\\n\\n### Response:\\n' }}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% elif message['role'] != 'system' %}{{ '\\n\\n### Instruction:\\n' + (message['instruction'] or message['content']) }}"
    "{% if message['input'] %}{{ '\\n\\n### Input:\\n' + message['input'] }}{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\n### Response:\\n' }}{% endif %}"
)

# Llama 2's chat format (Touvron et al. 2023, and its reference code): every turn begins with BOS and ends with EOS.
_LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endgeneration %}"
    "{% else %}{{ bos_token + '[INST] ' + (system if loop.first else '') + message['content'].strip() + ' [/INST]' }}"
    "{% endif %}{% endfor %}"
)

_NONE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
)

_GENERATION_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")
# A private-use sign that splits what a user wrote like a control token, so that it is encoded as the plain text it is.
_BREAK = "\U000f0000"


@dataclass(frozen=True)
class Rendered:
    """A conversation as tokens.

    input_ids: (tokens,) ids.
    answer_mask: (tokens,) True where the model is to produce the token: answers and the token that ends each of them.
    """

    input_ids: list[int]
    answer_mask: list[bool]


class RenderError(ValueError):
    """A conversation that its template cannot render; `index` is its place in the batch."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index
        self.message = message


@dataclass(frozen=True)
class _Spans:
    """A rendered text and where its answers stand, as (start, end) in characters."""

    text: str
    answers: list[tuple[int, int]]


def resolve_template(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    """The Jinja source of `dataset.template`: a built-in name, the tokenizer's own for auto (else chatml), or inline Jinja.

    Raises JobFailure(TemplateFailed) for an unknown name and for Jinja that does not parse.
    """
    name = template.strip()
    begins = "{{ bos_token }}" if adds_bos(tokenizer) else ""
    if name == "auto":
        own = tokenizer.chat_template
        if isinstance(own, dict):
            own = own.get("default")
        source = str(own) if own else begins + _CHATML
    elif name in BUILT_IN:
        source = {"alpaca": begins + _ALPACA, "llama2": _LLAMA2, "chatml": begins + _CHATML, "none": begins + _NONE}[name]
    elif "{" not in name:
        raise JobFailure(
            FailureReason.TEMPLATE_FAILED,
            f"dataset.template is {template!r}; write one of {', '.join(BUILT_IN)}, or a Jinja template over `messages`.",
        )
    else:
        source = template
    _check_syntax(source)
    return source


def _check_syntax(source: str) -> None:
    try:
        # `generation` is a tag of transformers' own; plain Jinja parses the rest.
        plain = re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "", source)
        jinja2.Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=False).parse(plain)  # noqa: S701
    except jinja2.TemplateSyntaxError as error:
        raise JobFailure(
            FailureReason.TEMPLATE_FAILED, f"dataset.template is not valid Jinja: line {error.lineno}: {error.message}."
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
    pieces: list[list[tuple[str, bool]]] = []
    for index, messages in enumerate(conversations):
        try:
            spans = _render_spans(tokenizer, messages, source)
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise RenderError(index, _explain(error)) from error
        pieces.append(_cut(spans))
    return _encode(tokenizer, pieces)


def render_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], template: str = "auto") -> list[int]:
    """The tokens after which the model answers the last message: a prefix of what `render` gives with the answer.

    Raises RenderError when the template cannot render it.
    """
    return render_prompts(tokenizer, [messages], resolve_template(tokenizer, template))[0]


def render_prompts(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Sequence[Message]], source: str
) -> list[list[int]]:
    """`render_prompt` for many conversations at once."""
    pieces: list[list[tuple[str, bool]]] = []
    for index, messages in enumerate(conversations):
        try:
            shielded = _shield(tokenizer, messages)
            text = _apply(tokenizer, shielded, source, prompt=True).text
            # Earlier answers are cut out as they are in training, so that they become the same tokens.
            earlier = _render_spans(tokenizer, messages, source).answers if _has_answer(messages) else []
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise RenderError(index, _explain(error)) from error
        pieces.append(_cut(_Spans(text, earlier)))
    return [rendered.input_ids for rendered in _encode(tokenizer, pieces)]


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Documents as tokens: BOS where the tokenizer puts one, the text, EOS."""
    begin = [int(tokenizer.bos_token_id)] if adds_bos(tokenizer) else []
    end = [_eos_id(tokenizer)]
    controls = _control_tokens(tokenizer)
    encoded = _encode(tokenizer, [[(_shield_text(text, controls), True)] for text in texts])
    return [begin + rendered.input_ids + end for rendered in encoded]


def stop_token_ids(tokenizer: PreTrainedTokenizerBase, template: str = "auto") -> list[int]:
    """Ids at which an answer has ended: EOS, and the control token that ends an answer in the template when it is another."""
    stops = [_eos_id(tokenizer)]
    probe = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    last = render(tokenizer, probe, template).input_ids[-1]
    return stops if last in stops else [*stops, last]


def check_agreement(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], source: str) -> None:
    """Raises RenderError unless the tokens of the prompt are a prefix of the tokens trained on.

    A template that ignores add_generation_prompt, or renders earlier turns in another way once an answer follows, would
    train one thing and ask another.
    """
    last = max(index for index, message in enumerate(messages) if message["role"] == "assistant")
    trained = render_batch(tokenizer, [messages[: last + 1]], source)[0].input_ids
    asked = render_prompts(tokenizer, [messages[:last]], source)[0]
    if trained[: len(asked)] != asked:
        raise RenderError(
            0,
            "the template renders a prompt (add_generation_prompt) that is not how the same conversation begins when "
            f"its answer follows: {tokenizer.decode(asked)[-80:]!r}",
        )


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer itself puts its BOS token before a text."""
    if tokenizer.bos_token_id is None:
        return False
    ids: list[int] = tokenizer("a")["input_ids"]
    return bool(ids) and ids[0] == tokenizer.bos_token_id


def _eos_id(tokenizer: PreTrainedTokenizerBase) -> int:
    if tokenizer.eos_token_id is None:
        raise JobFailure(
            FailureReason.MODEL_INVALID,
            "The tokenizer has no end-of-sequence token, so the model could not learn to stop; set eos_token in its "
            "tokenizer_config.json.",
        )
    return int(tokenizer.eos_token_id)


def _explain(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return f"KeyError {text}" if isinstance(error, KeyError) else text


def _has_answer(messages: Sequence[Message]) -> bool:
    return any(message["role"] == "assistant" for message in messages)


def _control_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    tokens = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    return _control_pattern(tuple(sorted({*tokens, *tokenizer.all_special_tokens}, key=lambda token: (-len(token), token))))


@lru_cache(maxsize=16)
def _control_pattern(tokens: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, tokens)) or "(?!)")


def _shield_text(text: str, controls: re.Pattern[str]) -> str:
    """The text with a break inside each control token in it: `</s>` written by a user must not end a sequence."""
    text = text.replace(_BREAK, "")
    if not controls.search(text):
        return text
    return controls.sub(lambda match: match[0][0] + _BREAK + match[0][1:], text)


def _shield(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[dict[str, Any]]:
    controls = _control_tokens(tokenizer)
    return [
        {key: _shield_text(value, controls) if isinstance(value, str) else value for key, value in message.items()}
        for message in messages
    ]


def _apply(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], source: str, *, prompt: bool = False
) -> _Spans:
    """What the template makes of the messages; spans only where it has `{% generation %}` and this is no prompt."""
    mask = not prompt and bool(_GENERATION_TAG.search(source))
    texts, spans = render_jinja_template(
        [messages],
        chat_template=source,
        add_generation_prompt=prompt,
        return_assistant_tokens_mask=mask,
        **tokenizer.special_tokens_map,
    )
    return _Spans(texts[0], list(spans[0]) if mask else [])


def _render_spans(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], source: str) -> _Spans:
    """The text up to the last answer's end token, and its answers, each through its end token."""
    _eos_id(tokenizer)
    shielded = _shield(tokenizer, messages)
    rendered = _apply(tokenizer, shielded, source)
    if not _GENERATION_TAG.search(source):
        rendered = _Spans(rendered.text, _answers_by_prefix(tokenizer, shielded, source, rendered.text))
    if not rendered.answers:
        return rendered
    controls = _control_tokens(tokenizer)
    limits = [start for start, _ in rendered.answers[1:]] + [len(rendered.text)]
    answers = [
        (start, _through_end_token(rendered.text, start, end, limit, controls))
        for (start, end), limit in zip(rendered.answers, limits, strict=True)
    ]
    start, end = answers[-1]
    text = rendered.text[:end]
    if not _ends_with(text[start:], controls):
        text += tokenizer.eos_token
    return _Spans(text, [*answers[:-1], (start, len(text))])


def _answers_by_prefix(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], source: str, text: str
) -> list[tuple[int, int]]:
    """Where answers stand in a template without `{% generation %}`: what a turn adds to the prompt before it."""
    answers = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant" or index == 0:
            continue
        before = _apply(tokenizer, messages[:index], source, prompt=True).text
        if not text.startswith(before):
            raise ValueError(
                "the template renders earlier turns differently once a later one follows, so the answers cannot be told "
                "apart; mark them in the template with {% generation %} … {% endgeneration %}"
            )
        content = message["content"].strip()
        found = text.find(content, len(before))
        if found < 0:
            raise ValueError("the template leaves out or rewrites the answer; mark it with {% generation %}")
        answers.append((len(before), found + len(content)))
    return answers


def _through_end_token(text: str, start: int, end: int, limit: int, controls: re.Pattern[str]) -> int:
    """The end of an answer, moved behind the control token that ends it when only white space is between."""
    if _ends_with(text[start:end], controls):
        return end
    after = re.compile(rf"\s*(?:{controls.pattern})").match(text, end, limit)
    return after.end() if after else end


def _ends_with(text: str, controls: re.Pattern[str]) -> bool:
    return any(match.end() == len(text) for match in controls.finditer(text))


def _cut(spans: _Spans) -> list[tuple[str, bool]]:
    """The text as pieces, each (text, whether it is an answer)."""
    pieces = []
    at = 0
    for start, end in spans.answers:
        pieces += [(spans.text[at:start], False), (spans.text[start:end], True)]
        at = end
    pieces.append((spans.text[at:], False))
    return [piece for piece in pieces if piece[0]]


def _encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Sequence[tuple[str, bool]]]) -> list[Rendered]:
    """Each text's pieces as tokens one after the other."""
    join = _encode_apart if _starts_alike(tokenizer) else _encode_together
    return join(tokenizer, texts)


def _starts_alike(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a word has the same tokens at the start of a text as behind a line break."""
    alone = _ids(tokenizer, ["word"])[0]
    behind = _ids(tokenizer, ["\nword"])[0]
    return behind[-len(alone) :] == alone


def _ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    if not texts:
        return []
    encoded: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)[
        "input_ids"
    ]
    return encoded


def _encode_apart(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Sequence[tuple[str, bool]]]) -> list[Rendered]:
    parts = [(part, answer) for pieces in texts for piece, answer in pieces for part in piece.split(_BREAK)]
    encoded = iter(_ids(tokenizer, [part for part, _ in parts]))
    rendered = []
    for pieces in texts:
        ids: list[int] = []
        mask: list[bool] = []
        for piece, answer in pieces:
            for _ in piece.split(_BREAK):
                part = next(encoded)
                ids += part
                mask += [answer] * len(part)
        rendered.append(Rendered(ids, mask))
    return rendered


def _encode_together(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Sequence[tuple[str, bool]]]) -> list[Rendered]:
    """Each text as a whole; where the tokens so far are not how the whole begins, the next piece is encoded behind them."""
    parts = [[(part, answer) for piece, answer in pieces for part in piece.split(_BREAK)] for pieces in texts]
    prefixes = iter(_ids(tokenizer, [prefix for pieces in parts for prefix in accumulate(part for part, _ in pieces)]))
    rendered = []
    for pieces in parts:
        ids: list[int] = []
        mask: list[bool] = []
        for part, answer in pieces:
            whole = next(prefixes)
            new = whole[len(ids) :] if whole[: len(ids)] == ids else _behind(tokenizer, part)
            ids += new
            mask += [answer] * len(new)
        rendered.append(Rendered(ids, mask))
    return rendered


def _behind(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The tokens of a text that does not stand at the start: those behind a line break, without the line break's."""
    before, whole = _ids(tokenizer, ["\n", "\n" + text])
    return whole[len(before) :] if whole[: len(before)] == before else _ids(tokenizer, [text])[0]
