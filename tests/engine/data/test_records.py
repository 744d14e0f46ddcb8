"""Reading files of records: what is read, and the sentence for everything that cannot be."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from alidade_crds.reasons import FailureReason
from alidade_engine.data import records as reading
from alidade_engine.data.records import find_files, read_files
from alidade_engine.failures import JobFailure

RECORDS = [{"input": "1+1?", "output": "2"}, {"input": "中国的首都？", "output": "北京"}]


def values(path: Path) -> list[dict[str, Any]]:
    return [record.value for record in read_files(find_files(path))]


def write_parquet(path: Path, records: list[dict[str, Any]]) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps({"type": "text2text", "instances": RECORDS})),
        ("b.json", json.dumps(RECORDS, indent=1, ensure_ascii=False)),
        ("c.json", json.dumps({"data": RECORDS})),
        ("lines.json", "\n".join(json.dumps(record) for record in RECORDS)),
        ("d.jsonl", "\n\n".join(json.dumps(record) for record in RECORDS) + "\n"),
        ("mark.jsonl", "\ufeff" + "\n".join(json.dumps(record) for record in RECORDS)),
        ("one.json", "[" + json.dumps(RECORDS[0]) + "]"),
        ("e.csv", "input,output\n1+1?,2\n中国的首都？,北京\n"),
        ("E.JSONL", json.dumps(RECORDS[0])),
    ],
)
def test_each_kind_of_file_is_read(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    assert values(tmp_path / name) == RECORDS[: 1 if name in ("one.json", "E.JSONL") else 2]
    if not name.endswith(".JSONL"):
        packed = tmp_path / "packed" / f"{name}.gz"
        packed.parent.mkdir()
        packed.write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        assert values(packed) == values(tmp_path / name)


def test_zstandard_is_read(tmp_path: Path) -> None:
    with pyarrow.output_stream(str(tmp_path / "a.jsonl.zst"), compression="zstd") as opened:
        opened.write("\n".join(map(json.dumps, RECORDS)).encode())
    assert values(tmp_path / "a.jsonl.zst") == RECORDS


@pytest.mark.parametrize(
    "content",
    [
        '{\n"type": "text2text", "note": {"by": ["me"], "type": "no"}, "instances": [{"input": "a", "output": "b"}]}',
        '{"instances": [{"input": "a", "output": "b"}, {"input": "1", "output": "2"}], "type": "text2text"}',
        '\ufeff[{"input": "a", "output": "b", "strength": 1.5, "whole": 3, "turns": [{"x": null}]}]',
        '{"data": [{"text": "一"}]}',
    ],
)
def test_a_large_file_of_json_is_read_record_by_record_as_a_small_one_is_at_once(
    tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.json").write_text(content, "utf-8")
    whole = list(read_files(find_files(tmp_path / "a.json")))
    monkeypatch.setattr(reading, "_READ_WHOLE", 8)
    assert list(read_files(find_files(tmp_path / "a.json"))) == whole
    assert repr(whole[0].value) == repr(values(tmp_path / "a.json")[0])  # 3 and not 3.0


def test_a_mistake_in_a_large_file_of_json_is_said_like_that_of_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_READ_WHOLE", 4)
    path = tmp_path / "a.json"
    for content, message in (
        ("7777777", "a.json holds a number; it should hold a list of records"),
        ('{"rows": [],\n"x": 1}', "a.json is one object with the keys rows, x; it should be"),
        ('{"instances": [{}]}', 'a.json has "instances" but no "type"'),
        ('[{"text": "x"}, 3]', "a.json, instance 2 is a number; a record is an object"),
        ('[{"text": "x"}, {"te', "a.json is not JSON: "),
        ('[{"text": ' + "9" * 5000 + "}]", "a.json is not JSON: parse error: integer overflow."),
        ('{"data": ' + "[" * 600, "a.json nests too deeply"),
        ('[{"text": ' + "[" * 600, "a.json nests too deeply"),
    ):
        path.write_text(content)
        with pytest.raises(JobFailure) as caught:
            values(path)
        assert caught.value.message.startswith(message)


def write_arrow(path: Path, records: list[dict[str, Any]], *, stream: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(records)
    new = pyarrow.ipc.new_stream if stream else pyarrow.ipc.new_file
    with new(str(path), table.schema) as writer:
        writer.write_table(table)


def test_what_datasets_saves_to_disk_is_read_and_its_caches_are_not(tmp_path: Path) -> None:
    for split, record in (("train", RECORDS[0]), ("test", RECORDS[1])):
        write_arrow(tmp_path / split / "data-00000-of-00001.arrow", [record])
        write_arrow(tmp_path / split / "cache-1234.arrow", [{"other": 1}])
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
        (tmp_path / split / "state.json").write_text(json.dumps(state))
        (tmp_path / split / "dataset_info.json").write_text("{}")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    files = find_files(tmp_path)
    assert values(tmp_path) == [RECORDS[0]]
    assert [files.name(file) for file in files.held_out] == ["test/data-00000-of-00001.arrow"]
    assert values(tmp_path / "test") == [RECORDS[1]]


def test_arrow_is_read_as_a_stream_and_as_a_file(tmp_path: Path) -> None:
    many = [{"input": str(number), "output": "x"} for number in range(2500)]
    for stream in (True, False):
        write_arrow(tmp_path / f"{stream}.arrow", many, stream=stream)
        assert values(tmp_path / f"{stream}.arrow") == many


def test_parquet_is_read_in_batches(tmp_path: Path) -> None:
    many = [{"input": str(number), "output": "x"} for number in range(2500)]
    write_parquet(tmp_path / "f.parquet", many)
    assert values(tmp_path / "f.parquet") == many


def test_lmflow_files_tell_their_type(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"type": "text2text", "instances": RECORDS}))
    assert {record.declared for record in read_files(find_files(tmp_path / "a.json"))} == {"text2text"}


def test_a_folder_is_read_in_the_order_of_names_without_hidden_and_held_out_files(tmp_path: Path) -> None:
    for number, name in enumerate(
        ("b.jsonl", "a.jsonl", ".hidden.jsonl", "..data/a.jsonl", "deep/c.jsonl", "test.jsonl")
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"text": f"{number} {name}"}))
    (tmp_path / "README.md").write_text("about")
    files = find_files(tmp_path)
    assert [files.name(file) for file in files.files] == ["a.jsonl", "b.jsonl", "deep/c.jsonl"]
    assert [files.name(file) for file in files.held_out] == ["test.jsonl"]
    assert [value["text"] for value in values(tmp_path)] == ["1 a.jsonl", "0 b.jsonl", "4 deep/c.jsonl"]


def test_a_folder_of_held_out_files_alone_is_read(tmp_path: Path) -> None:
    (tmp_path / "test-00000-of-00001.jsonl").write_text('{"text": "x"}')
    (tmp_path / "testimony.jsonl").write_text('{"text": "y"}')
    files = find_files(tmp_path)
    assert [file.name for file in files.files] == ["testimony.jsonl"]
    (tmp_path / "testimony.jsonl").unlink()
    assert [file.name for file in find_files(tmp_path).files] == ["test-00000-of-00001.jsonl"]


BAD = [
    ("a.json", "", FailureReason.DATA_EMPTY, "a.json holds no records."),
    ("a.jsonl", "\n\n", FailureReason.DATA_EMPTY, "a.jsonl holds no records."),
    ("a.json", "[]", FailureReason.DATA_EMPTY, "a.json holds no records."),
    ("a.csv", "input,output\n", FailureReason.DATA_EMPTY, "a.csv holds no records."),
    (
        "a.json",
        '[{"text": "x"},\n {"text": "y"\n]',
        FailureReason.DATA_MALFORMED,
        "a.json, line 3, column 1: not JSON: Expecting ',' delimiter.",
    ),
    (
        "a.jsonl",
        '{"text": "x"}\n{"text": \n{"text": "z"}',
        FailureReason.DATA_MALFORMED,
        "a.jsonl, line 2, column 9: not JSON: Expecting value.",
    ),
    (
        "lines.json",
        '{"text": "x"}\nnope',
        FailureReason.DATA_MALFORMED,
        "lines.json, line 2, column 1: not JSON: Expecting value.",
    ),
    ("a.jsonl", '{"text": "x"}\n[1]', FailureReason.DATA_MALFORMED, "a.jsonl, line 2 is a list; a record is an object"),
    ("a.json", '[{"text": "x"}, 3]', FailureReason.DATA_MALFORMED, "a.json, instance 2 is a number; a record is an"),
    ("a.json", "[" * 200_000, FailureReason.DATA_MALFORMED, "a.json nests too deeply, or has a number of thousands"),
    (
        "a.jsonl",
        '{"text": ' + "9" * 5000 + "}",
        FailureReason.DATA_MALFORMED,
        "a.jsonl, line 1 nests too deeply, or has a",
    ),
    ("a.json", "7", FailureReason.DATA_MALFORMED, "a.json holds a number; it should hold a list of records"),
    (
        "a.json",
        '{\n"rows": [],\n"x": 1}',
        FailureReason.DATA_MALFORMED,
        'a.json is one object with the keys rows, x; it should be {"type"',
    ),
    ("a.json", '{\n"instances": []}', FailureReason.DATA_MALFORMED, 'a.json has "instances" but no "type"'),
    (
        "a.json",
        '{"type": "text_only", "instances": {"text": "x"}}',
        FailureReason.DATA_MALFORMED,
        'a.json: "instances" is an object; it should be a list of records.',
    ),
    (
        "a.csv",
        "input,output\na,b\nc,d,e\n",
        FailureReason.DATA_MALFORMED,
        "a.csv, row 2 (line 3) has more fields than the 2 of the header. Put quotes around fields with commas",
    ),
    ("a.csv", "input,output\na\n", FailureReason.DATA_MALFORMED, "a.csv, row 1 (line 2) has fewer fields than the 2"),
    ("a.csv", 'input,output\n"a,b\n', FailureReason.DATA_MALFORMED, "a.csv, line 2: not CSV: unexpected end of data."),
    ("a.parquet", "PAR0", FailureReason.DATA_MALFORMED, "a.parquet is not a whole Parquet file:"),
    ("a.arrow", "ARROW0", FailureReason.DATA_MALFORMED, "a.arrow is not a whole Arrow file:"),
    ("a.jsonl.gz", "{}", FailureReason.DATA_NOT_FOUND, "a.jsonl.gz cannot be read: "),
    (
        "a.txt",
        "x",
        FailureReason.DATA_MALFORMED,
        "a.txt is not one of the kinds read: .json, .jsonl, .parquet, .csv, .arrow, and .json, .jsonl and .csv with "
        ".gz or .zst behind.",
    ),
]


@pytest.mark.parametrize(("name", "content", "reason", "message"), BAD)
def test_what_cannot_be_read_is_named_with_its_place(
    tmp_path: Path, name: str, content: str, reason: FailureReason, message: str
) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(JobFailure) as caught:
        values(tmp_path / name)
    assert caught.value.message.startswith(message)
    assert caught.value.reason is reason


def test_text_that_is_not_utf_8_is_named_with_its_byte(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "' + "中".encode("gbk") + b'"}')
    with pytest.raises(JobFailure, match=r"a.jsonl is not UTF-8 text \(byte 10\); save it as UTF-8."):
        values(tmp_path / "a.jsonl")


def test_a_missing_path_and_a_folder_without_data_are_said(tmp_path: Path) -> None:
    with pytest.raises(JobFailure, match="absent does not exist") as caught:
        find_files(tmp_path / "absent")
    assert caught.value.reason is FailureReason.DATA_NOT_FOUND
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(JobFailure, match=r"holds no .json, .jsonl, .parquet, .csv, .arrow file; it holds notes.txt"):
        find_files(tmp_path)
