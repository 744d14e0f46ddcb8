"""Records out of .json, .jsonl, .parquet, .csv and .arrow files, each with the place it stands at.

Files are read record by record, however large they are.
"""

import codecs
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import ijson
import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure

SUFFIXES = (".json", ".jsonl", ".parquet", ".csv", ".arrow")
COMPRESSIONS = (".gz", ".zst")
"""What may follow .json, .jsonl and .csv; the other kinds are compressed within."""
# By these names a folder's files tell that they are held out; they are not trained on when other files are there.
HELD_OUT_NAMES = ("test", "valid", "validation", "dev", "eval", "heldout")
# A field of a CSV file may be a whole document; the library's limit is 128 KiB.
_CSV_FIELD_LIMIT = 64 * 1024 * 1024
_ROWS_AT_ONCE = 1024
_READ_WHOLE = 16 * 1024 * 1024
"""Bytes up to which a .json file is parsed at once, which is faster and says the line of a mistake."""
# What datasets' save_to_disk writes beside its .arrow files.
_SAVED_STATE, _SAVED_NAMES = "state.json", ("state.json", "dataset_info.json", "dataset_dict.json")
_BEYOND = (RecursionError, ValueError)
"""What JSON raises that is right and that no program reads."""
_DEEPEST = 500  # of what is read record by record; Python's own parser ends at 1,000 or so
_BEYOND_WORDS = "nests too deeply, or has a number of thousands of digits."


@dataclass(frozen=True, slots=True)
class Position:
    """Where a record stands; unit is line, instance or row, number counts from 1."""

    file: str
    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number}"


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was read; declared is the `type` of an LMFlow file."""

    value: dict[str, Any]
    position: Position
    declared: str | None = None


@dataclass(frozen=True)
class DataFiles:
    """The files of a dataset, and those of its folder that are left out because their names say they are held out."""

    root: Path
    files: list[Path]
    held_out: list[Path]

    def name(self, file: Path) -> str:
        """The file's name within the dataset, for messages."""
        return file.name if file == self.root else file.relative_to(self.root).as_posix()


def find_files(path: Path) -> DataFiles:
    """The data files at a path, sorted by name.

    Raises JobFailure: DataNotFound when the path or data files in it are missing, DataMalformed for another kind of
    file.
    """
    if path.is_file():
        if kind_of_file(path) is None:
            raise JobFailure(
                FailureReason.DATA_MALFORMED,
                f"{path.name} is not one of the kinds read: {', '.join(SUFFIXES)}, and .json, .jsonl and .csv with "
                f"{' or '.join(COMPRESSIONS)} behind.",
            )
        return DataFiles(path, [path], [])
    if not path.is_dir():
        raise JobFailure(FailureReason.DATA_NOT_FOUND, f"{path} does not exist.")
    # A mounted ConfigMap keeps its files behind hidden folders; a person's hidden files are no data either.
    files = sorted(
        item
        for item in path.rglob("*")
        if item.is_file()
        and kind_of_file(item) is not None
        and not any(part.startswith(".") for part in item.relative_to(path).parts)
        and _is_listed(item)
    )
    if not files:
        found = ", ".join(sorted(item.name for item in path.iterdir())[:8]) or "nothing"
        raise JobFailure(
            FailureReason.DATA_NOT_FOUND,
            f"The folder {path.name} holds no {', '.join(SUFFIXES)} file; it holds {found}.",
        )
    held_out = [file for file in files if _is_held_out(file.relative_to(path))]
    if len(held_out) == len(files):
        held_out = []
    return DataFiles(path, [file for file in files if file not in held_out], held_out)


def kind_of_file(path: Path) -> str | None:
    """Which of SUFFIXES a file's name says it is, whether it is compressed or not; None for another."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if len(suffixes) == 2 and suffixes[1] in COMPRESSIONS and suffixes[0] in (".json", ".jsonl", ".csv"):
        return suffixes[0]
    return suffixes[-1] if suffixes and suffixes[-1] in SUFFIXES else None


def _is_listed(file: Path) -> bool:
    """Whether a file is data, if its folder was written by datasets' save_to_disk; map() leaves caches there, too."""
    state = file.parent / _SAVED_STATE
    if file.name in _SAVED_NAMES and (state.is_file() or file.name == "dataset_dict.json"):
        return False
    if file.suffix.lower() != ".arrow" or not state.is_file():
        return True
    listed = json.loads(state.read_bytes()).get("_data_files", [])
    return file.name in {entry["filename"] for entry in listed}


