"""When requests arrive: chosen before the first is sent, so that no answer has a say in it."""

import random
from itertools import count
from typing import Literal, get_args

Arrivals = Literal["poisson", "constant", "burst"]
ARRIVALS: tuple[Arrivals, ...] = get_args(Arrivals)


def arrival_times(kind: Arrivals, rate: float, duration_s: float, *, seed: int, burst_size: int = 8) -> list[float]:
    """Seconds from the start at which requests arrive, ascending, all below duration_s.

    rate: requests per second, in the mean. poisson: gaps are exponential, as of many callers who know nothing of one
    another. constant: every gap is 1 / rate. burst: burst_size requests at the same moment, the moments a Poisson
    process of rate / burst_size.
    """
    if kind == "constant":
        return [number / rate for number in range(int(duration_s * rate) + 1) if number / rate < duration_s]
    if kind == "burst":
        return [moment for moment in _poisson(rate / burst_size, duration_s, seed) for _ in range(burst_size)]
    return _poisson(rate, duration_s, seed)


def _poisson(rate: float, duration_s: float, seed: int) -> list[float]:
    generator = random.Random(f"arrivals {seed}")
    moment, times = 0.0, []
    for _ in count():
        moment += generator.expovariate(rate)
        if moment >= duration_s:
            break
        times.append(moment)
    return times
