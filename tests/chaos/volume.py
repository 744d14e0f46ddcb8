"""What is read of a run's volume, and done to it.

Where the suite has the volume at hand, it calls these functions; elsewhere a pod of its own runs this file, which
therefore needs nothing else of the suite: `python3 -c FILE FOLDER FUNCTION ARGUMENTS`, the last as JSON.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORKSPACE = "alidade-workspace"
"""The claim."""
LEDGER = "ledger.jsonl"


def read(folder: Path, models: list[str]) -> dict[str, Any]:
    """The stand-ins' ledger, and the digests of the models at these paths."""
    ledger = folder / LEDGER
    lines = [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    return {"ledger": lines, "digests": {path: digest(folder / path) for path in models}}


def digest(model: Path) -> str:
    """A model's digest, as it lies there: a stand-in's, or a real one's."""
    weights = model / "weights"
    if weights.exists():
        return f"sha256:{hashlib.sha256(weights.read_bytes()).hexdigest()}"
    from alidade_engine.digests import model_digest  # where there are real models only

    return model_digest(model) if model.is_dir() else "nothing"


def write(folder: Path, files: dict[str, str]) -> None:
    """Makes programs."""
    for path, text in files.items():
        program = folder / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(text)
        program.chmod(0o755)


def wait_for(folder: Path, pattern: str, limit_s: float) -> None:
    """Returns once a file of this pattern is there."""
    until = time.monotonic() + limit_s
    while not any(folder.glob(pattern)):
        assert time.monotonic() < until, f"not within {limit_s:g} s: {pattern}"
        time.sleep(0.1)


def cut(folder: Path, path: str, place: float) -> None:
    """A file ends early, at this part of its length; `mend` undoes it."""
    whole = _kept(folder, path)
    (folder / path).write_bytes(whole[: int(place * len(whole))])


def flip(folder: Path, path: str, place: float) -> None:
    """One byte of a file is another one; `mend` undoes it."""
    whole = _kept(folder, path)
    index = int(place * len(whole))
    (folder / path).write_bytes(whole[:index] + bytes([whole[index] ^ 255]) + whole[index + 1 :])


def _kept(folder: Path, path: str) -> bytes:
    whole = (folder / path).read_bytes()
    (folder / "kept").write_bytes(whole)
    return whole


def mend(folder: Path, path: str) -> None:
    """A file is as it was."""
    (folder / path).write_bytes((folder / "kept").read_bytes())


def spoil_newest(folder: Path, pattern: str, seed: int) -> None:
    """In the newest folder of a pattern, by its number, one file is cut short, or written over in the middle."""
    chance = random.Random(seed)
    newest = max(folder.glob(pattern), key=lambda one: int(one.name.rpartition("-")[2]))
    file = chance.choice(sorted(one for one in newest.rglob("*") if one.is_file() and one.stat().st_size > 100))
    whole = file.read_bytes()
    place = chance.randrange(len(whole) - 8)
    file.write_bytes(whole[:place] if chance.random() < 0.5 else whole[:place] + b"\0" * 8 + whole[place + 8 :])


ACTIONS: dict[str, Callable[..., Any]] = {
    action.__name__: action for action in (read, write, wait_for, cut, flip, mend, spoil_newest)
}

if __name__ == "__main__":
    place, name, told = sys.argv[1:]
    print(json.dumps({"answer": ACTIONS[name](Path(place), *json.loads(told))}))