def _is_held_out(relative: Path) -> bool:
    beginnings = tuple(word + sign for word in HELD_OUT_NAMES for sign in "-_.")
    return any(part in HELD_OUT_NAMES or part.startswith(beginnings) for part in map(str.lower, relative.parts))


def read_files(files: DataFiles) -> Iterator[Record]:
    """Each record of the files in order.

    Raises JobFailure: DataMalformed with file and line or instance for what cannot be read, DataEmpty when there is no
    record.
    """
    empty = True
    for file in files.files:
        for record in _read_file(file, files.name(file)):
            empty = False
            yield record
    if empty:
        names = ", ".join(files.name(file) for file in files.files[:8])
        raise JobFailure(FailureReason.DATA_EMPTY, f"{names} holds no records.")


def _read_file(file: Path, name: str) -> Iterator[Record]:
    readers = {
        ".json": _read_json,
        ".jsonl": _read_lines,
        ".parquet": _read_parquet,
        ".csv": _read_csv,
        ".arrow": _read_arrow,
    }
    kind = kind_of_file(file)
    assert kind is not None, "other files are not found"
    try:
        yield from readers[kind](file, name)
    except UnicodeDecodeError as error:
        raise _malformed(f"{name} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    except OSError as error:
        raise JobFailure(FailureReason.DATA_NOT_FOUND, f"{name} cannot be read: {error.strerror or error}.") from error


def _open(file: Path) -> IO[bytes]:
    """The bytes of a file, decompressed where its name says that it is compressed."""
    opened: IO[bytes] = pyarrow.input_stream(str(file), compression="detect")
    return opened


def _open_json(file: Path) -> IO[bytes]:
    """As `_open`, behind the byte order mark, which JSON has no place for."""
    opened = _open(file)
    if opened.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8:
        return opened
    opened.close()
    return _open(file)


def _open_text(file: Path, newline: str | None = None) -> IO[str]:
    return io.TextIOWrapper(_open(file), encoding="utf-8-sig", newline=newline)


def _read_json(file: Path, name: str) -> Iterator[Record]:
    """LMFlow's {"type", "instances"}, a list of records, or, under this name too, JSON lines."""
    with _open_text(file) as opened:
        has_lines = _is_json_line(_first_line(opened))
    if has_lines:
        yield from _read_lines(file, name)
        return
    if _is_large(file):
        yield from _stream_json(file, name)
        return
    with _open_text(file) as opened:
        text = opened.read()
    if not text.strip():
        return
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise _malformed(f"{name}, line {error.lineno}, column {error.colno}: not JSON: {error.msg}.") from error
    except _BEYOND as error:
        raise _malformed(f"{name} {_BEYOND_WORDS}") from error
    declared = None
    if isinstance(value, dict):
        declared, value = _unwrap(value, name)
    if not isinstance(value, list):
        raise _malformed(
            f'{name} holds {kind_of(value)}; it should hold a list of records, or {{"type": …, "instances": […]}}.'
        )
    yield from _records(value, name, declared)


def _is_large(file: Path) -> bool:
    """Whether a file is better read bit by bit; what is compressed may be of any size."""
    return file.suffix.lower() in COMPRESSIONS or file.stat().st_size > _READ_WHOLE


def _stream_json(file: Path, name: str) -> Iterator[Record]:
    """As `_read_json`, holding one record at a time.

    The file is read twice: `type` may stand at its end, and the library takes memory by the square of the depth.
    """
    try:
        prefix, declared = _outline(file, name)
        with _open_json(file) as opened:
            yield from _records(ijson.items(opened, prefix, use_float=True), name, declared)
    except ijson.JSONError as error:
        raise _malformed(f"{name} is not JSON: {str(error).strip().splitlines()[0]}.") from error


def _outline(file: Path, name: str) -> tuple[str, str | None]:
    """Where the records of a large .json file are, in ijson's words, and the type that it declares.

    Only what stands beside the records is built.
    """
    found: dict[str, Any] = {}
    with _open_json(file) as opened:
        events = ijson.basic_parse(opened, use_float=True)
        first, value = next(events)
        if first not in ("start_array", "start_map"):
            raise _malformed(f"{name} holds {kind_of(value)}; it should hold a list of records.")
        depth, key = 1, ""
        for event, value in events:
            if depth == 1 and event == "map_key":
                key = value
            elif depth == 1 and not event.startswith("end_"):
                found[key] = {"start_array": [], "start_map": {}}.get(event, value)
            depth += event.startswith("start_") - event.startswith("end_")
            if depth > _DEEPEST:
                raise _malformed(f"{name} {_BEYOND_WORDS}")
    if first == "start_array":
        return "item", None
    declared, _ = _unwrap(found, name)
    return ("instances.item" if "instances" in found else "data.item"), declared


def _records(values: Iterator[Any] | list[Any], name: str, declared: str | None) -> Iterator[Record]:
    for number, item in enumerate(values, 1):
        position = Position(name, "instance", number)
        yield Record(_as_object(item, position), position, declared)


def _first_line(opened: IO[str]) -> str:
    """The first line with something in it, or its beginning: a dump without line breaks is one line."""
    line = "\n"
    while line and not line.strip():
        line = opened.readline(_READ_WHOLE)
    return line


def _is_json_line(line: str) -> bool:
    """Whether a line is a whole JSON object, and not one that holds all records."""
    if not line.lstrip("\ufeff").startswith("{"):
        return False
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, *_BEYOND):
        return False
    return not (set(value) <= {"type", "instances"} or set(value) == {"data"})


