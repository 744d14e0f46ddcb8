import json
import os
from pathlib import Path
from types import ModuleType

import pytest

BLOCK = (
    "<question id=1>\t《线性代数》这本书的出版时间是什么？\r\n"
    "<triple id=1>\t线性代数 ||| 出版时间 ||| 2013-12-30\r\n"
    "<answer id=1>\t2013-12-30\r\n"
    "==================================================\r\n"
)
NO_ANSWER = (
    "<question id=2>\t白藤江之战有多少伤亡与损失？\n<triple id=2>\t白藤江之战 ||| 伤亡与损失 ||| \n<answer id=2>\t\n"
    "==================================================\n"
)
NO_SUBJECT = "<question id=3>\t 日语里怎么写？\n<triple id=3>\t ||| • 日语 ||| カーヤ\n<answer id=3>\tカーヤ\n"
SHARED = Path(os.environ.get("ALIDADE_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
CORPUS = SHARED / "nlpcc2016_kbqa"


def entries(nlpcc: ModuleType, text: str) -> list[object]:
    return list(nlpcc.read_entries(text.split("\n")))


def test_a_block_becomes_question_triple_and_answer(nlpcc: ModuleType) -> None:
    assert entries(nlpcc, BLOCK) == [
        nlpcc.Entry(1, "《线性代数》这本书的出版时间是什么？", "线性代数", "出版时间", "2013-12-30", "2013-12-30")
    ]


def test_blank_lines_a_byte_order_mark_and_a_missing_last_separator_do_no_harm(nlpcc: ModuleType) -> None:
    found = entries(nlpcc, "\ufeff" + BLOCK + "\n\r\n" + NO_SUBJECT)
    assert [entry.id for entry in found] == [1, 3]


def test_list_marks_and_no_break_spaces_are_taken_off(nlpcc: ModuleType) -> None:
    text = "<question id=7>\t东区的\u00a0密度？\n<triple id=7>\t东区 ||| •\u00a0 密度 ||| 2,300\n<answer id=7>\t2,300\n"
    [entry] = entries(nlpcc, text)
    assert (entry.question, entry.predicate) == ("东区的 密度？", "密度")


def test_an_object_keeps_bars_of_its_own(nlpcc: ModuleType) -> None:
    [entry] = entries(nlpcc, "<question id=1>\tq\n<triple id=1>\ta ||| b ||| c ||| d\n<answer id=1>\tc ||| d\n")
    assert entry.object == "c ||| d"


def test_what_is_incomplete_is_read_but_not_converted(nlpcc: ModuleType) -> None:
    complete, no_answer, no_subject = entries(nlpcc, BLOCK + NO_ANSWER + NO_SUBJECT)
    assert nlpcc.text2text(complete) == {"input": "《线性代数》这本书的出版时间是什么？", "output": "2013-12-30"}
    assert nlpcc.text_only(complete) == {"text": "线性代数的出版时间是2013-12-30。"}
    assert nlpcc.text2text(no_answer) is None
    assert nlpcc.text_only(no_answer) is None
    assert nlpcc.text2text(no_subject) == {"input": "日语里怎么写？", "output": "カーヤ"}
    assert nlpcc.text_only(no_subject) is None


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (
            BLOCK + "hello\n",
            5,
            "line 5: expected <question id=N>, <triple id=N>, <answer id=N> or a line of '=', found 'hello'",
        ),
        (BLOCK + "<question id=2>\tq\n====\n", 6, "line 6: the block that ends here has no <triple>, <answer> line"),
        (BLOCK + "<question id=2>\tq\n<answer id=2>\ta\n", 8, "line 8: the block that ends here has no <triple> line"),
        (
            "<question id=1>\tq\n<question id=2>\tq\n",
            2,
            "line 2: a second <question> in one block; the first is in line 1. "
            "Is the line of '=' between two blocks missing?",
        ),
        (
            "<question id=1>\tq\n<triple id=2>\ta ||| b ||| c\n",
            2,
            "line 2: <triple> has id 2, but <question> in line 1 has id 1",
        ),
        (
            "<question id=1>\tq\n<triple id=1>\ta ||| b\n<answer id=1>\tc\n",
            2,
            "line 2: a triple is 'subject ||| predicate ||| object', found 'a ||| b'",
        ),
        ("<question id=1>\t \n<triple id=1>\ta ||| b ||| c\n<answer id=1>\tc\n", 1, "line 1: the question is empty"),
        ("====\n", 1, "line 1: the block that ends here has no <question>, <triple>, <answer> line"),
    ],
)
def test_a_broken_block_is_named_with_its_line(nlpcc: ModuleType, text: str, line: int, message: str) -> None:
    with pytest.raises(nlpcc.FormatError) as error:
        entries(nlpcc, text)
    assert str(error.value) == message
    assert error.value.line == line


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            [],
            {
                "type": "text2text",
                "instances": [
                    {"input": "《线性代数》这本书的出版时间是什么？", "output": "2013-12-30"},
                    {"input": "日语里怎么写？", "output": "カーヤ"},
                ],
            },
        ),
        (["--format", "text_only"], {"type": "text_only", "instances": [{"text": "线性代数的出版时间是2013-12-30。"}]}),
        (
            ["--limit", "1"],
            {
                "type": "text2text",
                "instances": [
                    {"input": "《线性代数》这本书的出版时间是什么？", "output": "2013-12-30"},
                ],
            },
        ),
    ],
)
def test_the_command_writes_lmflow_json(
    nlpcc: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    expected: dict[str, object],
) -> None:
    source, output = tmp_path / "train.txt", tmp_path / "out.json"
    source.write_bytes((BLOCK + NO_ANSWER + NO_SUBJECT).encode())
    assert nlpcc.main([str(source), "--output", str(output), *flags]) == 0
    assert json.loads(output.read_text(encoding="utf-8")) == expected
    assert f"{len(expected['instances'])} instances" in capsys.readouterr().out


def test_the_command_says_what_is_wrong_and_where(
    nlpcc: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, foreign, output = tmp_path / "broken.txt", tmp_path / "gbk.txt", tmp_path / "out.json"
    broken.write_text(BLOCK + "hello\n", encoding="utf-8")
    foreign.write_bytes(BLOCK.encode("gbk"))
    for source, reason in (
        (broken, "line 5: expected"),
        (foreign, "is not UTF-8"),
        (tmp_path / "none.txt", "No such file"),
    ):
        assert nlpcc.main([str(source), "--output", str(output)]) == 1
        message = capsys.readouterr().err
        assert str(source) in message
        assert reason in message
    assert not output.exists()


def test_a_limit_below_one_is_refused(nlpcc: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        nlpcc.main(["x.txt", "--output", str(tmp_path / "out.json"), "--limit", "0"])
    assert stop.value.code == 2
    assert "--limit is 0; it must be at least 1" in capsys.readouterr().err


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"the NLPCC-2016 KBQA files are not at {CORPUS} (ALIDADE_SHARED_DATA)")
@pytest.mark.parametrize(
    ("name", "questions", "answered", "whole_triples"),
    [("train.txt", 14609, 14608, 14607), ("test.txt", 9870, 9870, 9870)],
)
def test_the_published_files_are_read_whole(
    nlpcc: ModuleType, name: str, questions: int, answered: int, whole_triples: int
) -> None:
    found = list(nlpcc.read_file(CORPUS / name))
    assert [entry.id for entry in found] == list(range(1, questions + 1))
    assert sum(nlpcc.text2text(entry) is not None for entry in found) == answered
    assert sum(nlpcc.text_only(entry) is not None for entry in found) == whole_triples
