"""The arena: every pair of models on every prompt, and ratings from who wins (as of Chinese LLaMA & Alpaca)."""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from alidade_crds.contract import JobSuite
from alidade_crds.evaluation import SUITE_METRICS, EvaluationResult, Verdict
from alidade_engine.reward.functions import Reward
from alidade_eval.asked import Answers, Collection, Keep, Rows, key_of
from alidade_eval.inference.bradley_terry import rating_samples, ratings
from alidade_eval.inference.comparisons import judged, sign_of
from alidade_eval.inference.intervals import Draws, percentile_interval
from alidade_eval.items import Item
from alidade_eval.judge import Judge, Preferred
from alidade_eval.samples import FAILURE, INDEX, Row
from alidade_eval.suites.answering import indices_of, samples, texts, troubles
from alidade_eval.suites.base import Findings, SecondCollection, Suite, check_metrics, whole
from alidade_eval.suites.reward import RewardScores, check_reference

BETWEEN = "+"
"""Between the names of two models; no name has it."""
BIASED = 0.65
"""Share of contradicting verdicts that go to the answer shown first, above which a judge is called biased."""
Points = NDArray[np.float64]
"""(prompts, models, models): what the row's model has got against the column's on each prompt."""


class Verdicts:
    """A judge's verdicts on pairs of answers, each asked in both orders.

    Rows: index, first, second (the verdict when the first, or the second, model's answer is shown first: the place of
    the better answer among the pair as 0 or 1, a half for a tie, null for nonsense), words (what was said instead), or
    failure.
    """

    def __init__(self, spec: JobSuite, answers: Answers, judge: Judge) -> None:
        assert spec.judge is not None, "only made for a judge"
        self.key = key_of("verdicts", answers.key, spec.judge.to_dict())
        self.needs = answers.key
        self._answers = answers
        self._judge = judge

    @property
    def size(self) -> int:
        """Rows of each pair."""
        return self._answers.size

    def prepare(self) -> None:
        """Makes sure that the judge answers."""
        self._judge.connect()

    def release(self) -> None:
        """Nothing is held."""

    def subjects(self, models: Sequence[str]) -> Sequence[str]:
        """Every pair."""
        return [BETWEEN.join(pair) for pair in combinations(models, 2)]

    def collect(self, subject: str, indices: Sequence[int], rows: Rows, keep: Keep) -> None:
        """As `SecondCollection.collect`."""
        one, _, other = subject.partition(BETWEEN)
        first, second = ({row[INDEX]: row for row in rows[self.needs][name]} for name in (one, other))
        with ThreadPoolExecutor(self._judge.concurrency) as pool:
            waiting = [pool.submit(self._row, index, first[index], second[index]) for index in indices]
            try:
                for done in as_completed(waiting):
                    keep(done.result())
            except BaseException:
                for future in waiting:
                    future.cancel()
                raise

    def _row(self, index: int, first: Row, second: Row) -> Row:
        failure = first.get(FAILURE) or second.get(FAILURE)
        if failure is not None:
            return {INDEX: index, FAILURE: failure}
        messages = self._answers.items[index].messages
        one, other = first["text"].strip(), second["text"].strip()
        forward, backward = self._judge.verdict(messages, one, other), self._judge.verdict(messages, other, one)
        row: Row = {INDEX: index, "first": _place(forward.preferred, 0), "second": _place(backward.preferred, 1)}
        words = [verdict.words for verdict in (forward, backward) if verdict.preferred is None]
        return row | ({"words": words} if words else {})


def _place(preferred: Preferred | None, shown_first: int) -> float | None:
    """The better answer's place in the pair; shown_first: the place of the answer that was shown first."""
    match preferred:
        case "first":
            return float(shown_first)
        case "second":
            return float(1 - shown_first)
        case "tie":
            return 0.5
    return None


