"""How often one address may ask."""

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from alidade_serving.front.refusals import overloaded


class Rate:
    """So many requests a minute of each address, which may all come at once (a token bucket)."""

    def __init__(self, *, per_minute: int, addresses: int = 10_000, clock: Callable[[], float] = monotonic) -> None:
        """addresses: of so many at most it is remembered how often they asked, of those that asked last."""
        self._most = per_minute
        self._addresses = addresses
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, and when it was counted

    def take(self, address: str) -> None:
        """Counts a request. Raises Refusal(429) with the time until there is another."""
        now = self._clock()
        left, counted = self._left.pop(address, (float(self._most), now))
        left = min(self._most, left + (now - counted) * self._most / 60)
        self._left[address] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > self._addresses:
            self._left.popitem(last=False)
        if left < 1:
            raise overloaded(
                f"From your address came {self._most} comparisons within a minute, which is the limit; wait a little.",
                retry_after_s=int((1 - left) * 60 / self._most) + 1,
            )
