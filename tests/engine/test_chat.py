"""The command `alidade-chat`."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from alidade_engine.chat import main
from alidade_engine.sampling import generate


@pytest.fixture
def folder(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    path = tmp_path / "model"
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_each_prompt_is_answered_as_json(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--model", str(folder), "--prompt", "hello", "--prompt", "中国", "--max-new-tokens", "4", "--json"]
    assert main(command) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = generate(model, tokenizer, ["hello", "中国"], max_new_tokens=4)
    assert [answer["answer"] for answer in answers] == [answer.text for answer in expected]
    assert [answer["prompt"] for answer in answers] == ["hello", "中国"]
    assert answers[0]["answerTokens"] == len(expected[0].token_ids)


def test_a_conversation_goes_on_until_the_input_ends(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n\nand you?\n"))
    assert main(["--model", str(folder), "--max-new-tokens", "4", "--system", "Be brief."]) == 0
    turns = [{"role": "system", "content": "Be brief."}]
    printed = ""
    for question in ("hello", "and you?"):
        turns.append({"role": "user", "content": question})
        (answer,) = generate(model, tokenizer, [turns], max_new_tokens=4)
        turns.append({"role": "assistant", "content": answer.text})
        printed += answer.text.removesuffix("\ufffd") + "\n"
    assert capsys.readouterr().out.replace("\ufffd", "") == printed.replace("\ufffd", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "/nowhere", "--prompt", "x"], "alidade-chat: --model: /nowhere has no tokenizer"),
        (["--prompt", "x" * 600], "alidade-chat: prompt 1 has .* tokens; the model's context is 128"),
    ],
)
def test_what_cannot_be_answered_is_said_in_one_line(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments if "--model" in arguments else ["--model", str(folder), *arguments]
    assert main(given) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(message, line)


def test_a_mistake_in_the_arguments_is_answered_without_loading_torch() -> None:
    code = (
        "import sys, alidade_engine.chat as chat\n"
        "try: chat.main(['--model', 'x', '--temperature', '-1'])\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2 False"
    assert "--temperature: -1 is below 0" in done.stderr
