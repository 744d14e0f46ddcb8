"""Request paths taken apart."""

from dataclasses import dataclass
from urllib.parse import unquote


@dataclass(frozen=True)
class ResourcePath:
    """/api/v1/... or /apis/GROUP/VERSION/... with what it names."""

    group: str
    version: str
    plural: str
    namespace: str | None
    """None where the path names none: cluster-scoped objects and lists over all namespaces."""
    name: str = ""
    subresource: str = ""
    rest: str = ""
    watch: bool = False
    """Whether it is one of the old /watch/ paths."""


def parse_resource_path(path: str) -> ResourcePath | None:
    """What a path names, or nothing when it is not a path of resources."""
    parts = [unquote(part) for part in path.strip("/").split("/")]
    if parts[:1] == ["api"] and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[:1] == ["apis"] and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    watch = rest[0] == "watch" and len(rest) > 1
    if watch:
        rest = rest[1:]
    namespace = None
    if rest[0] == "namespaces" and len(rest) >= 3 and not (not group and rest[2] in ("status", "finalize")):
        namespace, rest = rest[1], rest[2:]
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    return ResourcePath(group, version, rest[0], namespace, name, subresource, "/".join(rest[3:]), watch)
