"""What Dockerfiles say, instruction by instruction."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMAGES = sorted(path.parent.name for path in (ROOT / "images").glob("*/Dockerfile"))
BASE_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH of the base image."""


@dataclass
class Stage:
    """One FROM and what follows it."""

    base: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        """The arguments of every instruction of that name, in order."""
        return [arguments for name, arguments in self.instructions if name == instruction]


@dataclass(frozen=True)
class Dockerfile:
    """An image's stages, and the arguments before the first with their defaults."""

    text: str
    arguments: dict[str, str]
    stages: list[Stage]

    @property
    def last(self) -> Stage:
        """The stage that becomes the image."""
        return self.stages[-1]

    @property
    def entrypoint(self) -> list[str]:
        """The program and its first arguments."""
        (arguments,) = self.last.all("ENTRYPOINT")
        parsed: list[str] = json.loads(arguments)
        return parsed

    @property
    def user(self) -> tuple[int, int]:
        """User and group that the image's processes run as; ValueError for names."""
        user, _, group = self.last.all("USER")[-1].partition(":")
        return int(user), int(group)

    @property
    def environment(self) -> dict[str, str]:
        """What the last stage sets; $PATH is the base's."""
        pairs = dict(re.findall(r"(\w+)=(\S+)", " ".join(self.last.all("ENV"))))
        return {name: value.replace("$PATH", BASE_PATH) for name, value in pairs.items()}

    @property
    def labels(self) -> dict[str, str]:
        """The last stage's labels, variables as they stand."""
        return dict(re.findall(r'([\w.]+)="([^"]*)"', " ".join(self.last.all("LABEL"))))

    def declared(self) -> set[str]:
        """Names of all build arguments."""
        inner = (name.partition("=")[0] for stage in self.stages for name in stage.all("ARG"))
        return {*self.arguments, *inner}


def read(image: str) -> Dockerfile:
    """The image's Dockerfile."""
    text = (ROOT / "images" / image / "Dockerfile").read_text()
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in filter(None, joined.splitlines()):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            base, _, alias = rest.partition(" AS ")
            stages.append(Stage(base, alias))
        elif stages:
            stages[-1].instructions.append((name, rest.strip()))
        else:
            key, _, value = rest.partition("=")
            arguments[key] = value
    return Dockerfile(text, arguments, stages)
