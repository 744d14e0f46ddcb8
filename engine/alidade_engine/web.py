"""Files of web servers: fetched once for all processes that share a cache, and only what has the digest that was named.

A connection that breaks is taken up again where it broke, by this process or by the next one. Archives are unpacked.
"""

import hashlib
import os
import shutil
import tarfile
import time
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx2
from filelock import FileLock

from alidade_crds.hosts import HostPolicy
from alidade_crds.uris import Location
from alidade_engine.transfer import Counter, IntegrityError, Say

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
_TRIES = 5
_WAIT_S = 2.0
"""Seconds before the second try; doubles with each."""
_SILENCE_S = 60.0
"""Seconds without a byte after which a connection counts as broken."""
_CHUNK = 1 << 20
_MOST_REDIRECTIONS = 5


class HostRefusedError(ValueError):
    """A host that may not be asked; the message says which, and why."""


def fetch_file(location: Location, cache: Path, hosts: HostPolicy, say: Say = print) -> Path:
    """The local copy of the file at an http(s) address, or the folder that an archive there holds.

    location: with its sha256, under which the cache keeps the file. cache: may be shared by processes and pods. Raises
    OSError, FileNotFoundError for 404 and 410, PermissionError for 401 and 403, IntegrityError, HostRefusedError.
    """
    assert location.sha256 is not None, "a rule of parse_uri"
    place = cache / location.sha256
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{location.sha256}.lock"):
        if not place.exists():
            part = cache / f".{location.sha256}.part"
            _download(location, part, hosts, say)
            try:
                _put(part, place, _name_of(location))
            finally:
                part.unlink(missing_ok=True)
    return _only_entry(place)


def is_archive(location: Location) -> bool:
    """Whether a file is unpacked, by its name."""
    return _name_of(location).lower().endswith(ARCHIVES)


def _name_of(location: Location) -> str:
    name = unquote(urlsplit(location.address).path).rpartition("/")[2]
    return name if name.strip(".") and "\0" not in name else "file"


def _download(location: Location, part: Path, hosts: HostPolicy, say: Say) -> None:
    """The whole file at `part`, with the digest that it should have; nothing is kept of another one."""
    download = _Download(location, part, hosts, say)
    for attempt in range(1, _TRIES + 1):
        try:
            download.go_on()
            break
        except (httpx2.TransportError, _ServerTroubleError) as error:
            why = str(error) or type(error).__name__
            if attempt == _TRIES:
                raise ConnectionError(f"{why} ({_TRIES} tries)") from error
            say(f"{location.address}: {why}; it is tried again.")
            time.sleep(_WAIT_S * 2 ** (attempt - 1))
    found = download.digest
    if found != location.sha256:
        part.unlink()
        raise IntegrityError(f"the file there has sha256 {found}, and {location.sha256} is expected")


class _ServerTroubleError(Exception):
    """An answer that says that another try may succeed."""


class _Download:
    """A download that may take several requests. part: what has come of it so far, maybe by an earlier process."""

    def __init__(self, location: Location, part: Path, hosts: HostPolicy, say: Say) -> None:
        self._url = location.address
        self._part = part
        self._hosts = hosts
        self._say = say
        self._hash = hashlib.sha256()
        if part.exists():
            with part.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    self._hash.update(chunk)

    @property
    def digest(self) -> str:
        """sha256 of what has come."""
        return self._hash.hexdigest()

    def go_on(self) -> None:
        """Asks for what is missing. Raises TransportError and _ServerTroubleError when another try may help."""
        done = self._part.stat().st_size if self._part.exists() else 0
        # Compressed on the way, a file could not be taken up in its middle.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
        with _client(self._hosts) as client, client.stream("GET", self._url, headers=headers) as response:
            if done and response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # nothing is missing, or the file is a shorter one now, which the digest tells
            _check_status(response)
            if response.status_code != HTTPStatus.PARTIAL_CONTENT:
                self._hash, done = hashlib.sha256(), 0
            length = int(response.headers.get("Content-Length", 0))
            counter = Counter(self._url, done + length, self._say, done=done)
            with self._part.open("ab" if done else "wb") as file:
                for chunk in response.iter_raw():
                    file.write(chunk)
                    self._hash.update(chunk)
                    counter.add(len(chunk))


def _client(hosts: HostPolicy) -> httpx2.Client:
    """A client that asks no host that the policy refuses, nor follows a redirection to one."""

    def refuse(request: httpx2.Request) -> None:
        found = hosts.objection(str(request.url))
        if found is not None:
            raise HostRefusedError(f"{request.url.host or 'its host'} may not be asked: it {found.why}")

    return httpx2.Client(
        event_hooks={"request": [refuse]},
        follow_redirects=True,
        max_redirects=_MOST_REDIRECTIONS,
        timeout=_SILENCE_S,
    )


def _check_status(response: httpx2.Response) -> None:
    code = response.status_code
    if code in (401, 403):
        raise PermissionError(f"{code} {response.reason_phrase}")
    if code in (404, 410):
        raise FileNotFoundError(f"{code} {response.reason_phrase}")
    if code in (408, 429) or code >= 500:
        raise _ServerTroubleError(f"the server answered {code} {response.reason_phrase}")
    if not response.is_success:
        raise OSError(f"the server answered {code} {response.reason_phrase}")


def _put(part: Path, place: Path, name: str) -> None:
    """Puts a file, or what an archive holds, into a folder that takes its name once it is whole."""
    unfinished = place.with_name(f".{place.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    if name.lower().endswith(ARCHIVES):
        _unpack(part, unfinished / "unpacked", name)
    else:
        part.rename(unfinished / name)
    os.replace(unfinished, place)


def _unpack(archive: Path, folder: Path, name: str) -> None:
    """Unpacks within the folder: what points out of it, and what is neither file nor folder, is refused."""
    try:
        if name.lower().endswith(".zip"):
            shutil.unpack_archive(archive, folder, "zip")  # leaves names out that climb or are absolute
        else:
            with tarfile.open(archive) as opened:
                for member in opened:
                    _extract(opened, member, folder)
    except (tarfile.TarError, shutil.ReadError, EOFError) as error:
        raise IntegrityError(f"it cannot be unpacked: {error}") from error


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Writes a file of an archive. tarfile's own filter does the same from Python 3.11.4 on."""
    if member.isdir():
        return
    content = archive.extractfile(member) if member.isreg() else None
    target = Path(os.path.normpath(folder / member.name))
    if content is None or not target.is_relative_to(folder):
        raise IntegrityError(f"it cannot be unpacked: {member.name!r} is no file within it")
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(content, file)


def _only_entry(folder: Path) -> Path:
    """What the place holds; of an archive its only folder, where it has nothing else."""
    (entry,) = folder.iterdir()
    if entry.name == "unpacked" and entry.is_dir():
        inside = list(entry.iterdir())
        return inside[0] if len(inside) == 1 and inside[0].is_dir() else entry
    return entry
