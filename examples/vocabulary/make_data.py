"""Texts of examples/kbqa's facts, by language: python examples/vocabulary/make_data.py

Every question of the knowledge base with its answer behind it, as plain text (LMFlow's text_only), in the files that
the manifests read. English is what the base learns, Chinese what its vocabulary is extended for. The same bytes on
every machine.
"""

import argparse
import csv
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SOURCE = FOLDER.parent / "kbqa"
WORDINGS = 4
"""Wordings that each fact is asked in; more would only repeat it."""
HELD_OUT = 16
"""Of so many texts one is held out."""
FILES = {"english.json": ("en", False), "chinese.json": ("zh", False), "chinese-heldout.json": ("zh", True)}


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table with a header."""
    with path.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened, delimiter="\t", quoting=csv.QUOTE_NONE))


def texts(language: str) -> Iterator[str]:
    """Question and answer of every fact, in the first wordings of its predicate."""
    wordings: dict[str, list[str]] = {}
    for row in rows(SOURCE / "templates.tsv"):
        if row["language"] == language and row["use"] == "train":
            wordings.setdefault(row["predicate"], []).append(row["text"])
    for fact in rows(SOURCE / "facts.tsv"):
        if fact["language"] == language:
            for wording in wordings[fact["predicate"]][:WORDINGS]:
                yield f"{wording.replace('{subject}', fact['subject'])} {fact['object']}"


def is_held_out(text: str) -> bool:
    """Whether a text is kept from training, by its content."""
    return hashlib.sha256(text.encode()).digest()[0] % HELD_OUT == 0


def main(argv: Sequence[str]) -> int:
    """Writes the files; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=FOLDER / "data", help="folder to write to")
    output = parser.parse_args(argv).output
    output.mkdir(parents=True, exist_ok=True)
    for name, (language, held_out) in FILES.items():
        chosen = [text for text in texts(language) if language == "en" or is_held_out(text) == held_out]
        lines = ",\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in chosen)
        (output / name).write_text(f'{{"type": "text_only", "instances": [\n{lines}\n]}}\n', encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
