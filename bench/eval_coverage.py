"""How often the 95 % intervals of evaluation hold the true value, in simulations where it is known.

    python bench/eval_coverage.py [--trials 1000 --sizes 50 200]

Every trial draws samples, as an evaluation of that many prompts would, and asks `results_of`, which evaluations use,
for intervals. The truth of means and shares is that of the distribution; of corpus metrics, that of a population of
20,000 samples; of distinct-2, which changes with the number of texts, the mean over all trials; of ratings, the planted
ones. A share of 1,000 trials is itself sure to 1.4 percentage points. The table is printed in Markdown.
"""

import argparse
import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from alidade_engine.intervals import LEVEL
from alidade_eval.inference.bradley_terry import rating_samples
from alidade_eval.inference.comparisons import results_of
from alidade_eval.measures import AnyMeasure, Measure, SetMeasure, Statistics
from alidade_eval.metrics.bleu import bleu, bleu_statistics
from alidade_eval.metrics.diversity import distinct
from alidade_eval.metrics.perplexity import perplexity

Array = NDArray[np.float64]
Trial = Callable[[np.random.Generator, int], AnyMeasure]
"""Draws a measure of the models `one` and, for differences, `base` on so many samples."""
POPULATION = 20_000


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="simulated evaluations of each line")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200], help="samples of an evaluation")
    options = parser.parse_args()
    print(f"| what | {' | '.join(f'n = {size}' for size in options.sizes)} |")
    print(f"|---|{'---:|' * len(options.sizes)}")
    for name, trial, truth, is_difference in scenarios():
        shares = [
            coverage(trial, truth, samples=size, trials=options.trials, is_difference=is_difference)
            for size in options.sizes
        ]
        print(f"| {name} | {' | '.join(f'{share:.1%}' for share in shares)} |", flush=True)
    shares = [rating_coverage(samples=size, trials=options.trials) for size in options.sizes]
    print(f"| Elo of three models | {' | '.join(f'{share:.1%}' for share in shares)} |")
    return 0


def scenarios() -> list[tuple[str, Trial, float | None, bool]]:
    """Name, trial, truth (None: the mean over trials), and whether the difference of the models is looked at."""
    pools = np.random.default_rng(0)
    alike, ragged = (likelihoods(pools, POPULATION, spread=spread) for spread in (0.4, 0.8))
    scores = translations(pools, POPULATION)
    return [
        ("mean of rewards (normal)", lambda r, n: means(r.normal(1, 2, (n, 1))), 1.0, False),
        ("mean of a skewed score (exponential)", lambda r, n: means(r.exponential(1, (n, 1))), 1.0, False),
        ("share, 90 % true (Wilson)", lambda r, n: shares(r, n, 0.9, 0.0), 0.9, False),
        ("share, 60 % true (Wilson)", lambda r, n: shares(r, n, 0.6, 0.0), 0.6, False),
        ("perplexity, texts of 70 to 330 tokens", of_pool(alike, perplexity), total(alike, perplexity), False),
        ("perplexity, texts of 30 to 700 tokens", of_pool(ragged, perplexity), total(ragged, perplexity), False),
        ("corpus BLEU", of_pool(scores, bleu), total(scores, bleu), False),
        ("distinct-2", lambda r, n: spoken(r, n), None, False),
        ("difference of paired means", paired_means, 0.2, True),
        ("difference of paired shares, 10 points", lambda r, n: shares(r, n, 0.4, 0.1), 0.1, True),
        ("difference of paired shares, none", lambda r, n: shares(r, n, 0.7, 0.0), 0.0, True),
        ("difference of distinct-2", lambda r, n: spoken(r, n), None, True),
    ]


def coverage(trial: Trial, truth: float | None, *, samples: int, trials: int, is_difference: bool) -> float:
    """Share of the trials whose interval holds the truth."""
    random = np.random.default_rng(samples)
    values, lows, highs = np.empty(trials), np.empty(trials), np.empty(trials)
    for place in range(trials):
        one, *base = results_of(trial(random, samples), suite="simulated", baseline="base", seed=place)
        values[place] = one.value - base[0].value if is_difference else one.value
        lows[place] = one.difference_low if is_difference else one.low
        highs[place] = one.difference_high if is_difference else one.high
    true = values.mean() if truth is None else truth
    return float(((lows <= true) & (true <= highs)).mean())


