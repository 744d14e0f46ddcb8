"""Comparisons: who answered what, kept here alone, so that a vote is about what was really answered."""

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from time import monotonic

from alidade_gateway.backends import Backend
from alidade_gateway.pages.votes import Messages, Player, Verdict, Vote
from alidade_serving.front.refusals import Refusal, invalid, overloaded

KEPT = 500
"""Comparisons at once; of as many with texts as long as allowed the memory is below 100 MiB."""
ANSWERING = 16
"""Comparisons whose answers are being given, at once: each keeps two slots of the servers busy."""
EXPIRE_S = 3600.0
MOST_TURNS = 40
MOST_HISTORY = 16_000
"""Characters of the turns before a message."""
_RETRY_AFTER_S = 5


class State(Enum):
    """Where a comparison stands."""

    ANSWERING = "answering"
    ANSWERED = "answered"
    BROKEN = "broken"


@dataclass
class Side:
    """One of the two. text: what it has answered so far, as it was sent on. model: what its server calls it."""

    backend: Backend
    player: Player
    model: str
    text: str = ""


@dataclass
class Comparison:
    """Two answers to the same turns."""

    id: str
    prompt: Messages
    left: Side
    right: Side
    made_at: float
    state: State = field(default=State.ANSWERING)
    verdict: Verdict | None = None

    @property
    def alike(self) -> bool:
        """Whether both have answered the same, so that neither can be better."""
        return self.left.text.strip() == self.right.text.strip()

    @contextmanager
    def voted(self, verdict: Verdict) -> Iterator[Vote]:
        """The vote to keep; the comparison takes no other one, unless an OSError says that it was not kept.

        Raises Refusal(409) when there is nothing to vote on.
        """
        self._check_open(verdict)
        self.verdict = verdict
        try:
            yield Vote(self.prompt, self.left.player, self.right.player, self.left.text, self.right.text, verdict)
        except OSError:
            self.verdict = None
            raise

    def _check_open(self, verdict: Verdict) -> None:
        if self.verdict is not None:
            raise _conflict("This comparison has its vote already; a comparison has one.")
        if self.state is State.ANSWERING:
            raise _conflict("The answers are not complete yet; vote when both are.")
        if self.state is State.BROKEN:
            raise _conflict("There are no two whole answers to vote on; ask again.")
        if self.alike and verdict in (Verdict.LEFT, Verdict.RIGHT):
            raise _conflict("Both answers are the same, so neither is better; vote tie or both_bad, or ask again.")

    def turns_after(self) -> Messages:
        """The conversation that a follow-up goes on from: with the better answer, of two equally good ones the left.

        Raises Refusal(409) when no answer is good enough, or there is no vote yet.
        """
        if self.verdict is None:
            raise _conflict("after: the comparison before has no vote yet; a follow-up goes on from the better answer.")
        if self.verdict is Verdict.BOTH_BAD:
            raise _conflict("after: both answers of the comparison before were bad; ask a new question.")
        better = self.right if self.verdict is Verdict.RIGHT else self.left
        return [*self.prompt, {"role": "assistant", "content": better.text}]


class Comparisons:
    """The newest comparisons, by an identifier that cannot be guessed."""

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[str, Comparison] = OrderedDict()  # oldest first

    @contextmanager
    def begun(self, prompt: Messages, one: Side, other: Side) -> Iterator[Comparison]:
        """A new comparison, with the sides in random order, to be answered within; else it is broken.

        Raises Refusal(429) when too many are being answered.
        """
        self._forget(kept=KEPT - 1)
        answering = sum(kept.state is State.ANSWERING for kept in self._kept.values())
        if answering >= ANSWERING:
            raise overloaded(
                f"{answering} comparisons are being answered, which is the limit; try again later.", _RETRY_AFTER_S
            )
        left, right = (one, other) if secrets.randbelow(2) else (other, one)
        made = Comparison(secrets.token_urlsafe(18), prompt, left, right, self._clock())
        self._kept[made.id] = made
        try:
            yield made
        finally:
            if made.state is State.ANSWERING:
                made.state = State.BROKEN

    def find(self, identifier: str) -> Comparison:
        """One that was made. Raises Refusal(404) when there is none such, or no more."""
        self._forget(kept=KEPT)
        found = self._kept.get(identifier)
        if found is None:
            raise Refusal(
                HTTPStatus.NOT_FOUND,
                "not_found",
                f"There is no such comparison, or no more: they are kept for {EXPIRE_S / 60:g} minutes. Ask again.",
            )
        return found

    def _forget(self, *, kept: int) -> None:
        """Drops what is too old, and the oldest where they are too many; never what is being answered."""
        made_before = self._clock() - EXPIRE_S
        surplus = len(self._kept) - kept
        for identifier, comparison in list(self._kept.items()):
            if comparison.made_at >= made_before and surplus <= 0:
                break
            if comparison.state is not State.ANSWERING:
                del self._kept[identifier]
                surplus -= 1


def check_history(turns: Messages) -> None:
    """Raises Refusal(422) for a conversation that has become too long to go on."""
    characters = sum(len(turn["content"]) for turn in turns)
    if len(turns) > MOST_TURNS or characters > MOST_HISTORY:
        raise invalid(
            f"The conversation has {len(turns)} turns of {characters} characters; at most {MOST_TURNS} turns of "
            f"{MOST_HISTORY} characters can be followed up. Ask a new question.",
            "after",
        )


def _conflict(message: str) -> Refusal:
    return Refusal(HTTPStatus.CONFLICT, "conflict", message)
