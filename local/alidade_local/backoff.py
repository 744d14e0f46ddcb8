"""Pauses between restarts of what crashes."""

from __future__ import annotations


class CrashBackoff:
    """Pauses before restarts: none before the first, then doubling; forgotten after a long enough run."""

    def __init__(self, first_s: float, last_s: float, reset_s: float) -> None:
        self._first_s, self._last_s, self._reset_s = first_s, last_s, reset_s
        self._next_s = 0.0

    def next(self, ran_for_s: float) -> float:
        """The pause in seconds after a run of that length."""
        if ran_for_s >= self._reset_s:
            self._next_s = 0.0
        delay_s = self._next_s
        self._next_s = min(delay_s * 2 if delay_s else self._first_s, self._last_s)
        return delay_s