def means(values: Array) -> Measure:
    """Of one model."""
    return Measure("mean", "higher", {"base": values})


def shares(random: np.random.Generator, samples: int, share: float, difference: float) -> Measure:
    """Two models that are right on the same samples, but for a fifth of them, and the one so much more often."""
    own = random.random(samples) < 0.2
    base = random.random(samples) < share
    one = np.where(own, random.random(samples) < share + difference / 0.2, base)
    return Measure("share", "higher", {"one": column(one), "base": column(base)}, binary=True)


def column(values: NDArray[np.bool_]) -> Array:
    """(samples, 1) of (samples,)."""
    return values.astype(np.float64)[:, None]


def paired_means(random: np.random.Generator, samples: int) -> Measure:
    """Skewed scores that depend on the prompt much more than on the model; the one is better by 0.2."""
    prompts = random.exponential(3, samples)
    one, base = (prompts + random.exponential(0.5, samples) for _ in range(2))
    return Measure("mean", "higher", {"one": one[:, None] + 0.2, "base": base[:, None]})


def of_pool(pool: Statistics, value: Callable[[Statistics, int], Statistics]) -> Trial:
    """Samples drawn from a population."""

    def trial(random: np.random.Generator, samples: int) -> Measure:
        drawn = pool[random.integers(0, len(pool), samples)]
        return Measure("metric", "higher", {"base": drawn}, value)

    return trial


def total(pool: Statistics, value: Callable[[Statistics, int], Statistics]) -> float:
    """The metric on a whole population."""
    return float(value(pool.sum(0), len(pool)))


def likelihoods(random: np.random.Generator, samples: int, *, spread: float) -> Statistics:
    """Statistics of perplexity: lengths are log-normal, and long texts are less surprising a token."""
    tokens = np.ceil(random.lognormal(5, spread, samples))
    nats = tokens * random.gamma(20, 2.5 / 20, samples) * (tokens / 150) ** -0.1
    return np.stack([nats, tokens, 4 * tokens], axis=-1)


def translations(random: np.random.Generator, samples: int) -> Statistics:
    """Statistics of BLEU: references of 5 to 30 words of which the answer has three in four, more or less."""
    answers, references = [], []
    for length, kept in zip(random.integers(5, 31, samples), random.beta(6, 2, samples), strict=True):
        reference = random.zipf(1.3, length).clip(max=5000)
        answer = np.where(random.random(length) < kept, reference, random.zipf(1.3, length).clip(max=5000))
        references.append([" ".join(f"w{word}" for word in reference)])
        answers.append(" ".join(f"w{word}" for word in answer))
    return bleu_statistics(answers, references)


def spoken(random: np.random.Generator, samples: int) -> SetMeasure:
    """Answers of 5 to 40 words; those of the one model repeat themselves more."""
    return SetMeasure(
        "distinct2", "higher", samples, {"one": of_texts(random, samples, 1.6), "base": of_texts(random, samples, 1.4)}
    )


def of_texts(random: np.random.Generator, samples: int, steepness: float) -> Callable[[NDArray[np.intp]], float]:
    """distinct-2 of those of the drawn texts that are kept."""
    texts = [
        [f"w{word}" for word in random.zipf(steepness, length).clip(max=5000)]
        for length in random.integers(5, 41, samples)
    ]
    return lambda kept: distinct([texts[place] for place in kept], 2)


def rating_coverage(*, samples: int, trials: int) -> float:
    """Share of the intervals of three models' ratings, 150 points apart, that hold the planted one."""
    random, planted = np.random.default_rng(samples), np.array([850.0, 1000.0, 1150.0])
    chances = 1 / (1 + 10 ** ((planted[None, :] - planted[:, None]) / 400))
    held: list[NDArray[np.bool_]] = []
    for seed in range(trials):
        drawn = rating_samples(games(random, chances, samples), seed=seed)
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        held.append((low <= planted) & (planted <= high))
    return float(np.mean(held))


def games(random: np.random.Generator, chances: Array, samples: int) -> Array:
    """(samples, models, models) points of games that the row's model wins with these chances."""
    won = np.triu(random.random((samples, *chances.shape)) < chances, 1)
    lost = np.triu(np.ones(chances.shape, dtype=bool), 1) & ~won
    return (won + lost.transpose(0, 2, 1)).astype(np.float64)


if __name__ == "__main__":
    sys.exit(main())
