"""A controller's queue, whose time is played."""

from collections.abc import Hashable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Line(Generic[K]):
    """Keys that are to be worked on, each from a time on."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.due: dict[K, datetime] = {}

    def add(self, key: K) -> None:
        """At once."""
        self.due[key] = self.now

    def add_after(self, key: K, delay_s: float) -> None:
        """After a time, or earlier if it is in line already."""
        then = self.now + timedelta(seconds=delay_s)
        self.due[key] = min(self.due.get(key, then), then)

    def failed(self, key: K) -> float:
        """After the shortest back-off."""
        self.add_after(key, 0.1)
        return 0.1

    def ready(self) -> list[K]:
        """Those whose time has come."""
        return sorted((key for key, since in self.due.items() if since <= self.now), key=str)
