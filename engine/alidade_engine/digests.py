"""Digests that tell files, and models, apart."""

import hashlib
from pathlib import Path


def model_digest(folder: Path) -> str:
    """`sha256:…` over the sorted names and digests of the folder's files: the same bytes, the same digest.

    README.md and lineage.json, which speak about the model and its digest, are not part of it.
    """
    total = hashlib.sha256()
    for file in sorted(item for item in folder.rglob("*") if item.is_file()):
        name = file.relative_to(folder).as_posix()
        if name in ("README.md", "lineage.json", "digest"):
            continue
        total.update(f"{file_digest(file)}  {name}\n".encode())
    return f"sha256:{total.hexdigest()}"


def file_digest(file: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
