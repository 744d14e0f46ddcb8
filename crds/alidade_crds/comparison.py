"""Results of an evaluation as people read them: rounded to what is known, with the better ones told."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from alidade_crds.evaluation import (
    EVERY_MODEL,
    FAILED,
    LEAKED,
    SUITE_METRICS,
    UNFINISHED,
    EvaluationResult,
    SuiteType,
    Verdict,
)

SIGNS: dict[Verdict, str] = {"better": "▲", "worse": "▼", "indistinguishable": "≈"}
"""A sign for each verdict, which needs no colour to be told from the others."""
LOWER_IS_BETTER = frozenset({*SUITE_METRICS[SuiteType.PERPLEXITY], LEAKED, FAILED, UNFINISHED})
NEITHER_IS_BETTER = frozenset({"mean_length"})
_MOST_DECIMALS = 6

Direction = Literal["higher", "lower"] | None


def decimals_of(result: EvaluationResult) -> int:
    """Places behind the point: the interval's width to two digits.

    Without width four digits of the value, and none behind the point of a whole number.
    """
    width = 0.0 if result.low is None or result.high is None else result.high - result.low
    digits, size = (2, width) if width > 0 else (4, abs(result.value))
    if width == 0 and float(result.value).is_integer():
        return 0
    return min(_MOST_DECIMALS, max(0, digits - 1 - math.floor(math.log10(size))))


def value_text(result: EvaluationResult) -> str:
    """The value, as 0.43."""
    return _fixed(result.value, decimals_of(result))


def interval_text(result: EvaluationResult) -> str | None:
    """Its 95 % interval, as 0.37 to 0.50; None without one."""
    if result.low is None or result.high is None:
        return None
    places = decimals_of(result)
    return f"{_fixed(result.low, places)} to {_fixed(result.high, places)}"


def difference_text(result: EvaluationResult) -> str | None:
    """The interval of the difference from the baseline, as +0.05 to +0.20; None for what is compared with nothing.

    On which side of 0 its ends lie decides the verdict, so they have the digits to tell.
    """
    low, high = result.difference_low, result.difference_high
    if low is None or high is None:
        return None
    places = decimals_of(result.model_copy(update={"low": low, "high": high}))
    while places < _MOST_DECIMALS and any(end and not round(end, places) for end in (low, high)):
        places += 1
    return f"{_signed(low, places)} to {_signed(high, places)}"


def _fixed(value: float, places: int) -> str:
    text = f"{value:,.{places}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text.lstrip("-")


def _signed(value: float, places: int) -> str:
    text = _fixed(value, places)
    return text if text.startswith("−") or not float(text.replace(",", "")) else f"+{text}"


def metrics_of(results: Iterable[EvaluationResult]) -> dict[tuple[str, str], list[EvaluationResult]]:
    """The results of each (suite, metric), in their order."""
    found: dict[tuple[str, str], list[EvaluationResult]] = {}
    for result in results:
        found.setdefault((result.suite, result.metric), []).append(result)
    return found


def direction_of(results: Sequence[EvaluationResult]) -> Direction:
    """Which way of a metric is better: by its verdicts, else by its name; None where neither tells.

    results: of one metric.
    """
    for result in results:
        if result.verdict in ("better", "worse") and result.difference_low is not None:
            return "higher" if (result.verdict == "better") == (result.difference_low > 0) else "lower"
    metric = results[0].metric
    if metric in LOWER_IS_BETTER:
        return "lower"
    known = any(metric in metrics for metrics in SUITE_METRICS.values())
    return "higher" if known and metric not in NEITHER_IS_BETTER else None


def best_of(results: Sequence[EvaluationResult], direction: Direction) -> list[str]:
    """The models with the best value of a metric; none where there is nothing to choose from."""
    values = {result.model: result.value for result in results if result.model != EVERY_MODEL}
    if direction is None or len(set(values.values())) < 2:
        return []
    best = max(values.values()) if direction == "higher" else min(values.values())
    return [model for model, value in values.items() if value == best]


def counted(results: Sequence[EvaluationResult], model: str) -> str:
    """A model's verdicts, as `7 better, 1 worse, 2 indistinguishable`; empty when it was compared with nothing."""
    verdicts = [result.verdict for result in results if result.model == model and result.verdict is not None]
    return ", ".join(f"{verdicts.count(kind)} {kind}" for kind in SIGNS if kind in verdicts)
