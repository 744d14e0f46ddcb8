"""The durable side of the object store: every revision of every object is one row of an SQLite file.

An acknowledged write survives `kill -9` at any instant: rows are committed to the write-ahead log before the
acknowledgement. The log is synced to the disk at checkpoints only (`synchronous=NORMAL`), so a power cut may cost the
last moments but never the file's consistency.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_TABLES = """
CREATE TABLE IF NOT EXISTS revisions (
    rv INTEGER PRIMARY KEY, resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    deleted INTEGER NOT NULL, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS floors (resource TEXT PRIMARY KEY, rv INTEGER NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Revision:
    """One object as it was from one resource version on."""

    rv: int
    resource: str
    namespace: str
    name: str
    deleted: bool
    value: bytes


class JournalInUseError(RuntimeError):
    """Another process has the file open."""


class Journal:
    """Appends revisions and removes those that no watch can ask for any more. Used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # secrets are inside
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=0.5)
        try:
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_TABLES)
        except sqlite3.OperationalError as error:
            self._db.close()
            if "locked" not in str(error):
                raise
            raise JournalInUseError(f"{path} is in use by another server; stop that one first") from error

    def revisions(self) -> Iterator[Revision]:
        """All kept revisions, oldest first."""
        rows = self._db.execute("SELECT rv, resource, namespace, name, deleted, value FROM revisions ORDER BY rv")
        for rv, resource, namespace, name, deleted, value in rows:
            yield Revision(rv, resource, namespace, name, bool(deleted), value)

    def floors(self) -> dict[str, int]:
        """Per resource: the newest resource version whose change is no longer in the history."""
        return dict(self._db.execute("SELECT resource, rv FROM floors"))

    def append(self, added: Sequence[Revision], obsolete: Iterable[int], floors: dict[str, int]) -> None:
        """Commit new revisions, and drop obsolete ones together with the floors that make them unreachable."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(
                "INSERT INTO revisions VALUES (?, ?, ?, ?, ?, ?)",
                [(row.rv, row.resource, row.namespace, row.name, int(row.deleted), row.value) for row in added],
            )
            self._db.executemany("DELETE FROM revisions WHERE rv = ?", [(rv,) for rv in obsolete])
            self._db.executemany(
                "INSERT INTO floors VALUES (?, ?) ON CONFLICT (resource) DO UPDATE SET rv = excluded.rv", floors.items()
            )
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()
