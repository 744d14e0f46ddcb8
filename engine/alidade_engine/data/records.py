"""Records out of .json, .jsonl, .parquet and .csv files, each with the place it stands at."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow
import pyarrow.parquet

from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure

SUFFIXES = (".json", ".jsonl", ".parquet", ".csv")
# By these names a folder's files tell that they are held out; they are not trained on when other files are there.
HELD_OUT_NAMES = ("test", "valid", "validation", "dev", "eval", "heldout")
# A field of a CSV file may be a whole document; the library's limit is 128 KiB.
_CSV_FIELD_LIMIT = 64 * 1024 * 1024
_PARQUET_BATCH = 1024
_BEYOND = (RecursionError, ValueError)
"""What JSON raises that is right and that no program reads."""
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
        if path.suffix.lower() not in SUFFIXES:
            raise JobFailure(
                FailureReason.DATA_MALFORMED, f"{path.name} is not one of the kinds read: {', '.join(SUFFIXES)}."
            )
        return DataFiles(path, [path], [])
    if not path.is_dir():
        raise JobFailure(FailureReason.DATA_NOT_FOUND, f"{path} does not exist.")
    # A mounted ConfigMap keeps its files behind hidden folders; a person's hidden files are no data either.
    files = sorted(
        item
        for item in path.rglob("*")
        if item.is_file()
        and item.suffix.lower() in SUFFIXES
        and not any(part.startswith(".") for part in item.relative_to(path).parts)
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


def _is_held_out(relative: Path) -> bool:
    names = [part.lower() for part in relative.with_suffix("").parts]
    beginnings = tuple(word + sign for word in HELD_OUT_NAMES for sign in "-_.")
    return any(name in HELD_OUT_NAMES or name.startswith(beginnings) for name in names)


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
    readers = {".json": _read_json, ".jsonl": _read_lines, ".parquet": _read_parquet, ".csv": _read_csv}
    try:
        yield from readers[file.suffix.lower()](file, name)
    except UnicodeDecodeError as error:
        raise _malformed(f"{name} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    except OSError as error:
        raise JobFailure(FailureReason.DATA_NOT_FOUND, f"{name} cannot be read: {error.strerror or error}.") from error


def _read_json(file: Path, name: str) -> Iterator[Record]:
    """LMFlow's {"type", "instances"}, a list of records, or, under this name too, JSON lines."""
    with file.open(encoding="utf-8-sig") as opened:
        if _is_json_lines(opened):
            opened.seek(0)
            yield from _parse_lines(opened, name)
            return
        opened.seek(0)
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
    for number, item in enumerate(value, 1):
        position = Position(name, "instance", number)
        yield Record(_as_object(item, position), position, declared)


def _is_json_lines(opened: IO[str]) -> bool:
    """Whether the first line is a whole JSON object, and not one that holds all records."""
    first = opened.readline()
    while first and not first.strip():
        first = opened.readline()
    if not first.lstrip("\ufeff").startswith("{"):
        return False
    try:
        value = json.loads(first)
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
    with file.open(encoding="utf-8-sig") as opened:
        yield from _parse_lines(opened, name)


def _parse_lines(opened: IO[str], name: str) -> Iterator[Record]:
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
            number = 0
            for batch in opened.iter_batches(batch_size=_PARQUET_BATCH):
                for value in batch.to_pylist():
                    number += 1
                    yield Record(value, Position(name, "row", number))
    except pyarrow.ArrowException as error:
        raise _malformed(f"{name} is not a whole Parquet file: {str(error).splitlines()[0]}") from error


def _read_csv(file: Path, name: str) -> Iterator[Record]:
    csv.field_size_limit(_CSV_FIELD_LIMIT)
    with file.open(encoding="utf-8-sig", newline="") as opened:
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
