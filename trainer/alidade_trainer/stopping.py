"""The wish that training stops: a signal to this process, or the launcher's file."""

import signal
from pathlib import Path
from types import FrameType


class StopRequested(Exception):  # noqa: N818  # it is no error
    """Training was asked to stop at a moment when nothing has to be saved."""


class StopWish:
    """Whether training shall stop at the next chance."""

    def __init__(self, file: Path) -> None:
        """file: exists once the launcher was asked to stop."""
        self._file = file
        self._signalled = False
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def __call__(self) -> bool:
        """Whether someone asked."""
        return self._signalled or self._file.exists()

    def check(self) -> None:
        """Raises StopRequested when someone asked; for the time before the first step."""
        if self():
            raise StopRequested

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        self._signalled = True
