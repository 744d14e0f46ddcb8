"""Shapes of records: LMFlow's types and the hub's usual column names, brought to four kinds of example."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from alidade_crds.blocks import DataFormat
from alidade_crds.reasons import FailureReason
from alidade_engine.data.records import Position, Record, kind_of
from alidade_engine.failures import JobFailure

Messages = list[dict[str, str]]
"""Turns, each {"role": system|user|assistant|tool, "content": text}."""


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text, every token of which is learned."""

    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns, of which the assistant's are learned."""

    messages: Messages


@dataclass(frozen=True, slots=True)
class Preference:
    """Answers to one prompt, the better with the higher score; strength is how far chosen and rejected are apart."""

    prompt: Messages
    answers: list[str]
    scores: list[float]
    strength: float | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """Turns that wait for an answer."""

    messages: Messages


Example = Text | Conversation | Preference | Prompt


class ShapeError(ValueError):
    """A record whose fields are not what its shape asks for; the message names the field."""


_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}


def _text(value: dict[str, Any], key: str) -> str:
    found = value.get(key)
    return _checked(found, f"`{key}`")


def _checked(found: Any, name: str) -> str:
    """A text that can be written as UTF-8, which JSON's escapes do not promise."""
    if not isinstance(found, str):
        raise ShapeError(f"{name} is {kind_of(found)}; it should be a text")
    try:
        found.encode()
    except UnicodeEncodeError as error:
        raise ShapeError(
            f"{name} holds half a character (\\u{ord(found[error.start]):04x}) at {error.start}"
        ) from error
    return found


def _optional_text(value: dict[str, Any], key: str) -> str:
    return "" if value.get(key) is None else _text(value, key)


def _turns(found: Any, key: str, role_key: str, text_key: str) -> Messages:
    if not isinstance(found, list) or not found:
        raise ShapeError(f"`{key}` is {kind_of(found) if found != [] else 'empty'}; it should be a list of turns")
    messages: Messages = []
    for number, turn in enumerate(found, 1):
        if not isinstance(turn, dict):
            raise ShapeError(f"`{key}`, turn {number} is {kind_of(turn)}; it should be an object")
        role = turn.get(role_key)
        if role not in _ROLES:
            raise ShapeError(
                f"`{key}`, turn {number}: `{role_key}` is {role!r}; it should be one of {', '.join(_ROLES)}"
            )
        content = _checked(turn.get(text_key), f"`{key}`, turn {number}: `{text_key}`")
        messages.append({"role": _ROLES[role], "content": content})
    return messages


def _chat(found: Any, key: str, system: str = "") -> Messages:
    """Turns in either of the two spellings, role/content or from/value."""
    first = found[0] if isinstance(found, list) and found else None
    spelled = ("from", "value") if isinstance(first, dict) and "from" in first else ("role", "content")
    messages = _turns(found, key, *spelled)
    if system and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    return messages


def _demonstration(prompt: str, answer: str) -> Conversation:
    return Conversation([{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}])


def _conversation(key: str) -> Callable[[dict[str, Any]], list[Example]]:
    def build(value: dict[str, Any]) -> list[Example]:
        messages = _chat(value.get(key), key, _optional_text(value, "system"))
        return [Conversation(messages) if any(m["role"] == "assistant" for m in messages) else Prompt(messages)]

    return build


def _pair(prompt_key: str, answer_key: str) -> Callable[[dict[str, Any]], list[Example]]:
    return lambda value: [_demonstration(_text(value, prompt_key), _text(value, answer_key))]


def _asked(instruction: str, further: str) -> dict[str, str]:
    """A user's turn of an instruction with an input; the alpaca template sets the two apart, others read content."""
    if not further:
        return {"role": "user", "content": instruction}
    return {"role": "user", "content": f"{instruction}\n\n{further}", "instruction": instruction, "input": further}


def _alpaca(value: dict[str, Any]) -> list[Example]:
    asked = _asked(_text(value, "instruction"), _optional_text(value, "input"))
    return [Conversation([asked, {"role": "assistant", "content": _text(value, "output")}])]


def _dolly(value: dict[str, Any]) -> list[Example]:
    return _alpaca(
        {"instruction": value.get("instruction"), "input": value.get("context"), "output": value.get("response")}
    )


def _self_instruct(value: dict[str, Any]) -> list[Example]:
    instances = value.get("instances")
    if not isinstance(instances, list):
        raise ShapeError(f"`instances` is {kind_of(instances)}; it should be a list")
    examples: list[Example] = []
    for number, instance in enumerate(instances, 1):
        if not isinstance(instance, dict):
            raise ShapeError(f"`instances`, number {number} is {kind_of(instance)}; it should be an object")
        examples += _alpaca({"instruction": value.get("instruction"), **instance})
    return examples


def _single_prompt(key: str) -> Callable[[dict[str, Any]], list[Example]]:
    return lambda value: [Prompt([{"role": "user", "content": _text(value, key)}])]


