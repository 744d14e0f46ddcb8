"""Files of a volume change all at once, and are never half there."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from alidade_local.kubelet.atomic_files import File, write_files
from alidade_local.kubelet.environment import MissingReferenceError


def contents(**texts: str) -> dict[str, File]:
    return {name: File(text.encode(), 0o644) for name, text in texts.items()}


def test_names_link_to_the_present_files_as_on_a_cluster(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    write_files(folder, contents(a="1") | {"sub/deep/b": File(b"2", 0o400)})
    assert sorted(os.listdir(folder))[1:] == ["..data", "a", "sub"]
    assert os.readlink(folder / "a") == "..data/a"
    assert os.readlink(folder / "sub") == "..data/sub"
    assert (folder / "sub/deep/b").read_bytes() == b"2"
    assert (folder / "sub/deep/b").stat().st_mode & 0o777 == 0o400


def test_new_contents_replace_the_old_and_leave_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    write_files(folder, contents(a="1", b="2"))
    before = os.readlink(folder / "..data")
    with (folder / "a").open() as opened:
        write_files(folder, contents(a="3", c="4"))
        assert opened.read() == "1", "who has the file open reads on in what it was"
    assert {name: (folder / name).read_text() for name in os.listdir(folder) if not name.startswith("..")} == {
        "a": "3",
        "c": "4",
    }
    assert os.readlink(folder / "..data") != before
    assert len(os.listdir(folder)) == 4
    write_files(folder, {})
    assert [name for name in os.listdir(folder) if not name.startswith("..")] == []


def test_what_has_not_changed_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    write_files(folder, contents(a="1"))
    before = os.readlink(folder / "..data")
    write_files(folder, contents(a="1"))
    assert os.readlink(folder / "..data") == before
    write_files(folder, {"a": File(b"1", 0o600)})
    assert (folder / "a").stat().st_mode & 0o777 == 0o600


def test_files_of_an_earlier_layout_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "v" / "sub").mkdir(parents=True)
    (tmp_path / "v" / "sub" / "b").write_text("old")
    (tmp_path / "v" / "a").write_text("old")
    write_files(tmp_path / "v", contents(a="1") | {"sub/b": File(b"2", 0o644)})
    assert ((tmp_path / "v" / "a").read_text(), (tmp_path / "v" / "sub" / "b").read_text()) == ("1", "2")


def test_a_reader_never_finds_a_file_half_written_or_its_name_missing(tmp_path: Path) -> None:
    folder, length = tmp_path / "v", 100_000
    write_files(folder, contents(a="0" * length))
    stop = threading.Event()
    wrong: list[str] = []

    def read() -> None:
        while not stop.is_set():
            try:
                text = (folder / "a").read_text()
            except FileNotFoundError:
                # The old folder can go while the kernel is on its way through it, as on a cluster; the name stays.
                text = "0" * length if (folder / "a").is_symlink() else "missing"
            if len(text) != length or len(set(text)) != 1:
                wrong.append(text[:20])

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        write_files(folder, contents(a=str(number % 10) * length))
    stop.set()
    reader.join()
    assert wrong == []


@pytest.mark.parametrize("path", ["../out", "/etc/passwd", "a/../../out"])
def test_nothing_is_written_outside_the_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(MissingReferenceError, match="leads out of the volume"):
        write_files(tmp_path / "v", {path: File(b"", 0o644)})
    assert os.listdir(tmp_path) == []