def _unwrap(value: dict[str, Any], name: str) -> tuple[str | None, Any]:
    if "instances" in value:
        declared = value.get("type")
        if not isinstance(declared, str):
            raise _malformed(f'{name} has "instances" but no "type", such as "type": "text2text".')
        if not isinstance(value["instances"], list):
            raise _malformed(f'{name}: "instances" is {kind_of(value["instances"])}; it should be a list of records.')
        return declared, value["instances"]
    if set(value) == {"data"} and isinstance(value["data"], list):
        return None, value["data"]
    raise _malformed(
        f'{name} is one object with the keys {_keys(value)}; it should be {{"type": …, "instances": […]}}, a list of '
        "records, or one record per line."
    )


def _read_lines(file: Path, name: str) -> Iterator[Record]:
    with _open_text(file) as opened:
        for number, line in enumerate(opened, 1):
            if not line.strip():
                continue
            position = Position(name, "line", number)
            try:
                value = json.loads(line.rstrip())
            except json.JSONDecodeError as error:
                raise _malformed(f"{position}, column {error.colno}: not JSON: {error.msg}.") from error
            except _BEYOND as error:
                raise _malformed(f"{position} {_BEYOND_WORDS}") from error
            yield Record(_as_object(value, position), position)


def _read_parquet(file: Path, name: str) -> Iterator[Record]:
    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            yield from _rows(opened.iter_batches(batch_size=_ROWS_AT_ONCE), name)
    except pyarrow.ArrowException as error:
        raise _malformed(f"{name} is not a whole Parquet file: {str(error).splitlines()[0]}") from error


def _read_arrow(file: Path, name: str) -> Iterator[Record]:
    """The stream that the library datasets writes, or Arrow's file format; mapped, not read."""
    try:
        with pyarrow.memory_map(str(file)) as opened:
            try:
                batches = pyarrow.ipc.open_stream(opened)
            except pyarrow.ArrowInvalid:
                whole = pyarrow.ipc.open_file(opened)
                batches = (whole.get_batch(number) for number in range(whole.num_record_batches))
            yield from _rows(batches, name)
    except pyarrow.ArrowException as error:
        raise _malformed(f"{name} is not a whole Arrow file: {str(error).splitlines()[0]}") from error


def _rows(batches: Iterator[Any], name: str) -> Iterator[Record]:
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
            for value in batch.slice(start, _ROWS_AT_ONCE).to_pylist():
                number += 1
                yield Record(value, Position(name, "row", number))


def _read_csv(file: Path, name: str) -> Iterator[Record]:
    csv.field_size_limit(_CSV_FIELD_LIMIT)
    with _open_text(file, newline="") as opened:
        reader = csv.DictReader(opened, strict=True)
        try:
            for number, value in enumerate(reader, 1):
                position = Position(name, "row", number)
                if None in value or None in value.values():  # the library's signs for too many and too few fields
                    columns = len(reader.fieldnames or ())
                    raise _malformed(
                        f"{position} (line {reader.line_num}) has {'more' if None in value else 'fewer'} fields than "
                        f"the {columns} of the header. Put quotes around fields with commas or line breaks."
                    )
                yield Record(dict(value), position)
        except csv.Error as error:
            raise _malformed(f"{name}, line {reader.reader.line_num}: not CSV: {error}.") from error


def _as_object(value: Any, position: Position) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _malformed(f"{position} is {kind_of(value)}; a record is an object with named fields.")
    return value


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), f"a {type(value).__name__}")


def _keys(value: dict[str, Any]) -> str:
    return ", ".join(list(value)[:8]) or "none"


def _malformed(message: str) -> JobFailure:
    return JobFailure(FailureReason.DATA_MALFORMED, message)
