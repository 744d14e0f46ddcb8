"""Whether a canary is worse than the model before, by what gateways have counted of both."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from alidade_crds.base import MOST_COUNTED
from alidade_crds.contract import BackendCounts, GatewayDocument
from alidade_crds.modelserve import CanaryAnalysis

# The counts are looked at again and again, so that chance has many tries. Of 600 played canaries of 300 requests each,
# beside 1200 to a model with the same share of errors, looked at after every fifth request, this takes back 1 percent
# at a share of 0.01 or 0.02, and 2 percent at 0.05; at a significance of 0.05 it would be 11 to 17 percent.
SIGNIFICANCE = 0.005
# The same significance as a number of standard errors: 1 - Phi(2.576) = 0.005. Of 60 played canaries that are as fast
# as the model before, looked at as above, none is taken back at a maxLatencyRatio of 1.5; without allowing for chance
# it would be 27 percent where times vary as a lognormal's with sigma 1 do.
_STANDARD_ERRORS = 2.576
# The 95th percentile of fewer is hardly more than the slowest of them.
_FEWEST_FOR_P95 = 20
# The standard normal distribution at its 95th percentile: the quantile, and the density there.
_Z95, _DENSITY95 = 1.6449, 0.10314
# Percentiles are over the newest thousand requests.
_MOST_TIMED = 1000
_NORMAL_FROM = 1000.0
"""Standard deviation of the canary's errors from which on the exact test is left."""
_FARTHEST = 40
"""Standard deviations beyond which nothing is summed up: less than the numbers' precision lies there."""


@dataclass(frozen=True)
class Sides:
    """What both sides have been given since the gateway knows of the canary."""

    stable: BackendCounts
    canary: BackendCounts


def counted(documents: Iterable[GatewayDocument]) -> Sides | None:
    """Both sides over all gateways; None when none has told of a canary.

    Of percentiles the mean weighted by requests is taken: gateways share the requests at random, so that theirs differ
    by chance only.
    """
    told = [(one.backends.stable, one.backends.canary) for one in documents if one.backends.canary is not None]
    if not told:
        return None
    return Sides(_sum(stable for stable, _ in told), _sum(canary for _, canary in told if canary is not None))


def _sum(counts: Iterable[BackendCounts]) -> BackendCounts:
    parts = list(counts)
    requests = min(sum(one.requests for one in parts), MOST_COUNTED)
    return BackendCounts(
        requests=requests,
        errors=min(sum(one.errors for one in parts), requests),
        seconds_p50=_mean((one.requests, one.seconds_p50) for one in parts),
        seconds_p95=_mean((one.requests, one.seconds_p95) for one in parts),
    )


def _mean(weighted: Iterable[tuple[int, float | None]]) -> float | None:
    """The mean of what has a value and a weight; None without any."""
    known = [(weight, value) for weight, value in weighted if weight and value is not None]
    total = sum(weight for weight, _ in known)
    return sum(weight * value for weight, value in known) / total if total else None


def judge(sides: Sides, analysis: CanaryAnalysis) -> tuple[Literal["worse", "well", "open"], str]:
    """Whether a canary is worse than the model before, and by what numbers.

    worse: its share of errors is higher by more than maxErrorIncrease and that is no chance, or after minRequests its
    answers take longer than maxLatencyRatio allows and that is no chance. well: neither, after minRequests. Before, or
    while there is too much of either and it may be chance, it is open.
    """
    canary, stable = sides.canary, sides.stable
    increase = _share(canary) - _share(stable)
    if increase > analysis.max_error_increase:
        if chance_of_as_many_errors(canary, stable) < SIGNIFICANCE:
            return "worse", (
                f"{canary.errors} of {canary.requests} requests ended in errors, {stable.errors} of {stable.requests} "
                f"of the model before; rollout.analysis.maxErrorIncrease is {analysis.max_error_increase:g}"
            )
        return "open", ""
    if canary.requests < analysis.min_requests:
        return "open", ""
    excess = _excess_of_latency(canary, stable, analysis.max_latency_ratio)
    if excess is not None and 0 < excess.log_ratio <= _STANDARD_ERRORS * excess.standard_error:
        return "open", ""
    if excess is not None and excess.log_ratio > 0:
        return "worse", (
            f"95 percent of its answers took up to {canary.seconds_p95:.3g} s, {stable.seconds_p95:.3g} s of the model "
            f"before; rollout.analysis.maxLatencyRatio is {analysis.max_latency_ratio:g}"
        )
    return "well", ""


def _share(counts: BackendCounts) -> float:
    return counts.errors / counts.requests if counts.requests else 0.0


@dataclass(frozen=True)
class _Excess:
    """By how much a ratio of percentiles exceeds its limit, as a logarithm, and how uncertain that is."""

    log_ratio: float
    standard_error: float


def _excess_of_latency(canary: BackendCounts, stable: BackendCounts, limit: float) -> _Excess | None:
    """Of the canary's 95th percentile over stable's; None where there are too few requests to tell."""
    if min(canary.requests, stable.requests) < _FEWEST_FOR_P95 or not canary.seconds_p95 or not stable.seconds_p95:
        return None
    log_ratio = math.log(canary.seconds_p95) - math.log(stable.seconds_p95) - math.log(limit)
    return _Excess(log_ratio, math.hypot(_standard_error(canary), _standard_error(stable)))


def _standard_error(counts: BackendCounts) -> float:
    """Of the logarithm of a side's 95th percentile.

    That of a quantile of n values is sqrt(p (1 - p) / n) over the density there (Serfling, Approximation Theorems of
    Mathematical Statistics, section 2.3.3); times are taken for lognormal, with the sigma that median and 95th
    percentile are apart by.
    """
    if not counts.seconds_p50 or not counts.seconds_p95:
        return 0.0
    sigma = max(0.0, math.log(counts.seconds_p95) - math.log(counts.seconds_p50)) / _Z95
    return sigma * math.sqrt(0.95 * 0.05 / min(counts.requests, _MOST_TIMED)) / _DENSITY95


def chance_of_as_many_errors(canary: BackendCounts, stable: BackendCounts) -> float:
    """Fisher's exact test, one-sided: the chance that of all errors at least as many fall to the canary, if errors do
    not care whom they fall to.

    Of the ways to choose errors among requests it is the share with k >= canary.errors of them among the canary's:
    sum over k of C(canary, k) C(stable, errors - k) / C(canary + stable, errors). Where so many values of k are likely
    that the sum would take long, it is the normal distribution's, which is as good there.
    """
    errors = canary.errors + stable.errors
    requests = canary.requests + stable.requests
    share = canary.requests / requests
    spread = math.sqrt(errors * share * (1 - share) * max(0, requests - errors) / max(1, requests - 1))
    if spread > _NORMAL_FROM:
        return 0.5 * math.erfc((canary.errors - 0.5 - errors * share) / (spread * math.sqrt(2)))
    last = min(errors, canary.requests, canary.errors + round(_FARTHEST * (spread + 1)))
    whole = _log_ways(requests, errors)
    return math.fsum(
        math.exp(_log_ways(canary.requests, k) + _log_ways(stable.requests, errors - k) - whole)
        for k in range(canary.errors, last + 1)
        if errors - k <= stable.requests
    )


def _log_ways(total: int, chosen: int) -> float:
    """The logarithm of math.comb(total, chosen), which itself has thousands of digits for a busy day's requests."""
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)
