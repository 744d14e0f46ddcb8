"""Answers that a process has drawn, kept in a file so that no draw is ever repeated."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alidade_engine.disk import write_file
from alidade_engine.sampling import Completion


@dataclass(frozen=True)
class KeptDraws:
    """Draws of one process in a file; key: job, seed and prompts, which have to be the same for them to count."""

    path: Path
    key: str

    def read(self) -> dict[tuple[int, int], Completion]:
        """Completions by (place of the prompt, sample)."""
        if not self.path.is_file():
            return {}
        document: Mapping[str, Any] = json.loads(self.path.read_text())
        if document["key"] != self.key:
            return {}
        return {(place, sample): Completion(**one) for place, sample, one in document["drawn"]}

    def write(self, drawn: Mapping[tuple[int, int], Completion]) -> None:
        """Replaces what the file had."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = [[place, sample, asdict(one)] for (place, sample), one in sorted(drawn.items())]
        write_file(self.path, json.dumps({"key": self.key, "drawn": rows}))
