"""The gate of an AlignmentRun: the evaluation's numbers against the rules. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from alidade_crds.alignmentrun import Bound, GateRule
from alidade_crds.evaluation import EVERY_MODEL, EvaluationResult
from alidade_crds.reasons import Reason

ALIGNED_MODEL = "aligned"
START_MODEL = "sft"


@dataclass(frozen=True)
class Verdict:
    """Whether a model may be served, and the numbers that say so."""

    passed: bool
    reason: Reason
    message: str


def judge(rules: Sequence[GateRule], results: Sequence[EvaluationResult], *, baseline: str = START_MODEL) -> Verdict:
    """The verdict on the aligned model. A metric that was not measured does not pass.

    baseline: the model that the evaluation has compared with.
    """
    said = [_judge(rule, results, baseline) for rule in rules]
    message = " ".join(verdict.message for verdict in said)
    failed = next((verdict for verdict in said if not verdict.passed), None)
    if failed is not None:
        return Verdict(False, failed.reason, message)
    return Verdict(True, Reason.COMPLETED, message)


def _judge(rule: GateRule, results: Sequence[EvaluationResult], baseline: str) -> Verdict:
    found = _result(results, rule.metric, ALIGNED_MODEL)
    if found is None:
        return _missing(results, rule.metric, ALIGNED_MODEL)
    said, passed = [], True
    for word, bound, sign in (("at least", rule.at_least, 1), ("at most", rule.at_most, -1)):
        if bound is None:
            continue
        limit = _limit(bound, results, rule.metric)
        if limit is None:
            assert bound.baseline is not None, "a bound without a baseline has a value"
            return _missing(results, rule.metric, bound.baseline)
        asked = f"{word} {limit:.4g}{_origin(bound, results, rule.metric)}"
        if rule.significant:
            within, how = _is_significant(found, bound, limit, sign, baseline)
            passed, asked = passed and within, f"{asked} with its interval, and {how}"
        else:
            passed = passed and sign * found.value >= sign * limit
        said.append(asked)
    verdict = "passes" if passed else "does not pass"
    message = f"{rule.metric} is {found.value:.4g} and {verdict}: it has to be {' and '.join(said)}."
    return Verdict(passed, Reason.COMPLETED if passed else Reason.METRIC_OUT_OF_BOUNDS, message)


def _is_significant(found: EvaluationResult, bound: Bound, limit: float, sign: int, baseline: str) -> tuple[bool, str]:
    """Whether the interval is within a bound, and the words that say what the interval is.

    Against the evaluation's own baseline it is that of the difference, on the same samples: much narrower than what the
    two models' own intervals would allow.
    """
    if bound.baseline == baseline and bound.times == 1:
        low, high, least, what = found.difference_low, found.difference_high, bound.plus, "the difference is"
    else:
        low, high, least, what = found.low, found.high, limit, "that is"
    end = low if sign > 0 else high
    if low is None or high is None or end is None:
        return False, "there is none of so few samples"
    return sign * end >= sign * least, f"{what} {low:.4g} to {high:.4g}"


def _limit(bound: Bound, results: Sequence[EvaluationResult], metric: str) -> float | None:
    if bound.baseline is None:
        return bound.value
    base = _result(results, metric, bound.baseline)
    return None if base is None else base.value * bound.times + bound.plus


def _origin(bound: Bound, results: Sequence[EvaluationResult], metric: str) -> str:
    """Where a relative bound comes from, as in ` (sft 0.512 x 1.2)`."""
    if bound.baseline is None:
        return ""
    base = _result(results, metric, bound.baseline)
    assert base is not None, "asked by _limit"
    times = f" x {bound.times:g}" if bound.times != 1 else ""
    plus = f" {'+' if bound.plus > 0 else '-'} {abs(bound.plus):g}" if bound.plus else ""
    return f" ({bound.baseline} {base.value:.4g}{times}{plus})"


def _result(results: Sequence[EvaluationResult], metric: str, model: str) -> EvaluationResult | None:
    """A metric, named alone or with its suite in front: `perplexity`, `reward_mean`, `questions.leaked`."""
    for one in results:
        is_named = metric in (one.metric, f"{one.suite}_{one.metric}", f"{one.suite}.{one.metric}")
        if is_named and one.model in (model, EVERY_MODEL):
            return one
    return None


def _missing(results: Sequence[EvaluationResult], metric: str, model: str) -> Verdict:
    measured = sorted({f"{one.suite}.{one.metric}" for one in results if one.model in (model, EVERY_MODEL)})
    there = f"measured were {', '.join(measured)}" if measured else "nothing was measured of it"
    message = f"The gate names {metric} of model {model}, which the evaluation does not have; {there}."
    return Verdict(False, Reason.METRIC_MISSING, message)
