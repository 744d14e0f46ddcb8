"""What is kept of each request, in seconds from the start of the load."""

from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["answered", "shed", "failed"]
"""shed: refused with 429, which is what a bounded server should do with more than it can take."""


@dataclass
class Record:
    """One request. Latencies count from arrived_s, when it should have been sent, whenever it was.

    sent_s: when the connection was asked for; None when that never came. gaps_s: times between events with text.
    """

    number: int
    arrived_s: float
    sent_s: float | None = None
    first_token_s: float | None = None
    ended_s: float = 0.0
    gaps_s: list[float] = field(default_factory=list)
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    outcome: Outcome = "failed"
    reason: str = ""
    message: str = ""

    @property
    def ttft_s(self) -> float | None:
        """Time to first token."""
        return None if self.first_token_s is None else self.first_token_s - self.arrived_s

    @property
    def e2e_s(self) -> float:
        """Time to the end of the answer."""
        return self.ended_s - self.arrived_s

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first; None of answers of one token, and without the server's count."""
        if self.first_token_s is None or self.answer_tokens is None or self.answer_tokens < 2:
            return None
        return (self.ended_s - self.first_token_s) / (self.answer_tokens - 1)

    def end(self, outcome: Outcome, at_s: float, reason: str = "", message: str = "") -> None:
        """Says how it ended."""
        self.outcome, self.ended_s, self.reason, self.message = outcome, at_s, reason, message
