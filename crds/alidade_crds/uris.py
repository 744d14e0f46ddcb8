"""Addresses of models and data: one parser, so that operator and trainer mean the same by them."""

from dataclasses import dataclass
from typing import Literal, get_args

Scheme = Literal["hf", "s3", "gs", "pvc", "configmap", "arena", "file"]
SCHEMES: tuple[str, ...] = get_args(Scheme)
REMOTE = ("hf", "s3", "gs")
"""What a pod fetches from elsewhere."""


class UriError(ValueError):
    """A URI that cannot be used; the message says why and what to write instead."""


@dataclass(frozen=True)
class Location:
    """A parsed URI: root is the claim, ConfigMap, ModelServe, bucket or repository, path what follows.

    revision: only for hf."""

    scheme: Scheme
    root: str
    path: str
    revision: str | None = None

    def __str__(self) -> str:
        if self.scheme == "file":
            return f"file://{self.path}"  # which begins with its own slash
        revision = f"@{self.revision}" if self.revision else ""
        tail = f"/{self.path}" if self.path else ""
        return f"{self.scheme}://{self.root}{revision}{tail}"


def parse_uri(uri: str) -> Location:
    """The parts of a URI.

    hf://ORG/NAME[@REVISION][/FILE], s3://BUCKET/KEY, gs://BUCKET/KEY, pvc://CLAIM/PATH, configmap://NAME/KEY, arena://NAME,
    file:///PATH.
    Raises UriError for another scheme, a missing part, or a path that climbs out with `..`.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in SCHEMES:
        raise UriError(f"{uri!r} is not an address; start it with one of {', '.join(s + '://' for s in SCHEMES)}")
    if any(part == ".." for part in rest.split("/")):
        raise UriError(f"{uri!r} climbs out of its volume with '..'; write the path without it")
    if any(ord(char) < 32 for char in rest):
        raise UriError(f"{uri!r} contains control characters")
    if scheme == "file":
        if not rest.startswith("/"):
            raise UriError(f"{uri!r} must be absolute: file:///PATH")
        return Location("file", "", rest)
    if scheme == "hf":
        return _parse_hub(uri, rest)
    root, _, path = rest.partition("/")
    if not root:
        raise UriError(f"{uri!r} names no {_ROOT_NAMES[scheme]}; write {scheme}://{_ROOT_NAMES[scheme].upper()}/PATH")
    if scheme == "configmap" and (not path or "/" in path):
        raise UriError(f"{uri!r} must name one key: configmap://NAME/KEY")
    if scheme == "arena" and path.strip("/"):
        raise UriError(f"{uri!r} must name a ModelServe and nothing more: arena://NAME")
    return Location(scheme, root, path.strip("/"))  # type: ignore[arg-type]  # membership in SCHEMES was checked


_ROOT_NAMES = {"s3": "bucket", "gs": "bucket", "pvc": "claim", "configmap": "name", "arena": "name"}


def _parse_hub(uri: str, rest: str) -> Location:
    parts = rest.split("/", 2)
    if len(parts) < 2 or not parts[0] or not parts[1].partition("@")[0]:
        raise UriError(f"{uri!r} must be hf://ORG/NAME, with an optional @REVISION")
    name, at, revision = parts[1].partition("@")
    if at and not revision:
        raise UriError(f"{uri!r} ends its name with '@' but gives no revision")
    return Location("hf", f"{parts[0]}/{name}", parts[2] if len(parts) > 2 else "", revision or None)
