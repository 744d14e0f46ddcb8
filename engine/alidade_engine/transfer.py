"""Folders and files of object storage: fetched once for all processes that share a cache, uploaded so that nobody takes
half of one for whole.

A manifest, the last file of an upload, has size and sha256 of every other. Where there is one, exactly its files are
fetched, and each is compared with it; what other programs have put there has none, and is taken as it is.
"""

import hashlib
import json
import os
import posixpath
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from alidade_engine.digests import file_digest

MANIFEST = "alidade-manifest.json"
_VERSION = 1
_SAY_EVERY_S = 10.0
# How a storage tells that an object has changed, by the names that fsspec's implementations give it.
_MARKS = ("ETag", "etag", "md5Hash", "generation", "crc32c", "LastModified", "mtime", "created")

Say = Callable[[str], None]


class IntegrityError(ValueError):
    """What came is not what was uploaded; the message names the file."""


@dataclass(frozen=True)
class _Part:
    """One file. path: where it lies in the storage. name: relative to the folder that is fetched."""

    path: str
    name: str
    size: int
    mark: str
    sha256: str | None = None


def fetch(storage: Any, remote: str, cache: Path, say: Say = print) -> Path:
    """The local copy of a file or folder, fetched unless the cache has it as it is there now.

    storage: an fsspec file system. cache: a folder, which may be shared by processes and pods. Raises OSError,
    FileNotFoundError when there is nothing, IntegrityError.
    """
    is_folder = storage.isdir(remote)
    parts = sorted(_parts(storage, remote, is_folder=is_folder), key=lambda part: part.name)
    if not parts:
        raise FileNotFoundError(remote)
    stamp = hashlib.sha256(repr([remote, *((part.name, part.size, part.mark) for part in parts)]).encode()).hexdigest()
    place = cache / stamp[:32]
    target = place / posixpath.basename(remote)
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{stamp[:32]}.lock"):
        if not place.exists():
            _fetch_all(storage, parts, place, target if is_folder else place, Counter(remote, _size(parts), say))
    return target


def _parts(storage: Any, remote: str, *, is_folder: bool) -> Iterator[_Part]:
    if not is_folder:
        info = storage.info(remote)
        yield _Part(remote, posixpath.basename(remote), int(info["size"] or 0), _mark(info))
        return
    known = _manifest(storage, remote)
    for path, info in storage.find(remote, detail=True).items():
        name = posixpath.relpath("/" + path.lstrip("/"), "/" + remote.strip("/"))
        if posixpath.basename(name) == MANIFEST or (known is not None and name not in known):
            continue
        told = (known or {}).pop(name, {})
        yield _Part(path, name, int(info["size"] or 0), _mark(info), told.get("sha256"))
    if known:
        raise IntegrityError(f"{min(known)} is in the manifest and not there")


def _manifest(storage: Any, remote: str) -> dict[str, dict[str, Any]] | None:
    """The manifest's files below a folder, which may be part of what was uploaded; None without one."""
    folder = remote.strip("/")
    while "/" in folder:
        path = f"{folder}/{MANIFEST}"
        if storage.exists(path):
            files: dict[str, dict[str, Any]] = json.loads(storage.cat_file(path))["files"]
            within = posixpath.relpath("/" + remote.strip("/"), "/" + folder)
            start = "" if within == "." else f"{within}/"
            return {name.removeprefix(start): told for name, told in files.items() if name.startswith(start)}
        folder = posixpath.dirname(folder)
    return None


def _mark(info: Mapping[str, Any]) -> str:
    return next((str(info[name]) for name in _MARKS if info.get(name)), "")


def _fetch_all(storage: Any, parts: list[_Part], place: Path, target: Path, counter: "Counter") -> None:
    """All files into a folder of another name, which gets its own once they are whole."""
    unfinished = place.with_name(f".{place.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    for part in parts:
        local = unfinished / target.relative_to(place) / part.name
        local.parent.mkdir(parents=True, exist_ok=True)
        storage.get_file(part.path, str(local))
        _check(part, local)
        counter.add(part.size)
    os.replace(unfinished, place)


def _check(part: _Part, local: Path) -> None:
    size = local.stat().st_size
    if size != part.size:
        raise IntegrityError(f"{part.name} has {part.size:,} bytes there, and {size:,} came")
    if part.sha256 is not None and file_digest(local) != part.sha256:
        raise IntegrityError(f"{part.name} is not the file that was uploaded: its sha256 is another one")


def upload(local: Path, storage: Any, remote: str, say: Say = print) -> None:
    """Uploads a folder, its manifest last; one that was there goes first. Raises OSError."""
    remote = remote.strip("/")
    manifest = f"{remote}/{MANIFEST}"
    if storage.exists(manifest):
        storage.rm_file(manifest)
    files = sorted(path for path in local.rglob("*") if path.is_file() and path.name != MANIFEST)
    parts = [_Part(str(path), path.relative_to(local).as_posix(), path.stat().st_size, "") for path in files]
    counter = Counter(remote, _size(parts), say, verb="uploaded")
    told = {}
    for part in parts:
        storage.put_file(part.path, f"{remote}/{part.name}")
        told[part.name] = {"size": part.size, "sha256": file_digest(Path(part.path))}
        counter.add(part.size)
    storage.pipe_file(manifest, json.dumps({"version": _VERSION, "files": told}, indent=1).encode())


def _size(parts: list[_Part]) -> int:
    return sum(part.size for part in parts)


class Counter:
    """Says how far a transfer is, now and then."""

    def __init__(self, remote: str, total: int, say: Say, *, verb: str = "fetched", done: int = 0) -> None:
        """total, done: in bytes."""
        self._words = (verb, remote)
        self._total = total
        self._done = done
        self._say = say
        self._said_at = time.monotonic()

    def add(self, size: int) -> None:
        """Counts bytes that have come."""
        self._done += size
        now = time.monotonic()
        if now - self._said_at >= _SAY_EVERY_S:
            self._said_at = now
            verb, remote = self._words
            total = f" of {self._total / 1e6:,.0f}" if self._total >= self._done else ""  # web servers may not tell it
            self._say(f"{verb} {self._done / 1e6:,.0f}{total} MB of {remote}")
