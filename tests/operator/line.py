"""The operator's queue, whose time is played."""

from datetime import datetime, timedelta

from alidade_operator.cache import Key


class Line:
    """Keys that are to be worked on, each from a time on."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.due: dict[Key, datetime] = {}

    def add(self, key: Key) -> None:
        """At once."""
        self.due[key] = self.now

    def add_after(self, key: Key, delay_s: float) -> None:
        """After a time, or earlier if it is in line already."""
        then = self.now + timedelta(seconds=delay_s)
        self.due[key] = min(self.due.get(key, then), then)

    def failed(self, key: Key) -> float:
        """After the shortest back-off."""
        self.add_after(key, 0.1)
        return 0.1

    def ready(self) -> list[Key]:
        """Those whose time has come."""
        return sorted(key for key, since in self.due.items() if since <= self.now)
