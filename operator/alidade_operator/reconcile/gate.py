"""The gate of an AlignmentRun: the evaluation's numbers against the rules. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from alidade_crds.alignmentrun import Bound, GateRule
from alidade_crds.evaluation import EvaluationResult
from alidade_crds.reasons import Reason

ALIGNED_MODEL = "aligned"
START_MODEL = "sft"


@dataclass(frozen=True)
class Verdict:
    """Whether a model may be served, and the numbers that say so."""

    passed: bool
    reason: Reason
    message: str


def judge(rules: Sequence[GateRule], results: Sequence[EvaluationResult]) -> Verdict:
    """The verdict on the aligned model. A metric that was not measured does not pass."""
    said = [_judge(rule, results) for rule in rules]
    message = " ".join(verdict.message for verdict in said)
    failed = next((verdict for verdict in said if not verdict.passed), None)
    if failed is not None:
        return Verdict(False, failed.reason, message)
    return Verdict(True, Reason.COMPLETED, message)


def _judge(rule: GateRule, results: Sequence[EvaluationResult]) -> Verdict:
    found = _value(results, rule.metric, ALIGNED_MODEL)
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
        passed &= sign * found >= sign * limit
        said.append(f"{word} {limit:.4g}{_origin(bound, results, rule.metric)}")
    verdict = "passes" if passed else "does not pass"
    message = f"{rule.metric} is {found:.4g} and {verdict}: it has to be {' and '.join(said)}."
    return Verdict(passed, Reason.COMPLETED if passed else Reason.METRIC_OUT_OF_BOUNDS, message)


def _limit(bound: Bound, results: Sequence[EvaluationResult], metric: str) -> float | None:
    if bound.baseline is None:
        return bound.value
    base = _value(results, metric, bound.baseline)
    return None if base is None else base * bound.times + bound.plus


def _origin(bound: Bound, results: Sequence[EvaluationResult], metric: str) -> str:
    """Where a relative bound comes from, as in ` (sft 0.512 x 1.2)`."""
    if bound.baseline is None:
        return ""
    times = f" x {bound.times:g}" if bound.times != 1 else ""
    plus = f" {'+' if bound.plus > 0 else '-'} {abs(bound.plus):g}" if bound.plus else ""
    return f" ({bound.baseline} {_value(results, metric, bound.baseline):.4g}{times}{plus})"


def _value(results: Sequence[EvaluationResult], metric: str, model: str) -> float | None:
    """The value of a metric, named alone or with its suite in front: `perplexity`, `reward_mean`."""
    own = [one for one in results if one.model == model]
    for one in own:
        if metric in (one.metric, f"{one.suite}_{one.metric}", f"{one.suite}.{one.metric}"):
            return one.value
    return None


def _missing(results: Sequence[EvaluationResult], metric: str, model: str) -> Verdict:
    measured = sorted({f"{one.suite}_{one.metric}" for one in results if one.model == model})
    there = f"measured were {', '.join(measured)}" if measured else "nothing was measured of it"
    message = f"The gate names {metric} of model {model}, which the evaluation does not have; {there}."
    return Verdict(False, Reason.METRIC_MISSING, message)