def _preference(value: dict[str, Any]) -> list[Example]:
    """chosen and rejected: texts after a prompt, conversations, or transcripts with `Human:` and `Assistant:`."""
    chosen, rejected = value.get("chosen"), value.get("rejected")
    strength = _number(value, "margin")
    if isinstance(chosen, dict) and isinstance(rejected, dict):
        chosen, rejected = chosen.get("messages"), rejected.get("messages")
    prompt_key = next(
        (key for key in ("prompt", "question", "instruction", "input") if value.get(key) is not None), None
    )
    if isinstance(chosen, str) and isinstance(rejected, str):
        chosen, rejected = _text(value, "chosen"), _text(value, "rejected")
        if prompt_key is not None:
            return [Preference(_prompt_turns(value, prompt_key), [chosen, rejected], [1.0, 0.0], strength)]
        return [_paired(_transcript(chosen, "chosen"), _transcript(rejected, "rejected"), strength)]
    system = _optional_text(value, "system")
    better, worse = _chat(chosen, "chosen", system), _chat(rejected, "rejected", system)
    if prompt_key is not None and better[0]["role"] == "assistant":
        prompt = _prompt_turns(value, prompt_key)
        better, worse = [*prompt, *better], [*prompt, *worse]
    return [_paired(better, worse, strength)]


def _prompt_turns(value: dict[str, Any], key: str) -> Messages:
    if isinstance(value[key], list):
        return _chat(value[key], key)
    return [{"role": "user", "content": _text(value, key)}]


def _paired(chosen: Messages, rejected: Messages, strength: float | None) -> Preference:
    if chosen[-1]["role"] != "assistant" or rejected[-1]["role"] != "assistant":
        raise ShapeError("`chosen` and `rejected` should both end with a turn of the assistant")
    if chosen[:-1] != rejected[:-1]:
        raise ShapeError("`chosen` and `rejected` differ before their last turn; they should answer the same prompt")
    return Preference(chosen[:-1], [chosen[-1]["content"], rejected[-1]["content"]], [1.0, 0.0], strength)


def _transcript(text: str, key: str) -> Messages:
    """Turns of a text such as `\\n\\nHuman: …\\n\\nAssistant: …` (Anthropic's hh-rlhf)."""
    messages: Messages = []
    for part in ("\n\n" + text.lstrip()).split("\n\nHuman:")[1:]:
        human, *answers = part.split("\n\nAssistant:")
        messages.append({"role": "user", "content": human.strip()})
        messages += [{"role": "assistant", "content": answer.strip()} for answer in answers]
    if not messages:
        raise ShapeError(f"there is no `prompt`, and `{key}` is no transcript with `Human:` and `Assistant:`")
    return messages


def _number(value: dict[str, Any], key: str) -> float | None:
    found = value.get(key)
    if found is None or found == "":
        return None
    try:
        return float(found)
    except (TypeError, ValueError):
        raise ShapeError(f"`{key}` is {found!r}; it should be a number") from None


def _ranked(value: dict[str, Any]) -> list[Example]:
    """Answers best first."""
    answers = [_checked(answer, f"`output`, number {number}") for number, answer in enumerate(value["output"], 1)]
    scores = [float(len(answers) - place) for place in range(len(answers))]
    return [Preference(_prompt_turns(value, "input"), answers, scores)]


def _scored(value: dict[str, Any]) -> list[Example]:
    answers, scores = [], []
    for number, answer in enumerate(value["output"], 1):
        if not isinstance(answer, dict):
            raise ShapeError(f"`output`, number {number} is {kind_of(answer)}; it should have `score` and `text`")
        score = _number(answer, "score")
        if score is None:
            raise ShapeError(f"`output`, number {number} has no `score`")
        answers.append(_text(answer, "text"))
        scores.append(score)
    return [Preference(_prompt_turns(value, "input"), answers, scores)]


def _is_list(value: dict[str, Any], key: str) -> bool:
    return isinstance(value.get(key), list)


@dataclass(frozen=True)
class Shape:
    """How records of one shape are told and read; `fields` is what messages show."""

    name: str
    fields: str
    fits: Callable[[dict[str, Any]], bool]
    build: Callable[[dict[str, Any]], list[Example]]
    formats: tuple[DataFormat, ...]


def _has(*keys: str) -> Callable[[dict[str, Any]], bool]:
    return lambda value: all(value.get(key) is not None for key in keys)


_PREFERENCES = (DataFormat.PREFERENCE, DataFormat.PAIRED_CONVERSATION)
_PAIRS = (DataFormat.TEXT2TEXT,)
_F = DataFormat

