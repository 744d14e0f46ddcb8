"""Writes docs/reference/licences.md: what constraints.txt pins, and under which licences it comes.

    python tools/licences.py     in the environment that has the packages, .venv

pip-licenses, from an environment of its own (.tools/audit), reads them from the packages' metadata.
"""

import json
import re
import subprocess
import sys
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "licences.md"
HEAD = """\
# Licences of dependencies

Every Python package that `constraints.txt` pins, by the licence that its own metadata names. That is more than any
image carries: tools of development and tests are among them. `python tools/licences.py` writes this page.

| licence | packages |
|---|---|
"""


def main() -> int:
    """Writes the page."""
    environment = [sys.executable, ROOT / "tools" / "environment.py", ROOT / ".tools" / "audit"]
    made = subprocess.run(
        [*environment, "pip-licenses==5.5.5", "pip-audit==2.10.1"], stdout=subprocess.PIPE, text=True, check=True
    )
    python = Path(made.stdout.strip())
    read = [
        python.with_name("pip-licenses"),
        f"--python={sys.executable}",
        "--from=mixed",
        "--format=json",
        "--with-system",
    ]
    found = json.loads(subprocess.run(read, stdout=subprocess.PIPE, text=True, check=True).stdout)
    licences = {normal(one["Name"]): _short(one["License"]) for one in found}
    missing = sorted(pinned() - set(licences))
    if missing:
        print(f"{', '.join(missing)} is pinned and not installed here; make .venv first.", file=sys.stderr)
        return 1
    rows = sorted((licences[name], name) for name in pinned())
    table = [
        f"| {licence} | {', '.join(name for _, name in several)} |\n"
        for licence, several in groupby(rows, key=lambda row: row[0])
    ]
    PAGE.write_text(HEAD + "".join(table), encoding="utf-8")
    return 0


def pinned() -> set[str]:
    """Names in constraints.txt."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return {normal(name) for name in re.findall(r"^([-._A-Za-z0-9]+)==", text, re.MULTILINE)}


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _short(licence: str) -> str:
    """The licence's name; some packages give all of its text."""
    first = licence.strip().splitlines()[0] if licence.strip() else "not named"
    return first.removeprefix("The ").replace("|", "/")


if __name__ == "__main__":
    sys.exit(main())
