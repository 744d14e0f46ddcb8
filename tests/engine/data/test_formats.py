"""Shapes of records: recognised, read, and refused with what was found and what is known."""

from typing import Any

import pytest

from alidade_crds.blocks import DataFormat
from alidade_crds.reasons import FailureReason
from alidade_engine.data.formats import (
    LMFLOW_TYPES,
    SHAPES,
    Conversation,
    Example,
    Preference,
    Prompt,
    Text,
    read_examples,
)
from alidade_engine.data.records import Position, Record
from alidade_engine.failures import JobFailure


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "s"}
ASKED = Conversation([user("q"), assistant("a")])
PAIR = Preference([user("q")], ["good", "bad"], [1.0, 0.0])


def records(*values: dict[str, Any], declared: str | None = None) -> list[Record]:
    return [Record(value, Position("f.jsonl", "line", number), declared) for number, value in enumerate(values, 1)]


def read(*values: dict[str, Any], declared: str | None = None, wanted: str = "auto") -> list[Example]:
    found = read_examples(iter(records(*values, declared=declared)), DataFormat(wanted))
    return [example for example, _ in found]


@pytest.mark.parametrize(
    ("declared", "value", "example"),
    [
        ("text_only", {"text": "t"}, Text("t")),
        ("text2text", {"input": "q", "output": "a"}, ASKED),
        ("conversation", {"messages": ASKED.messages}, ASKED),
        (
            "conversation",
            {"conversation_id": 1, "system": "s", "tools": [], "messages": ASKED.messages},
            Conversation([SYSTEM, *ASKED.messages]),
        ),
        (
            "paired_conversation",
            {
                "chosen": {"messages": [user("q"), assistant("good")]},
                "rejected": {"messages": [user("q"), assistant("bad")]},
            },
            PAIR,
        ),
        ("paired_text_to_text", {"prompt": "q", "chosen": "good", "rejected": "bad"}, PAIR),
        (
            "paired_text_to_text",
            {"prompt": "q", "chosen": "good", "rejected": "bad", "margin": 0.5},
            Preference([user("q")], ["good", "bad"], [1.0, 0.0], 0.5),
        ),
        ("text_to_textlist", {"input": "q", "output": ["x", "y"]}, Preference([user("q")], ["x", "y"], [2.0, 1.0])),
        (
            "text_to_scored_textlist",
            {"input": "q", "output": [{"score": 0.0, "text": "x"}, {"score": 1, "text": "y"}]},
            Preference([user("q")], ["x", "y"], [0.0, 1.0]),
        ),
    ],
)
def test_lmflow_types_are_read_as_declared_and_as_recognised(
    declared: str, value: dict[str, Any], example: Example
) -> None:
    assert read(value, declared=declared) == [example]
    assert read(value) == [example]


def test_every_lmflow_type_of_text_is_known() -> None:
    assert set(LMFLOW_TYPES) == {
        "text_only",
        "text2text",
        "conversation",
        "paired_conversation",
        "paired_text_to_text",
        "text_to_textlist",
        "text_to_scored_textlist",
    }


@pytest.mark.parametrize(
    ("value", "example"),
    [
        ({"instruction": "q", "input": "", "output": "a"}, ASKED),
        ({"instruction": "q", "output": "a", "text": "Below is …"}, ASKED),
        (
            {"instruction": "i", "input": "x", "output": "a"},
            Conversation([user("i\n\nx") | {"instruction": "i", "input": "x"}, assistant("a")]),
        ),
        ({"messages": [SYSTEM, user("q"), assistant("a")]}, Conversation([SYSTEM, user("q"), assistant("a")])),
        ({"messages": [user("q")]}, Prompt([user("q")])),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"},
            Conversation([SYSTEM, user("q"), assistant("a")]),
        ),
        ({"conversations": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, ASKED),
        ({"prompt": "q", "completion": "a"}, ASKED),
        ({"prompt": "q", "response": "a"}, ASKED),
        ({"instruction": "q", "context": "", "response": "a"}, ASKED),
        ({"question": "q", "answer": "a"}, ASKED),
        ({"input": "q", "output": "a"}, ASKED),
        ({"text": "t", "source": "book"}, Text("t")),
        ({"question": "q", "chosen": "good", "rejected": "bad"}, PAIR),
        (
            {"prompt": [user("q")], "chosen": [assistant("good")], "rejected": [assistant("bad")]},
            PAIR,
        ),
        ({"chosen": [user("q"), assistant("good")], "rejected": [user("q"), assistant("bad")]}, PAIR),
        ({"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": "\n\nHuman: q\n\nAssistant: bad"}, PAIR),
        ({"prompt": "q"}, Prompt([user("q")])),
        ({"question": "q"}, Prompt([user("q")])),
    ],
)
def test_the_hubs_usual_columns_are_recognised(value: dict[str, Any], example: Example) -> None:
    assert read(value) == [example]


