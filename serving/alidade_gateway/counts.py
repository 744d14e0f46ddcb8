"""What one side of a gateway was asked and how it answered, for whoever compares the two."""

import math
from collections import deque
from collections.abc import Iterable

from alidade_crds.contract import BackendCounts

# As the contract says: enough for a 95th percentile that rests on fifty, little enough to follow a change.
_NEWEST = 1000


class Counts:
    """Requests, errors, and how long the newest answers took."""

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.first_bytes: deque[float] = deque(maxlen=_NEWEST)
        self._wholes: deque[float] = deque(maxlen=_NEWEST)

    def answered(self, *, first_byte_s: float, whole_s: float) -> None:
        """Records the times of one whole answer that was no error, counted from the request's arrival."""
        self.first_bytes.append(first_byte_s)
        self._wholes.append(whole_s)

    def document(self) -> BackendCounts:
        """All of it, as the contract names it."""
        return BackendCounts(
            requests=self.requests,
            errors=self.errors,
            first_byte_seconds_p50=percentile(self.first_bytes, 50),
            first_byte_seconds_p95=percentile(self.first_bytes, 95),
            seconds_p50=percentile(self._wholes, 50),
            seconds_p95=percentile(self._wholes, 95),
        )


def percentile(values: Iterable[float], percent: float) -> float | None:
    """The smallest value that at least so many percent of the values do not exceed (nearest rank); None of none."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(1, math.ceil(percent / 100 * len(ordered))) - 1]
