"""The documents' fenced blocks, and the commands in them.

A block of commands is one of the language `console`, with `$ ` before each command and what it prints below. What a
reader needs for commands beyond this machine is said above them, as a paragraph in italics that begins with "Needs":
directly under a heading it holds for all that stands under that heading, elsewhere for the next block.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_TOKENS = re.compile(
    r"^(?P<hashes>#+) [^\n]*$|^\*(?P<needs>Needs [^*]+)\*$|^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """Text between two fences."""

    page: str
    """Path of the page in the repository."""
    line: int
    language: str
    title: str
    """Name of the file that it is, or nothing."""
    text: str
    needs: str
    """What a reader needs to follow it, or nothing."""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command with what is between it and the next line of output, as one line."""

    block: Block
    text: str

    def __str__(self) -> str:
        return f"{self.block}: {self.text}"


def pages() -> list[str]:
    """Every document of the repository."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(listed.stdout.split())


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    sections: dict[int, str] = {}
    said, heading_ends = "", -1
    for token in _TOKENS.finditer(text):
        if token["hashes"]:
            depth = len(token["hashes"])
            sections = {level: needs for level, needs in sections.items() if level < depth}
            heading_ends = token.end()
        elif token["needs"]:
            if text[heading_ends : token.start()].strip():
                said = token["needs"]
            else:
                sections[depth] = token["needs"]
        else:
            line = text.count("\n", 0, token.start()) + 1
            needs = said or next(iter(sections.values()), "")
            yield Block(page, line, token["language"], token["title"] or "", token["text"], needs)
            said = ""


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block; a backslash at the end of a line goes on in the next."""
    for match in re.finditer(r"^\$ ((?:.*\\\n)*.*)$", block.text, re.MULTILINE):
        yield Command(block, re.sub(r"\\\n\s*", "", match[1]))


def named_commands(page: str) -> Iterator[Command]:
    """The commands that stand in a page's sentences."""
    text = (ROOT / page).read_text(encoding="utf-8")
    fences = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
    text = fences.sub(lambda match: "\n" * match[0].count("\n"), text)
    for match in re.finditer(r"`((?:alidade|helm|kubectl) [^`]+)`", text):
        place = Block(page, text.count("\n", 0, match.start()) + 1, "", "", "", "")
        yield Command(place, match[1].replace("\n", " "))


def all_commands() -> list[Command]:
    """The commands of all pages."""
    return [
        command
        for page in pages()
        for block in blocks(page)
        if block.language == "console"
        for command in commands(block)
    ]
