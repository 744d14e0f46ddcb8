"""What the records of a load say: latencies, throughput, errors, goodput."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alidade_cli.loadtest.load import Outcome
from alidade_cli.loadtest.records import Record

OBJECTIVES = ("ttft", "tpot", "e2e")
LATE_S = 0.05
"""A generator that sends so much after the arrival, at p99, measures itself."""


@dataclass(frozen=True)
class Spread:
    """A distribution of durations, in seconds."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """None without values."""
        known = sorted(value for value in values if value is not None)
        if not known:
            return None
        p50, p90, p95, p99 = (percentile(known, percent) for percent in (50, 90, 95, 99))
        return cls(len(known), math.fsum(known) / len(known), p50, p90, p95, p99, known[-1])

    def to_dict(self) -> dict[str, float]:
        """For programs."""
        names = ("count", "mean", "p50", "p90", "p95", "p99", "max")
        return {name: getattr(self, name) for name in names}


def percentile(ascending: Sequence[float], percent: float) -> float:
    """Linear between the two closest ranks (Hyndman and Fan 1996, definition 7), as numpy has it by default."""
    place = (len(ascending) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ascending) - 1)
    return ascending[below] + (ascending[above] - ascending[below]) * (place - below)


@dataclass(frozen=True)
class Failures:
    """Requests that ended alike, with what the first of them was told."""

    reason: str
    count: int
    message: str


@dataclass(frozen=True)
class Summary:
    """A load in numbers. Rates are per second of elapsed_s, the time to the last answer or the end of the load.

    Latencies are those of answered requests, from the arrival on. Tokens are as the server counted them;
    uncounted: answers of which it did not say. good: answered requests within every objective.
    """

    offered: int
    answered: int
    shed: int
    failed: int
    elapsed_s: float
    duration_s: float
    stopped: bool
    ttft: Spread | None
    tpot: Spread | None
    gap: Spread | None
    e2e: Spread | None
    late: Spread | None
    prompt_tokens: int
    answer_tokens: int
    uncounted: int
    most_in_flight: int
    errors: tuple[Failures, ...]
    objectives: Mapping[str, float]
    good: int | None

    @property
    def offered_per_s(self) -> float:
        """Requests that arrived."""
        return self.offered / (self.elapsed_s if self.stopped else self.duration_s)

    def per_s(self, number: float) -> float:
        """A number per second of the load."""
        return number / self.elapsed_s if self.elapsed_s else 0.0

    def to_dict(self) -> dict[str, Any]:
        """For programs; durations in seconds."""
        spreads = {"ttft": self.ttft, "tpot": self.tpot, "gap": self.gap, "e2e": self.e2e, "late": self.late}
        return {
            "offered": self.offered,
            "answered": self.answered,
            "shed": self.shed,
            "failed": self.failed,
            "durationSeconds": self.duration_s,
            "elapsedSeconds": self.elapsed_s,
            "stopped": self.stopped,
            "offeredPerSecond": self.offered_per_s,
            "answeredPerSecond": self.per_s(self.answered),
            "promptTokens": self.prompt_tokens,
            "answerTokens": self.answer_tokens,
            "answerTokensPerSecond": self.per_s(self.answer_tokens),
            "answersNotCounted": self.uncounted,
            "mostInFlight": self.most_in_flight,
            **{f"{name}Seconds": None if spread is None else spread.to_dict() for name, spread in spreads.items()},
            "errors": [{"reason": one.reason, "count": one.count, "message": one.message} for one in self.errors],
            "objectives": dict(self.objectives),
            "good": self.good,
            "goodput": None if self.good is None or not self.offered else self.good / self.offered,
            "goodPerSecond": None if self.good is None else self.per_s(self.good),
        }


def summarize(outcome: Outcome, duration_s: float, objectives: Mapping[str, float]) -> Summary:
    """The numbers of a load."""
    records = outcome.records
    answered = [record for record in records if record.outcome == "answered"]
    counted = [record for record in answered if record.answer_tokens is not None]
    good = sum(meets(record, objectives) for record in answered) if objectives else None
    return Summary(
        offered=len(records),
        answered=len(answered),
        shed=sum(record.outcome == "shed" for record in records),
        failed=sum(record.outcome == "failed" for record in records),
        elapsed_s=outcome.elapsed_s,
        duration_s=duration_s,
        stopped=outcome.stopped,
        ttft=Spread.of(record.ttft_s for record in answered),
        tpot=Spread.of(record.tpot_s for record in answered),
        gap=Spread.of(gap for record in answered for gap in record.gaps_s),
        e2e=Spread.of(record.e2e_s for record in answered),
        late=Spread.of(record.sent_s - record.arrived_s for record in records if record.sent_s is not None),
        prompt_tokens=sum(record.prompt_tokens or 0 for record in answered),
        answer_tokens=sum(record.answer_tokens or 0 for record in counted),
        uncounted=len(answered) - len(counted),
        most_in_flight=max((number for _, number in in_flight(records)), default=0),
        errors=tuple(_failures(records)),
        objectives=objectives,
        good=good,
    )


def meets(record: Record, objectives: Mapping[str, float]) -> bool:
    """Whether an answered request is within every objective; an answer of one token has no time per token to miss."""
    found = {"ttft": record.ttft_s, "tpot": record.tpot_s, "e2e": record.e2e_s}
    measured = ((found[name], limit) for name, limit in objectives.items())
    return all(value is None or value <= limit for value, limit in measured)


def in_flight(records: Iterable[Record]) -> list[tuple[float, int]]:
    """(second, requests that the server had) at each change."""
    changes = Counter[float]()
    for record in records:
        if record.sent_s is not None:
            changes[record.sent_s] += 1
            changes[record.ended_s] -= 1
    number, steps = 0, []
    for at in sorted(changes):
        number += changes[at]
        steps.append((at, number))
    return steps


def _failures(records: Iterable[Record]) -> Iterable[Failures]:
    """The most frequent first."""
    groups: dict[str, list[str]] = {}
    for record in records:
        if record.outcome != "answered":
            groups.setdefault(record.reason, []).append(record.message)
    for reason, messages in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])):
        yield Failures(reason, len(messages), messages[0])


def parse_objectives(text: str) -> dict[str, float]:
    """`ttft=0.5,tpot=0.05,e2e=5`, in seconds. ValueError with the names there are."""
    objectives: dict[str, float] = {}
    for part in text.split(","):
        name, sign, value = part.partition("=")
        name = name.strip()
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if name not in OBJECTIVES or not sign or name in objectives or not 0 < seconds < math.inf:
            raise ValueError(f"{part!r} is no objective; write seconds for {', '.join(OBJECTIVES)}, such as ttft=0.5")
        objectives[name] = seconds
    return objectives
