"""Addresses of models and data: one parser, so that operator and trainer mean the same by them."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

Scheme = Literal["hf", "s3", "gs", "https", "http", "pvc", "configmap", "arena", "file"]
SCHEMES: tuple[str, ...] = get_args(Scheme)
WEB = ("https", "http")
REMOTE = ("hf", "s3", "gs", *WEB)
"""What a pod fetches from elsewhere."""

_DIGEST = "#sha256="


class UriError(ValueError):
    """A URI that cannot be used; the message says why and what to write instead."""


@dataclass(frozen=True)
class Location:
    """A parsed URI: root is the claim, ConfigMap, ModelServe, bucket, repository or host, path what follows.

    revision: only for hf. sha256: of the file there, in hexadecimal, where it is given.
    """

    scheme: Scheme
    root: str
    path: str
    revision: str | None = None
    sha256: str | None = None

    @property
    def address(self) -> str:
        """Where it is, without the digest."""
        if self.scheme == "file":
            return f"file://{self.path}"  # which begins with its own slash
        revision = f"@{self.revision}" if self.revision else ""
        tail = f"/{self.path}" if self.path else ""
        return f"{self.scheme}://{self.root}{revision}{tail}"

    def __str__(self) -> str:
        return with_digest(self.address, self.sha256)


def with_digest(uri: str, sha256: str | None) -> str:
    """A URI that carries the digest of the file there, as documents of jobs hold it."""
    return f"{uri}{_DIGEST}{sha256}" if sha256 else uri


def parse_uri(uri: str) -> Location:
    """The parts of a URI.

    hf://ORG/NAME[@REVISION][/FILE], s3://BUCKET/KEY, gs://BUCKET/KEY, https://HOST/FILE, pvc://CLAIM/PATH,
    configmap://NAME/KEY, arena://NAME, file:///PATH; each may end with #sha256=DIGEST, and http(s) has to.
    Raises UriError for another scheme, a missing part, or a path that climbs out with `..`.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in SCHEMES:
        raise UriError(f"{uri!r} is not an address; start it with one of {', '.join(s + '://' for s in SCHEMES)}")
    rest, marked, digest = rest.partition(_DIGEST)
    if marked and not re.fullmatch("[0-9a-f]{64}", digest):
        raise UriError(f"{uri!r} ends in no sha256: it has 64 digits of 0-9 and a-f")
    if any(part == ".." for part in rest.split("/")):
        raise UriError(f"{uri!r} climbs out of its volume with '..'; write the path without it")
    if any(ord(char) < 32 for char in rest):
        raise UriError(f"{uri!r} contains control characters")
    return _parse_rest(uri, scheme, rest, digest or None)


def _parse_rest(uri: str, scheme: str, rest: str, sha256: str | None) -> Location:
    if scheme == "file":
        if not rest.startswith("/"):
            raise UriError(f"{uri!r} must be absolute: file:///PATH")
        return Location("file", "", rest, None, sha256)
    if scheme == "hf":
        return _parse_hub(uri, rest, sha256)
    root, _, path = rest.partition("/")
    if not root:
        raise UriError(f"{uri!r} names no {_ROOT_NAMES[scheme]}; write {scheme}://{_ROOT_NAMES[scheme].upper()}/PATH")
    if scheme in WEB:
        return _parse_web(uri, scheme, root, path, sha256)
    if scheme == "configmap" and (not path or "/" in path):
        raise UriError(f"{uri!r} must name one key: configmap://NAME/KEY")
    if scheme == "arena" and path.strip("/"):
        raise UriError(f"{uri!r} must name a ModelServe and nothing more: arena://NAME")
    return Location(scheme, root, path.strip("/"), None, sha256)  # type: ignore[arg-type]  # checked by parse_uri


_ROOT_NAMES = {
    "s3": "bucket",
    "gs": "bucket",
    "https": "host",
    "http": "host",
    "pvc": "claim",
    "configmap": "name",
    "arena": "name",
}


def _parse_web(uri: str, scheme: str, root: str, path: str, sha256: str | None) -> Location:
    if not path:
        raise UriError(f"{uri!r} names no file; write {scheme}://HOST/FILE")
    if sha256 is None:
        raise UriError(f"{uri!r} says nothing of what lies there: set sha256 beside it, or end it with #sha256=DIGEST")
    return Location(scheme, root, path, None, sha256)  # type: ignore[arg-type]  # checked by parse_uri


def _parse_hub(uri: str, rest: str, sha256: str | None) -> Location:
    parts = rest.split("/", 2)
    if len(parts) < 2 or not parts[0] or not parts[1].partition("@")[0]:
        raise UriError(f"{uri!r} must be hf://ORG/NAME, with an optional @REVISION")
    name, at, revision = parts[1].partition("@")
    if at and not revision:
        raise UriError(f"{uri!r} ends its name with '@' but gives no revision")
    return Location("hf", f"{parts[0]}/{name}", parts[2] if len(parts) > 2 else "", revision or None, sha256)
