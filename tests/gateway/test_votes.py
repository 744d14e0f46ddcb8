"""Votes on files: what is kept, what survives, and what is made of what does not."""

import errno
import fcntl
import json
import logging
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from alidade_gateway.pages.votes import Game, Player, Verdict, Vote, VoteFolder

OLD, NEW = Player("kbqa", "pvc://m/old"), Player("kbqa-canary", "pvc://m/new")
PROMPT = [{"role": "user", "content": "你好?\n\u2028"}]


def vote(verdict: Verdict = Verdict.LEFT, text: str = "an answer") -> Vote:
    return Vote(PROMPT, OLD, NEW, f"{text} of old", f"{text} of new", verdict)


def lines(folder: Path, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.rglob(pattern)) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize(("verdict", "chosen", "rejected"), [("left", OLD, NEW), ("right", NEW, OLD)])
def test_a_vote_for_a_side_is_a_preference(tmp_path: Path, verdict: str, chosen: Player, rejected: Player) -> None:
    VoteFolder(tmp_path).add(vote(Verdict(verdict)))
    (record,) = lines(tmp_path, "*.jsonl")
    assert record.pop("at").endswith("+00:00")
    answers = {OLD: "an answer of old", NEW: "an answer of new"}
    assert record == {
        "prompt": PROMPT,
        "chosen": answers[chosen],
        "chosenName": chosen.name,
        "chosenModel": chosen.model,
        "rejected": answers[rejected],
        "rejectedName": rejected.name,
        "rejectedModel": rejected.model,
        "vote": verdict,
    }
    (path,) = tmp_path.glob("*")
    assert path.name.startswith("votes-")


def test_ties_lie_beside_and_hidden_from_who_reads_preferences(tmp_path: Path) -> None:
    folder = VoteFolder(tmp_path)
    folder.add(vote(Verdict.TIE))
    folder.add(vote(Verdict.BOTH_BAD))
    assert list(tmp_path.glob("*.jsonl")) == []
    assert [record["vote"] for record in lines(tmp_path / ".ties", "ties-*.jsonl")] == ["tie", "both_bad"]
    assert folder.new_games() == [Game(OLD, NEW, 0.5)] * 2


def test_what_is_read_is_what_was_voted_since(tmp_path: Path) -> None:
    """Also by another gateway, such as the one that is being replaced; and all of it after a restart."""
    first, second = VoteFolder(tmp_path), VoteFolder(tmp_path)
    assert first.new_games() == []
    first.add(vote(Verdict.LEFT))
    assert first.new_games() == second.new_games() == [Game(OLD, NEW, 1.0)]
    second.add(vote(Verdict.RIGHT))
    assert first.new_games() == second.new_games() == [Game(NEW, OLD, 1.0)]
    assert first.new_games() == second.new_games() == []
    assert len(VoteFolder(tmp_path).new_games()) == 2


def test_votes_from_many_threads_are_whole_lines(tmp_path: Path) -> None:
    folder = VoteFolder(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(folder.add, [vote(verdict) for verdict in Verdict] * 25))
    assert len(lines(tmp_path, "*.jsonl")) == len(folder.new_games()) == 100


def test_a_vote_is_on_the_disk_when_it_is_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[bool, int]] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        found = os.fstat(descriptor)
        synced.append((stat.S_ISDIR(found.st_mode), found.st_size))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    VoteFolder(tmp_path).add(vote())
    (path,) = tmp_path.glob("*.jsonl")
    assert [is_folder for is_folder, _ in synced] == [True, False]
    assert synced[-1][1] == path.stat().st_size > 0


def test_a_torn_last_line_is_cut_off_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A gateway was killed in the middle of a write; a reward model could not read past what is left of it."""
    ended = VoteFolder(tmp_path)
    ended.add(vote())
    ended.close()
    (path,) = tmp_path.glob("*.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING):
        assert VoteFolder(tmp_path).new_games() == [Game(OLD, NEW, 1.0)]
    assert path.read_bytes() == whole
    assert f"the last line of {path.name} was never finished; its {len(whole) // 2} bytes were cut off" in caplog.text


def test_what_another_gateway_is_still_writing_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "votes-other.jsonl"
    path.write_bytes(b'{"prompt":')
    with path.open("ab") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        reader = VoteFolder(tmp_path)
        assert reader.new_games() == []
        assert path.read_bytes() == b'{"prompt":'
        VoteFolder(tmp_path / "elsewhere").add(vote())
        (whole,) = (tmp_path / "elsewhere").glob("*.jsonl")
        writer.write(whole.read_bytes().removeprefix(b'{"prompt":'))
        writer.flush()
        assert reader.new_games() == [Game(OLD, NEW, 1.0)]


def test_where_locks_are_not_to_be_had_nothing_is_cut_off_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    VoteFolder(tmp_path).add(vote())
    path = tmp_path / "votes-other.jsonl"
    path.write_bytes(b'{"prompt":')
    assert VoteFolder(tmp_path).new_games() == [Game(OLD, NEW, 1.0)]
    assert path.read_bytes() == b'{"prompt":'
    assert "no lock tells whether it is being written (No locks available)" in caplog.text


def test_a_line_that_is_no_vote_is_passed_over_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nameless = {"vote": "left", "chosenName": 1, "chosenModel": "", "rejectedName": "b", "rejectedModel": ""}
    odd = ["not json", "[]", "7", '{"vote": "left"}', '{"vote": "best"}', json.dumps(nameless), "[" * 100_000]
    VoteFolder(tmp_path).add(vote())
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes("".join(line + "\n" for line in odd).encode() + path.read_bytes())
    assert VoteFolder(tmp_path).new_games() == [Game(OLD, NEW, 1.0)]
    assert caplog.text.count("has a line that is no vote") == len(odd)


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_of_a_vote_that_could_not_be_kept_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    folder = VoteFolder(tmp_path)
    folder.add(vote())
    write = os.write

    def full(descriptor: int, content: bytes = b"") -> int:
        if failing == "write":
            write(descriptor, content[:20])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, failing, full)
        with pytest.raises(OSError, match="No space left"):
            folder.add(vote(text="lost"))
    folder.add(vote(text="later"))
    assert {record["chosen"] for record in lines(tmp_path, "*.jsonl")} == {"an answer of old", "later of old"}
    assert len(folder.new_games()) == 2


def test_what_was_read_before_a_file_that_cannot_be_is_not_lost(tmp_path: Path) -> None:
    VoteFolder(tmp_path).add(vote())
    (tmp_path / "votes-z.jsonl").mkdir()
    folder = VoteFolder(tmp_path)
    with pytest.raises(IsADirectoryError):
        folder.new_games()
    (tmp_path / "votes-z.jsonl").rmdir()
    assert folder.new_games() == [Game(OLD, NEW, 1.0)]


def test_a_folder_that_cannot_be_made_is_an_error_each_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = VoteFolder(tmp_path / "file" / "votes")
    for _ in range(2):
        with pytest.raises(OSError, match="Not a directory"):
            folder.add(vote())