class ArenaSuite(Suite):
    """Elo ratings and win rates, by a reward or by a judge."""

    def __init__(
        self,
        spec: JobSuite,
        items: Sequence[Item],
        *,
        seed: int,
        field: str,
        load: Callable[[], Reward] | None = None,
        judge: Judge | None = None,
        baseline: str,
    ) -> None:
        """load: of the reward. judge: instead of it. baseline: the model that verdicts compare with."""
        check_metrics(spec, SUITE_METRICS[spec.type], field)
        check_reference(spec, items, field)
        super().__init__(spec, items)
        self._seed = seed
        self._baseline = baseline
        self._answers = Answers.of(spec, items, seed)
        self._rewards = RewardScores(spec, self._answers, load) if load is not None else None
        self._verdicts = Verdicts(spec, self._answers, judge) if judge is not None else None

    def collections(self) -> Sequence[Collection]:
        """Answers."""
        return [self._answers]

    def second(self) -> Sequence[SecondCollection]:
        """Their rewards, or verdicts on pairs of them."""
        return [one for one in (self._rewards, self._verdicts) if one is not None]

    def findings(self, rows: Rows, models: Sequence[str]) -> Findings:
        """As `Suite.findings`."""
        if self._rewards is not None:
            points, indices, warnings = self._by_reward(rows, models)
        else:
            points, indices, warnings = self._by_judge(rows, models)
        answers = texts(whole(rows, self._answers.key, models, indices=indices))
        own = win_rates_of_prompts(points)  # (prompts, models)
        scores = {"win_rate": {model: own[:, place] for place, model in enumerate(models)}}
        results = self._results(points, models) if len(indices) else []
        return Findings(
            measures=troubles(rows, self._answers, models),
            results=[one for one in results if not self.spec.metrics or one.metric in self.spec.metrics],
            samples=samples(self.items, indices, answers, scores),
            details={"models": list(models), "wins": np.round(points.sum(0), 4).tolist(), "games": len(indices)},
            warnings=warnings,
        )

    def _by_reward(self, rows: Rows, models: Sequence[str]) -> tuple[Points, list[int], list[str]]:
        assert self._rewards is not None, "only called with a reward"
        scored = whole(rows, self._rewards.key, models)
        rewards = np.array([[row["score"] for row in scored[model]] for model in models]).T  # (prompts, models)
        gaps = rewards[:, :, None] - rewards[:, None, :]
        points = np.where(np.abs(gaps) <= self.spec.tie_margin, 0.5, (gaps > 0).astype(float))
        points[:, range(len(models)), range(len(models))] = 0
        return points, indices_of(scored), []

    def _by_judge(self, rows: Rows, models: Sequence[str]) -> tuple[Points, list[int], list[str]]:
        assert self._verdicts is not None, "only called with a judge"
        pairs = self._verdicts.subjects(models)
        found = whole(rows, self._verdicts.key, pairs)
        indices = indices_of(found)
        points = np.zeros((len(indices), len(models), len(models)))
        for (one, other), pair in zip(combinations(range(len(models)), 2), pairs, strict=True):
            for place, row in enumerate(found[pair]):
                share = agreed(row)
                points[place, one, other], points[place, other, one] = 1 - share, share
        return points, indices, judge_warnings(self.title, [row for own in found.values() for row in own])

    def _results(self, points: Points, models: Sequence[str]) -> list[EvaluationResult]:
        elo, drawn = ratings(points.sum(0)), rating_samples(points, seed=self._seed)
        rates, drawn_rates = win_rates(points.sum(0)), _drawn_rates(points, self._seed)
        return [
            *self._rows("elo", elo, drawn, models, len(points)),
            *self._rows("win_rate", rates, drawn_rates, models, len(points), least=0.0, most=1.0),
        ]

    def _rows(
        self,
        metric: str,
        values: Points,
        drawn: Points,
        models: Sequence[str],
        prompts: int,
        *,
        least: float = -math.inf,
        most: float = math.inf,
    ) -> list[EvaluationResult]:
        base = models.index(self._baseline)
        low, high = _ends(drawn, prompts)
        low, high = np.maximum(low, least), np.minimum(high, most)
        below, above = _ends(drawn - drawn[:, [base]], prompts)
        return [
            EvaluationResult(
                suite=self.title,
                metric=metric,
                model=model,
                value=float(values[place]),
                low=float(low[place]) if prompts > 1 else None,
                high=float(high[place]) if prompts > 1 else None,
                n=prompts,
                **_compared(place != base and prompts > 1, float(below[place]), float(above[place])),
            )
            for place, model in enumerate(models)
        ]


def _compared(is_compared: bool, low: float, high: float) -> dict[str, float | Verdict | None]:
    if not is_compared:
        return {}
    return {
        "verdict": judged("higher", sign_of((low, high))),
        "difference_low": low,
        "difference_high": high,
    }


def _ends(drawn: Points, prompts: int) -> tuple[Points, Points]:
    """(models,) each, of (resamples, models) values."""
    if prompts == 1:  # nothing tells how another prompt would differ
        return drawn.mean(0), drawn.mean(0)
    low, high = zip(*(percentile_interval(own, samples=prompts) for own in drawn.T), strict=True)
    return np.array(low), np.array(high)


def agreed(row: Mapping[str, float | None]) -> float:
    """What the second model gets of a prompt: by the verdict of both orders; a tie where they contradict each other.

    Nonsense in one order leaves the other; in both, a tie.
    """
    said = [row[name] for name in ("first", "second")]
    known = [one for one in said if one is not None]
    if not known:
        return 0.5
    share = sum(known) / len(known)
    return 1.0 if share > 0.5 else 0.0 if share < 0.5 else 0.5


def judge_warnings(title: str, rows: Sequence[Mapping[str, float | None]]) -> list[str]:
    """What a person should know of a judge: nonsense, and a liking for the answer that it is shown first."""
    nonsense = sum(row[name] is None for row in rows for name in ("first", "second"))
    warnings = []
    if nonsense:
        warnings.append(f"{title}: the judge's answer was no verdict {nonsense} of {2 * len(rows)} times.")
    split = [row for row in rows if {row["first"], row["second"]} == {0.0, 1.0}]
    # In the first order the first model's answer is shown first: a verdict for place 0 goes to what is shown first.
    shown_first = sum(row["first"] == 0.0 for row in split)
    share = max(shown_first, len(split) - shown_first) / len(split) if split else 0.0
    if len(split) >= 10 and share > BIASED:
        which = "first" if shown_first * 2 > len(split) else "second"
        warnings.append(
            f"{title}: in {len(split)} of {len(rows)} games the two orders contradict each other, {share:.0%} of them "
            f"for the answer shown {which}; those count as ties."
        )
    return warnings


def win_rates(points: Points) -> Points:
    """(models,) share of its games that each model has won, ties half, of (models, models) points."""
    played = points + points.T
    return np.asarray(points.sum(1) / np.maximum(played.sum(1), 1e-12))


def win_rates_of_prompts(points: Points) -> Points:
    """(prompts, models) share of the other models that each has beaten on each prompt."""
    return np.asarray(points.sum(2) / max(1, points.shape[1] - 1))


def _drawn_rates(points: Points, seed: int) -> Points:
    """(resamples, models) win rates on prompts drawn with replacement."""
    own = win_rates_of_prompts(points)
    drawn = [weights @ own / len(points) for weights in Draws(len(points), seed=seed).weights()]
    return np.concatenate(drawn)