def test_alpacas_columns_with_a_context_keep_it() -> None:
    """Dolly's `context` is what alpaca calls input."""
    (example,) = read({"instruction": "i", "context": "x", "response": "a"})
    assert isinstance(example, Conversation)
    assert example.messages[0]["content"] == "i\n\nx"


def test_a_self_instruct_task_is_as_many_demonstrations_as_it_has_instances() -> None:
    instances = [{"input": "", "output": "a"}, {"input": "x", "output": "b"}]
    first, second = read({"id": "seed_task_0", "instruction": "q", "instances": instances})
    assert first == ASKED
    assert isinstance(second, Conversation)
    assert second.messages[0]["input"] == "x"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"foo": 1, "bar": 2},
            r"f.jsonl, line 1 has the fields foo, bar, which is no shape known here. Shapes known: prompt,",
        ),
        ({}, "f.jsonl, line 1 has the fields none"),
        ({"input": "q", "output": 3}, "f.jsonl, line 1: `output` is a number; it should be a text."),
        ({"messages": "q"}, "f.jsonl, line 1: `messages` is a text; it should be a list of turns."),
        ({"messages": []}, "f.jsonl, line 1: `messages` is empty; it should be a list of turns."),
        (
            {"messages": [{"role": "robot", "content": "x"}]},
            "f.jsonl, line 1: `messages`, turn 1: `role` is 'robot'; it",
        ),
        ({"messages": [user("q"), {"role": "assistant"}]}, "f.jsonl, line 1: `messages`, turn 2: `content` is null"),
        ({"text": "ab\ud83d"}, "f.jsonl, line 1: `text` holds half a character (\\ud83d) at 2."),
        (
            {"messages": [user("\udc00")]},
            "f.jsonl, line 1: `messages`, turn 1: `content` holds half a character (\\udc00) at 0.",
        ),
        ({"messages": ["q"]}, "f.jsonl, line 1: `messages`, turn 1 is a text; it should be an object."),
        ({"instruction": "i", "instances": [3]}, "f.jsonl, line 1: `instances`, number 1 is a number"),
        (
            {"prompt": "q", "chosen": "a", "rejected": "b", "margin": "x"},
            "f.jsonl, line 1: `margin` is 'x'; it should be a",
        ),
        ({"chosen": "a", "rejected": "b"}, "f.jsonl, line 1: there is no `prompt`, and `chosen` is no transcript"),
        (
            {"chosen": [user("q"), assistant("a")], "rejected": [user("p"), assistant("b")]},
            "f.jsonl, line 1: `chosen` and `rejected` differ before their last turn",
        ),
        ({"input": "q", "output": [{"text": "x"}]}, "f.jsonl, line 1: `output`, number 1 has no `score`."),
        ({"input": "q", "output": ["x", 1]}, "f.jsonl, line 1: `output`, number 2 is a number; it should be a text."),
    ],
)
def test_a_record_of_no_use_is_named_with_its_line_and_field(value: dict[str, Any], message: str) -> None:
    with pytest.raises(JobFailure) as caught:
        read(value)
    assert caught.value.message.startswith(message)
    assert caught.value.reason is FailureReason.DATA_MALFORMED


def test_records_of_two_shapes_are_refused_at_the_first_that_differs() -> None:
    with pytest.raises(JobFailure) as caught:
        read({"input": "q", "output": "a"}, {"input": "q", "output": "a"}, {"text": "t"})
    assert caught.value.message == (
        "f.jsonl, line 3 is of shape text_only (text), the records before it text2text (input, output); a dataset has "
        "one shape."
    )


def test_an_unknown_lmflow_type_is_refused_with_those_known() -> None:
    with pytest.raises(JobFailure, match=r"f.jsonl has the type 'image_text'; types read are text_only, text2text"):
        read({"images": []}, declared="image_text")


def test_another_format_than_asked_for_is_refused() -> None:
    with pytest.raises(JobFailure, match=r"line 1 is of shape text_only \(text\), but dataset.format is text2text"):
        read({"text": "t"}, wanted="text2text")
    assert read({"instruction": "q", "output": "a"}, wanted="text2text") == [ASKED]


@pytest.mark.parametrize(
    "value",
    [
        {"input": "q", "output": "a"},
        {"messages": [user("q"), assistant("a")]},
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"prompt": "q"},
        {"text": "q"},
    ],
)
def test_prompts_are_what_is_asked_in_any_shape(value: dict[str, Any]) -> None:
    assert read(value, wanted="prompts") == [Prompt([user("q")])]


def test_every_shape_belongs_to_a_format_users_can_name() -> None:
    named = {form for shape in SHAPES for form in shape.formats}
    assert named == set(DataFormat) - {DataFormat.AUTO}
