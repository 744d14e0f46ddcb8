"""What comes out of object storage is what went in, whole, once, and as it is there now."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from alidade_engine import transfer
from alidade_engine.transfer import MANIFEST, IntegrityError, fetch, upload

NAMES = st.text("abc", min_size=1, max_size=3)
TREES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map(
        lambda parts: "/".join([*(f"d{part}" for part in parts[:-1]), parts[-1]])
    ),
    st.binary(max_size=40),
    min_size=1,
    max_size=6,
)


class Memory(MemoryFileSystem):
    """Object storage of one test; counts what is read."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.store = {}
        self.pseudo_dirs = [""]
        self.read: list[str] = []

    cachable = False

    def get_file(self, rpath: str, lpath: Any, **options: Any) -> None:
        self.read.append(rpath)
        super().get_file(rpath, lpath, **options)


@pytest.fixture
def storage() -> Memory:
    return Memory()


def written(folder: Path, tree: dict[str, bytes]) -> Path:
    for name, content in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def tree_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@given(TREES)
@settings(max_examples=60)
def test_what_is_uploaded_comes_back(tree: dict[str, bytes]) -> None:
    storage = Memory()
    with tempfile.TemporaryDirectory() as name:
        local = written(Path(name) / "local", tree)
        upload(local, storage, "bucket/out")
        assert tree_of(fetch(storage, "bucket/out", Path(name) / "cache")) == tree


def test_a_part_of_an_upload_is_known_by_the_manifest_of_the_whole(storage: Memory, tmp_path: Path) -> None:
    local = written(
        tmp_path / "local", {"model/config.json": b"{}", "model/a.safetensors": b"abc", "report.html": b"x"}
    )
    upload(local, storage, "bucket/run/out")
    found = fetch(storage, "bucket/run/out/model", tmp_path / "cache")
    assert tree_of(found) == {"config.json": b"{}", "a.safetensors": b"abc"}
    storage.pipe("/bucket/run/out/model/a.safetensors", b"abd")
    with pytest.raises(IntegrityError, match=r"a\.safetensors is not the file that was uploaded"):
        fetch(storage, "bucket/run/out/model", tmp_path / "cache")


def test_what_an_older_upload_has_left_behind_is_not_fetched(storage: Memory, tmp_path: Path) -> None:
    upload(written(tmp_path / "a", {"1-of-2": b"1", "2-of-2": b"2"}), storage, "bucket/out")
    upload(written(tmp_path / "b", {"1-of-1": b"12"}), storage, "bucket/out")
    assert tree_of(fetch(storage, "bucket/out", tmp_path / "cache")) == {"1-of-1": b"12"}


def test_an_upload_that_breaks_off_has_no_manifest(
    storage: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the one before."""
    local = written(tmp_path / "local", {"a": b"1", "b": b"2"})
    upload(local, storage, "bucket/out")
    put = storage.put_file

    def breaks(lpath: str, rpath: str, **options: Any) -> None:
        if rpath.endswith("/b"):
            raise ConnectionResetError("gone")
        put(lpath, rpath, **options)

    monkeypatch.setattr(storage, "put_file", breaks)
    with pytest.raises(ConnectionResetError):
        upload(local, storage, "bucket/out")
    assert not storage.exists(f"bucket/out/{MANIFEST}")


def test_a_file_of_the_manifest_that_is_gone_is_named(storage: Memory, tmp_path: Path) -> None:
    upload(written(tmp_path / "local", {"a": b"1", "b": b"2"}), storage, "bucket/out")
    storage.rm_file("/bucket/out/b")
    with pytest.raises(IntegrityError, match="b is in the manifest and not there"):
        fetch(storage, "bucket/out", tmp_path / "cache")


def test_what_is_there_is_fetched_once_and_again_when_it_changes(storage: Memory, tmp_path: Path) -> None:
    storage.pipe({"/bucket/set/a.jsonl": b"1", "/bucket/set/b.jsonl": b"2"})
    first = fetch(storage, "bucket/set", tmp_path)
    assert fetch(storage, "bucket/set", tmp_path) == first
    assert len(storage.read) == 2
    storage.pipe("/bucket/set/a.jsonl", b"3")
    second = fetch(storage, "bucket/set", tmp_path)
    assert second != first
    assert tree_of(second) == {"a.jsonl": b"3", "b.jsonl": b"2"}
    assert tree_of(first)["a.jsonl"] == b"1", "whoever reads it is not disturbed"


def test_what_breaks_off_is_not_taken_for_whole(
    storage: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.pipe({"/bucket/set/a": b"1", "/bucket/set/b": b"2"})
    get = storage.get_file

    def breaks(rpath: str, lpath: Any, **options: Any) -> None:
        if rpath.endswith("/b"):
            raise ConnectionResetError("gone")
        get(rpath, lpath, **options)

    monkeypatch.setattr(storage, "get_file", breaks)
    with pytest.raises(ConnectionResetError):
        fetch(storage, "bucket/set", tmp_path)
    monkeypatch.undo()
    assert tree_of(fetch(storage, "bucket/set", tmp_path)) == {"a": b"1", "b": b"2"}


def test_a_file_that_comes_short_is_noticed(storage: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.pipe("/bucket/a.jsonl", b"12345")
    monkeypatch.setattr(storage, "get_file", lambda rpath, lpath, **_: Path(lpath).write_bytes(b"123"))
    with pytest.raises(IntegrityError, match=r"a\.jsonl has 5 bytes there, and 3 came"):
        fetch(storage, "bucket/a.jsonl", tmp_path)


def _fetched(source: str, cache: str, counted: str) -> None:
    class Counting(LocalFileSystem):
        def get_file(self, rpath: str, lpath: Any, **options: Any) -> None:
            with Path(counted).open("a") as file:
                file.write("x")
            super().get_file(rpath, lpath, **options)

    assert tree_of(fetch(Counting(), source, Path(cache))) == {"a": b"1", "deep/b": b"2"}


def test_processes_that_share_a_cache_fetch_once(tmp_path: Path) -> None:
    source = written(tmp_path / "bucket" / "set", {"a": b"1", "deep/b": b"2"})
    told = (str(source), str(tmp_path / "cache"), str(tmp_path / "count"))
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_fetched, args=told) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert (tmp_path / "count").read_text() == "xx"


def test_how_far_it_is_is_said(storage: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_SAY_EVERY_S", 0)
    said: list[str] = []
    upload(written(tmp_path / "l", {"a": b"1" * 10**6, "b": b"2" * 10**6}), storage, "bucket/x", said.append)
    assert said == ["uploaded 1 of 2 MB of bucket/x", "uploaded 2 of 2 MB of bucket/x"]
    manifest = json.loads(storage.cat_file(f"/bucket/x/{MANIFEST}"))
    assert manifest["version"] == 1
    assert manifest["files"]["a"]["size"] == 10**6
