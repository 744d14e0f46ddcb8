"""docs/reference/data-formats.md: what it shows is what is read and said."""

import re
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from alidade_crds.blocks import DataFormat
from alidade_engine.data.formats import LMFLOW_TYPES, SHAPES, Conversation, Preference, Prompt, Text, read_examples
from alidade_engine.data.records import HELD_OUT_NAMES, SUFFIXES, find_files, read_files
from alidade_engine.templates import BUILT_IN, render
from alidade_trainer.failures import JobFailure

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "data-formats.md").read_text("utf-8")
KINDS = {"Demonstrations": Conversation, "Plain text": Text, "Preferences": Preference, "Prompts": Prompt}


def blocks(section: str) -> list[tuple[str, str]]:
    """Each fenced block of a section: the word behind its language, and its content."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"```\w+ title=\"(\S+)\"\n(.*?)```", text, re.DOTALL)


EXAMPLES = [(section, name, content) for section in KINDS for name, content in blocks(section)]


@pytest.mark.parametrize(("section", "name", "content"), EXAMPLES)
def test_every_example_is_read_as_its_section_says(tmp_path: Path, section: str, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    examples = [example for example, _ in read_examples(read_files(find_files(tmp_path / name)))]
    assert examples
    assert {type(example) for example in examples} == {KINDS[section]}


def test_every_shape_has_an_example_and_every_type_and_format_a_mention() -> None:
    shown = "".join(content for _, _, content in EXAMPLES)
    for shape in SHAPES:
        for field in re.findall(r"\w+", shape.fields):
            assert f'"{field}"' in shown or f"`{field}`" in PAGE or field in shown, (
                f"{shape.name}: {field} is not shown"
            )
    for name in [*LMFLOW_TYPES, *SUFFIXES, *HELD_OUT_NAMES, *(form.value for form in DataFormat)]:
        assert f"`{name}`" in PAGE or f'"type": "{name}"' in PAGE or f": {name}`" in PAGE, f"{name} is not mentioned"


def test_every_template_is_shown_as_it_renders(tokenizer: PreTrainedTokenizerFast) -> None:
    shown = dict(blocks("Templates"))
    assert {*shown, "auto"} == set(BUILT_IN)
    messages = [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris"},
    ]
    for name, text in shown.items():
        assert tokenizer.decode(render(tokenizer, messages, name).input_ids) == text.removesuffix("\n")


ROWS = re.findall(r"^\| `(.*?)` in line 1 \| `+(.*?)`+ \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("line", "message"), ROWS)
def test_every_sentence_shown_is_the_one_that_is_said(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "train.jsonl").write_text(line, "utf-8")
    with pytest.raises(JobFailure) as caught:
        list(read_examples(read_files(find_files(tmp_path / "train.jsonl"))))
    assert caught.value.message == message


def test_the_page_has_examples_and_sentences_to_check() -> None:
    assert len(EXAMPLES) == len(re.findall(r"```(?:json|jsonl|csv) ", PAGE))
    assert len(ROWS) == 4
