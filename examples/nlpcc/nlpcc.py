"""Convert a file of the NLPCC-ICCPOL 2016 KBQA shared task into LMFlow's JSON.

    python examples/nlpcc/nlpcc.py train.txt --output out.json --limit 5000

The file is a sequence of blocks (UTF-8; lines end with CRLF or LF):

    <question id=1>	《线性代数》这本书的出版时间是什么？
    <triple id=1>	线性代数 ||| 出版时间 ||| 2013-12-30
    <answer id=1>	2013-12-30
    ==================================================

Some questions have no answer and some triples no subject or object: they are read, and left out of what is written.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

FIELD = re.compile(r"<(question|triple|answer) id=(\d+)>(.*)")
SEPARATOR = re.compile(r"={3,}")
FIELDS = ("question", "triple", "answer")
BULLETS = "•·-– "  # list marks that were scraped along with predicates: "•  密度"

Instance = Mapping[str, str]


class FormatError(ValueError):
    """A block that is not as the format says; the message names the line and what was expected there."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line


@dataclass(frozen=True)
class Entry:
    """One block. Every text is trimmed; answer, subject and object may be empty, as they are in the published files."""

    id: int
    question: str
    subject: str
    predicate: str
    object: str
    answer: str


@dataclass(frozen=True)
class Line:
    number: int
    id: int
    text: str


def clean(text: str) -> str:
    """The text trimmed, with no-break spaces and runs of blanks as one space."""
    return " ".join(text.split())


def read_entries(lines: Iterable[str]) -> Iterator[Entry]:
    """The blocks of a file, one by one. Raises FormatError at the first that is broken."""
    block: dict[str, Line] = {}
    number = 0
    for number, raw in enumerate(lines, start=1):
        text = raw.lstrip("\ufeff").rstrip("\r\n")
        if SEPARATOR.fullmatch(text.strip()):
            yield entry_of(block, number)
            block = {}
        elif text.strip():
            add_line(block, number, text)
    if block:
        yield entry_of(block, number + 1)


def add_line(block: dict[str, Line], number: int, text: str) -> None:
    """Put one line into its block, which must not have such a line, nor lines of another id."""
    match = FIELD.fullmatch(text)
    if match is None:
        raise FormatError(
            number, f"expected <question id=N>, <triple id=N>, <answer id=N> or a line of '=', found {text[:60]!r}"
        )
    name, identifier = match[1], int(match[2])
    if name in block:
        raise FormatError(
            number,
            f"a second <{name}> in one block; the first is in line {block[name].number}. "
            "Is the line of '=' between two blocks missing?",
        )
    for first, other in block.items():
        if other.id != identifier:
            raise FormatError(
                number, f"<{name}> has id {identifier}, but <{first}> in line {other.number} has id {other.id}"
            )
    block[name] = Line(number, identifier, match[3])


def entry_of(block: Mapping[str, Line], end: int) -> Entry:
    """The block as an entry; `end` is the line where it ends, for the message."""
    missing = [f"<{name}>" for name in FIELDS if name not in block]
    if missing:
        raise FormatError(end, f"the block that ends here has no {', '.join(missing)} line")
    question, triple, answer = (block[name] for name in FIELDS)
    parts = triple.text.split("|||", 2)
    if len(parts) != 3:
        raise FormatError(
            triple.number, f"a triple is 'subject ||| predicate ||| object', found {triple.text.strip()[:60]!r}"
        )
    if not question.text.strip():
        raise FormatError(question.number, "the question is empty")
    subject, predicate, value = (clean(part) for part in parts)
    return Entry(question.id, clean(question.text), subject, predicate.strip(BULLETS), value, clean(answer.text))


def read_file(path: Path) -> Iterator[Entry]:
    """The blocks of a UTF-8 file, split at line feeds only: Python knows more line ends than the format."""
    with path.open(encoding="utf-8", newline="\n") as lines:
        yield from read_entries(lines)


def text2text(entry: Entry) -> Instance | None:
    """Question and answer; nothing where there is no answer."""
    return {"input": entry.question, "output": entry.answer} if entry.answer else None


def text_only(entry: Entry) -> Instance | None:
    """The triple as a Chinese sentence; nothing where a part of it is missing."""
    if not (entry.subject and entry.predicate and entry.object):
        return None
    return {"text": f"{entry.subject}的{entry.predicate}是{entry.object}。"}


CONVERSIONS: Mapping[str, Callable[[Entry], Instance | None]] = {"text2text": text2text, "text_only": text_only}


def lmflow_text(type_name: str, instances: Iterable[Instance]) -> str:
    """LMFlow's JSON with one instance per line."""
    lines = ",\n".join(json.dumps(instance, ensure_ascii=False) for instance in instances)
    return f'{{"type": "{type_name}", "instances": [\n{lines}\n]}}\n'


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a file of the shared task, for example train.txt")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    parser.add_argument(
        "--format",
        choices=sorted(CONVERSIONS),
        default="text2text",
        help="text2text: question and answer (default); text_only: the triple as a sentence",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="use the first N questions only")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = argument_parser()
    options = parser.parse_args(argv)
    if options.limit is not None and options.limit < 1:
        parser.error(f"--limit is {options.limit}; it must be at least 1")
    try:
        converted = [CONVERSIONS[options.format](entry) for entry in islice(read_file(options.source), options.limit)]
        instances = [instance for instance in converted if instance is not None]
        options.output.write_text(lmflow_text(options.format, instances), encoding="utf-8", newline="\n")
    except UnicodeDecodeError as error:
        print(f"nlpcc: {options.source} is not UTF-8 (byte {error.start}); convert it first", file=sys.stderr)
        return 1
    except (OSError, FormatError) as error:
        print(f"nlpcc: {options.source}: {error}", file=sys.stderr)
        return 1
    print(f"{options.output}: {len(instances)} instances; {len(converted) - len(instances)} incomplete ones left out")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
