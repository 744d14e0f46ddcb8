"""Samples on the disk: a line of JSON for each, written as it is done, so that what was done is never done again.

One file for each collection, model and process, MODEL~PROCESS.jsonl (no name has a ~). A process writes its own and
reads all. A line that a kill cut off is dropped. Of several rows of one sample, such as a failure and a later answer,
the newest counts.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

Row = dict[str, Any]
"""A sample; `index` is its place in its collection. `failure` says why there is nothing else."""

INDEX = "index"
FAILURE = "failure"


@dataclass(frozen=True)
class SampleStore:
    """The samples of an evaluation. shard: number of this process among all that share the work."""

    folder: Path
    shard: int

    def rows(self, collection: str, model: str) -> dict[int, Row]:
        """All rows of a model so far, by index, from every process."""
        found: dict[int, Row] = {}
        for path in sorted((self.folder / collection).glob(f"{model}~*.jsonl")):
            for row in read_rows(path):
                known = found.get(row[INDEX])
                if known is None or FAILURE in known:
                    found[row[INDEX]] = row
        return found

    def appender(self, collection: str, model: str) -> "Appender":
        """Where this process adds rows."""
        return Appender(self.folder / collection / f"{model}~{self.shard}.jsonl")


class Appender:
    """Adds rows to a file, each whole and out of this process's hands when `add` returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _drop_torn_line(path)
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def add(self, row: Row) -> None:
        """Appends a row."""
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._file.flush()

    def __enter__(self) -> "Appender":
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._file.close()


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file; a last line that is being written, or was cut off, is left out."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


def _drop_torn_line(path: Path) -> None:
    """Cuts a file behind its last whole line: what follows it would be glued to the next row."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            file.truncate(whole)


def ordered(rows: Mapping[int, Row]) -> list[Row]:
    """The rows in the order of their indices."""
    return [rows[index] for index in sorted(rows)]
