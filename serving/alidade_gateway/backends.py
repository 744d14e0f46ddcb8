"""The sides of a gateway, and which of them a request goes to."""

import random
from dataclasses import dataclass, field

from alidade_gateway.counts import Counts
from alidade_gateway.settings import Settings

STABLE = "stable"
CANARY = "canary"
AGAINST = "against"


@dataclass(frozen=True)
class Backend:
    """One side: a Service with any number of replicas behind it. model: the address of what it serves."""

    name: str
    url: str
    model: str
    counts: Counts = field(default_factory=Counts)


class Backends:
    """All sides. against: the other side of an arena, which gets no share of the requests."""

    def __init__(self, settings: Settings) -> None:
        self.stable = Backend(STABLE, settings.stable, settings.stable_model)
        self.canary = Backend(CANARY, settings.canary, settings.canary_model) if settings.canary else None
        self.against = (
            Backend(AGAINST, settings.arena_against, settings.arena_against_model) if settings.arena_against else None
        )
        self._canary_share = settings.canary_percent / 100

    def drawn(self) -> tuple[Backend, ...]:
        """Where a request is tried, in this order: each draws anew, and what the canary fails is left to stable."""
        # random() is below 1 and may be 0: of 0 % none, of 100 % all.
        if self.canary is not None and random.random() < self._canary_share:
            return self.canary, self.stable
        return (self.stable,)
