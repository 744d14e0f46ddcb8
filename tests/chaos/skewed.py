"""The operator's process with a clock that can jump: it is ahead by what the file named by CHAOS_CLOCK says."""

from __future__ import annotations

import os
import sys
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

from alidade_operator import controller, leader, main

_FILE = Path(os.environ["CHAOS_CLOCK"])


class Skewed(datetime):
    """The time as the operator's machine tells it."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Skewed:
        """The true time, and what is to be added."""
        told = datetime.now(tz) + timedelta(seconds=float(_FILE.read_text(encoding="utf-8") or 0))
        return cls.fromtimestamp(told.timestamp(), tz)


if __name__ == "__main__":
    for module in (controller, leader):
        module.datetime = Skewed  # type: ignore[attr-defined]  # what stands for another machine
    sys.exit(main.main())