# In the order in which they are tried: what is more particular first.
SHAPES = (
    Shape("preference", "prompt, chosen, rejected", _has("chosen", "rejected"), _preference, _PREFERENCES),
    Shape("conversation", "messages", _has("messages"), _conversation("messages"), (_F.CONVERSATION,)),
    Shape("sharegpt", "conversations", _has("conversations"), _conversation("conversations"), (_F.CONVERSATION,)),
    Shape("self_instruct", "instruction, instances", _has("instruction", "instances"), _self_instruct, _PAIRS),
    Shape("alpaca", "instruction, input, output", _has("instruction", "output"), _alpaca, _PAIRS),
    Shape(
        "text_to_scored_textlist",
        "input, output[{score, text}]",
        lambda value: _is_list(value, "output") and bool(value["output"]) and isinstance(value["output"][0], dict),
        _scored,
        (_F.PREFERENCE,),
    ),
    Shape("text_to_textlist", "input, output[]", lambda value: _is_list(value, "output"), _ranked, (_F.PREFERENCE,)),
    Shape("text2text", "input, output", _has("input", "output"), _pair("input", "output"), _PAIRS),
    Shape(
        "prompt_completion", "prompt, completion", _has("prompt", "completion"), _pair("prompt", "completion"), _PAIRS
    ),
    Shape("prompt_response", "prompt, response", _has("prompt", "response"), _pair("prompt", "response"), _PAIRS),
    Shape("dolly", "instruction, context, response", _has("instruction", "response"), _dolly, _PAIRS),
    Shape("question_answer", "question, answer", _has("question", "answer"), _pair("question", "answer"), _PAIRS),
    Shape("text_only", "text", _has("text"), lambda value: [Text(_text(value, "text"))], (_F.TEXT_ONLY,)),
    *(
        Shape(f"prompt_{key}", key, _has(key), _single_prompt(key), (_F.PROMPTS,))
        for key in ("prompt", "input", "question", "instruction")
    ),
)

# LMFlow's `type` to the shape that reads its instances.
_BY_NAME = {shape.name: shape for shape in SHAPES}
LMFLOW_TYPES = {
    "text_only": _BY_NAME["text_only"],
    "text2text": _BY_NAME["text2text"],
    "conversation": _BY_NAME["conversation"],
    "paired_conversation": _BY_NAME["preference"],
    "paired_text_to_text": _BY_NAME["preference"],
    "text_to_textlist": _BY_NAME["text_to_textlist"],
    "text_to_scored_textlist": _BY_NAME["text_to_scored_textlist"],
}


def recognise(record: Record, wanted: DataFormat = DataFormat.AUTO) -> Shape:
    """The shape of a record: the one its LMFlow file declares, else the first that its fields fit.

    Raises JobFailure(DataMalformed) when none fits, or another than `dataset.format` asks for.
    """
    shape = _declared(record) if record.declared is not None else _guessed(record)
    if wanted is DataFormat.PROMPTS or wanted is DataFormat.AUTO or wanted in shape.formats:
        return shape
    raise JobFailure(
        FailureReason.DATA_MALFORMED,
        f"{record.position} is of shape {shape.name} ({shape.fields}), but dataset.format is {wanted.value}; "
        "set dataset.format: auto, or name the other file.",
    )


def _declared(record: Record) -> Shape:
    shape = LMFLOW_TYPES.get(record.declared or "")
    if shape is None:
        raise JobFailure(
            FailureReason.DATA_MALFORMED,
            f"{record.position.file} has the type {record.declared!r}; types read are {', '.join(LMFLOW_TYPES)}.",
        )
    return shape


def _guessed(record: Record) -> Shape:
    for shape in SHAPES:
        if shape.fits(record.value):
            return shape
    known = "; ".join(shape.fields for shape in SHAPES)
    found = ", ".join(list(record.value)[:8]) or "none"
    raise JobFailure(
        FailureReason.DATA_MALFORMED,
        f"{record.position} has the fields {found}, which is no shape known here. Shapes known: {known}.",
    )


def read_examples(
    records: Iterator[Record], wanted: DataFormat = DataFormat.AUTO
) -> Iterator[tuple[Example, Position]]:
    """Each record's examples, with its place; all records are of the first one's shape.

    Raises JobFailure(DataMalformed) naming file and line for a record that is of another shape or lacks a field.
    """
    first: Shape | None = None
    for record in records:
        if first is None:
            first = recognise(record, wanted)
        shape = first if record.declared is None and first.fits(record.value) else recognise(record, wanted)
        if shape.name != first.name:
            raise JobFailure(
                FailureReason.DATA_MALFORMED,
                f"{record.position} is of shape {shape.name} ({shape.fields}), the records before it {first.name} "
                f"({first.fields}); a dataset has one shape.",
            )
        try:
            examples = shape.build(record.value)
        except ShapeError as error:
            raise JobFailure(FailureReason.DATA_MALFORMED, f"{record.position}: {error}.") from error
        for example in examples:
            yield (as_prompt(example, record.position) if wanted is DataFormat.PROMPTS else example), record.position


def as_prompt(example: Example, position: Position) -> Prompt:
    """What is asked in an example, without its answers."""
    if isinstance(example, Prompt):
        return example
    if isinstance(example, Preference):
        return Prompt(example.prompt)
    if isinstance(example, Text):
        return Prompt([{"role": "user", "content": example.text}])
    last = max(index for index, message in enumerate(example.messages) if message["role"] == "assistant")
    if last == 0:
        raise JobFailure(FailureReason.DATA_MALFORMED, f"{position}: nothing is asked before the answer.")
    return Prompt(example.messages[:last])
