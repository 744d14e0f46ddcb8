"""How long prompts and answers are: a distribution of numbers of tokens, read from one word of the command line."""

import math
import random
import re
from dataclasses import dataclass

MOST_TOKENS = 1_048_576
FORMS = "64, uniform:32-128 or lognormal:64:0.5 (median and the deviation of the logarithm; :256 after it is the most)"


@dataclass(frozen=True)
class Lengths:
    """Numbers of tokens from low to high. sigma 0: every number is as likely; else log-normal around median."""

    low: int
    high: int
    median: float
    sigma: float = 0.0

    def draw(self, generator: random.Random) -> int:
        """A number of tokens."""
        if self.sigma:
            drawn = round(self.median * math.exp(generator.gauss(0.0, self.sigma)))
            return min(self.high, max(self.low, drawn))
        return generator.randint(self.low, self.high)


def parse_lengths(text: str) -> Lengths:
    """ValueError with the forms there are, when the text is none of them."""
    if found := re.fullmatch(r"(\d+)", text):
        return _bounded(text, int(text), int(text))
    if found := re.fullmatch(r"uniform:(\d+)-(\d+)", text):
        return _bounded(text, int(found[1]), int(found[2]))
    if found := re.fullmatch(r"lognormal:(\d+):(\d*\.?\d+)(?::(\d+))?", text):
        median, sigma = int(found[1]), float(found[2])
        # Without a bound one request in a million would be longer than any server takes.
        most = int(found[3]) if found[3] else 16 * median
        if not 0 < sigma <= 3:
            raise ValueError(f"{text!r}: the deviation is {found[2]}; take one above 0, at most 3")
        return Lengths(1, _bounded(text, median, most).high, median, sigma)
    raise ValueError(f"{text!r} is no length; write {FORMS}")


def _bounded(text: str, low: int, high: int) -> Lengths:
    if not 1 <= low <= high <= MOST_TOKENS:
        raise ValueError(f"{text!r}: tokens go from 1 to {MOST_TOKENS}, the smaller number first")
    return Lengths(low, high, (low + high) / 2)
