"""Where a container's paths really are.

Containers of the local cluster see the machine's file system: their mounts lie below a folder of their own, and what
names a mounted path in command, arguments or environment is rewritten to the real one. A program that has a mount's
path built in does not find it; it must be told its paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

# A path starts where the text starts or after one of these; elsewhere it is a part of another path or of a URL.
_BEFORE_PATH = r"(?:(?<=[\s=:,;'\"(<>|&`@\[{])|^)"
_AFTER_PATH = r"(?=$|[/\s:,;'\")<>|&`\]}])"


class PathMap:
    """Rewrites container paths to real ones for one container.

    root: the folder that stands for the container's `/`.
    mounted: the absolute paths in the container that exist below it (mount paths, the termination message path).
    """

    def __init__(self, root: Path, mounted: Iterable[str]) -> None:
        self.root = root
        self._mounted = {str(PurePosixPath(path)) for path in mounted}
        parents = {str(parent) for path in self._mounted for parent in PurePosixPath(path).parents}
        self._parents = parents - self._mounted - {"/"}
        alternatives = "|".join(re.escape(path) for path in sorted(self._mounted, key=len, reverse=True))
        self._inside_text = re.compile(f"{_BEFORE_PATH}(?:{alternatives}){_AFTER_PATH}") if alternatives else None

    def real(self, path: str) -> str:
        """The real path of an absolute container path if it is mounted, below a mount or above one; else itself."""
        plain = str(PurePosixPath(path))
        inside = plain in self._mounted or any(str(above) in self._mounted for above in PurePosixPath(plain).parents)
        if inside or plain in self._parents:
            return f"{self.root}{path}"
        return path

    def rewrite_argument(self, text: str) -> str:
        """An item of command or args: a path, `--flag=/path`, or a script that mentions mounted paths."""
        if text.startswith("/") and not re.search(r"\s", text):
            return self._rewrite_list(text)
        flag, separator, value = text.partition("=")
        if separator and value.startswith("/") and not re.search(r"\s", text):
            return f"{flag}={self._rewrite_list(value)}"
        if self._inside_text is None:
            return text
        return self._inside_text.sub(lambda found: f"{self.root}{found.group()}", text)

    def rewrite_value(self, text: str) -> str:
        """The value of an environment variable: a path, or a list of paths separated by colons."""
        return self._rewrite_list(text) if text.startswith("/") else text

    def _rewrite_list(self, text: str) -> str:
        return ":".join(self.real(part) if part.startswith("/") else part for part in text.split(":"))
