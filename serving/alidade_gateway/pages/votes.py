"""Votes on files: appended, on the disk before they are acknowledged, and read back from there."""

import fcntl
import json
import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import Any

_log = logging.getLogger("alidade_serving")

Messages = list[dict[str, str]]
"""Turns, each {"role": user|assistant, "content": text}."""

_PREFERENCES, _TIES = "votes", "ties"
# Who reads a folder of preferences passes over what is hidden; a tie is no preference and would end the reading.
_TIES_FOLDER = ".ties"


class Verdict(StrEnum):
    """What a person says of two answers."""

    LEFT = "left"
    RIGHT = "right"
    TIE = "tie"
    BOTH_BAD = "both_bad"


@dataclass(frozen=True)
class Player:
    """A model that takes part. name: of its ModelServe. model: its address, by which ratings know it."""

    name: str
    model: str

    @property
    def key(self) -> str:
        """What tells it from others, also when another side serves it later."""
        return self.model or self.name


@dataclass(frozen=True)
class Vote:
    """A verdict on two answers to the same turns."""

    prompt: Messages
    left: Player
    right: Player
    left_text: str
    right_text: str
    verdict: Verdict

    def record(self, at: datetime) -> dict[str, Any]:
        """As it is kept. A preference is a record that a reward model learns from (prompt, chosen, rejected)."""
        further = {"vote": self.verdict.value, "at": at.isoformat(timespec="seconds")}
        left = (self.left, self.left_text)
        right = (self.right, self.right_text)
        if self.verdict in (Verdict.LEFT, Verdict.RIGHT):
            chosen, rejected = (left, right) if self.verdict is Verdict.LEFT else (right, left)
            return {"prompt": self.prompt, **_told("chosen", *chosen), **_told("rejected", *rejected), **further}
        return {"prompt": self.prompt, **_told("left", *left), **_told("right", *right), **further}


def _told(place: str, player: Player, text: str) -> dict[str, str]:
    return {place: text, f"{place}Name": player.name, f"{place}Model": player.model}


@dataclass(frozen=True)
class Game:
    """What a vote says to ratings. points: of `one`: 1 won, 0 lost, a half where neither was better."""

    one: Player
    other: Player
    points: float


class VoteFolder:
    """The votes of an arena. Each process appends to files of its own; any may call it from several threads.

    A file is locked by who appends to it for as long as it lives, so that what a killed one left half written can be
    told from what is being written, and is cut off: a reward model could not read past it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = Lock()
        self._own: dict[str, _Appended] = {}
        self._read_up_to: dict[Path, int] = {}
        self._unseen: list[Game] = []

    def add(self, vote: Vote) -> None:
        """Keeps a vote. Raises OSError when it could not be kept; there is then nothing left of it."""
        kind = _PREFERENCES if vote.verdict in (Verdict.LEFT, Verdict.RIGHT) else _TIES
        now = datetime.now(UTC)
        line = json.dumps(vote.record(now), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            if kind not in self._own:
                self._own[kind] = _Appended(self._place(kind), f"{kind}-{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}")
            try:
                self._own[kind].append(line)
            except OSError:
                self._own.pop(kind).close()  # the next vote tries another file
                raise

    def new_games(self) -> list[Game]:
        """What was voted since the last call, by anybody; all of it at the first.

        Raises OSError; what was read till then is part of the next answer.
        """
        with self._lock:
            for kind in (_PREFERENCES, _TIES):
                for path in sorted(self._place(kind).glob(f"{kind}-*.jsonl")):
                    self._read(path)
            games, self._unseen = self._unseen, []
            return games

    def close(self) -> None:
        """Lets go of the files; the next vote would begin others."""
        with self._lock:
            while self._own:
                self._own.popitem()[1].close()

    def _place(self, kind: str) -> Path:
        return self._folder if kind == _PREFERENCES else self._folder / _TIES_FOLDER

    def _read(self, path: Path) -> None:
        place = self._read_up_to.get(path, 0)
        if path.stat().st_size == place:
            return
        with path.open("rb") as opened:
            opened.seek(place)
            for line in opened:
                if not line.endswith(b"\n"):
                    break
                place += len(line)
                self._take(line, path)
                self._read_up_to[path] = place
            else:
                return
        if all(path != own.path for own in self._own.values()):
            _mend(path, place)

    def _take(self, line: bytes, path: Path) -> None:
        game = _game(line)
        if game is None:
            _log.warning("votes: %s has a line that is no vote; it is passed over: %r", path.name, line[:100])
        else:
            self._unseen.append(game)


class _Appended:
    """A new file that one process appends to."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{name}.jsonl"
        self._descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_WRONLY, 0o644)
        # On a volume without locks nobody mends what others left half written.
        with suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with _opened(folder, os.O_RDONLY) as directory:
            os.fsync(directory)

    def append(self, line: bytes) -> None:
        """The line is on the disk afterwards. Raises OSError, and takes back what was written of it."""
        end = os.fstat(self._descriptor).st_size
        try:
            written = 0
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            os.fsync(self._descriptor)
        except OSError:
            # Where that fails too, whoever reads the file next cuts off what is torn.
            with suppress(OSError):
                os.ftruncate(self._descriptor, end)
            raise

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._descriptor)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _mend(path: Path, end: int) -> None:
    """Cuts off a last line that was never finished, unless its writer is still there. end: of what was read."""
    with _opened(path, os.O_RDWR) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError as error:  # locks are not for every volume; what may still be written is not cut off
            _log.warning(
                "votes: the last line of %s is not finished, and no lock tells whether it is being written (%s); if no "
                "gateway runs, delete that line: a reward model cannot read past it",
                path.name,
                error.strerror,
            )
            return
        torn = os.pread(descriptor, os.fstat(descriptor).st_size - end, end)
        if b"\n" in torn:
            return  # it was finished meanwhile
        os.ftruncate(descriptor, end)
        os.fsync(descriptor)
        _log.warning(
            "votes: the last line of %s was never finished; its %d bytes were cut off and that vote is lost",
            path.name,
            len(torn),
        )


def _game(line: bytes) -> Game | None:
    """What a line of a file says; None when it is no vote, such as after an edit by hand."""
    try:
        record = json.loads(line)
        verdict = Verdict(record["vote"])
        if verdict in (Verdict.LEFT, Verdict.RIGHT):
            return Game(_player(record, "chosen"), _player(record, "rejected"), 1.0)
        return Game(_player(record, "left"), _player(record, "right"), 0.5)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _player(record: dict[str, Any], place: str) -> Player:
    name, model = record[f"{place}Name"], record[f"{place}Model"]
    if not isinstance(name, str) or not isinstance(model, str):
        raise ValueError(f"{place} is nameless")
    return Player(name, model)
