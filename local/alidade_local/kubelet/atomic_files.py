"""A folder whose files change all at once, laid out as the kubelet lays out volumes.

`..data` links to a hidden folder with the present files, and each name in the volume links into `..data`. New contents
go into a new hidden folder; renaming one link puts all of it in the place of the old at the same moment.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from alidade_local.kubelet.environment import MissingReferenceError

_PRESENT = "..data"
_COMING = "..data_tmp"


@dataclass(frozen=True)
class File:
    content: bytes
    mode: int


def write_files(folder: Path, files: Mapping[str, File]) -> None:
    """Have the folder hold these files, by their paths in it, and no others; what is there already is left alone.

    Raises MissingReferenceError for a path that leads out of the folder.
    """
    for name in files:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise MissingReferenceError(f"path {name!r} leads out of the volume")
    folder.mkdir(exist_ok=True)
    if _holds(folder / _PRESENT, files):
        return
    made = _new_folder(folder, files)
    coming = folder / _COMING
    coming.unlink(missing_ok=True)
    coming.symlink_to(made.name)
    coming.rename(folder / _PRESENT)
    _link_names(folder, {PurePosixPath(name).parts[0] for name in files})
    for old in folder.glob("..*"):
        if old.name not in (_PRESENT, made.name):
            shutil.rmtree(old)


def _holds(folder: Path, files: Mapping[str, File]) -> bool:
    """Whether the folder's files are these, in content and mode."""
    if not folder.is_dir():
        return False
    present = {
        path.relative_to(folder).as_posix(): File(path.read_bytes(), path.stat().st_mode & 0o777)
        for path in folder.rglob("*")
        if path.is_file()
    }
    return present == files


def _new_folder(folder: Path, files: Mapping[str, File]) -> Path:
    made = Path(tempfile.mkdtemp(prefix=f"..{datetime.now(UTC):%Y_%m_%d_%H_%M_%S}.", dir=folder))
    made.chmod(0o755)
    for name, file in files.items():
        path = made / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(file.mode)
    return made


def _link_names(folder: Path, names: set[str]) -> None:
    """Give the volume these names, each a link to what `..data` holds of it; other names go."""
    for name in names:
        path = folder / name
        if not path.is_symlink():
            _remove(path)  # a volume of an earlier version holds the files themselves
            path.symlink_to(f"{_PRESENT}/{name}")
    for path in folder.iterdir():
        if path.name not in names and not path.name.startswith(".."):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
