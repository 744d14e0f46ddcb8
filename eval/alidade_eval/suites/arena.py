"""The arena: every pair of models on every prompt, and ratings from who wins (as of Chinese LLaMA & Alpaca)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from alidade_crds.contract import JobSuite
from alidade_crds.evaluation import SUITE_METRICS, EvaluationResult, Verdict
from alidade_engine.intervals import LEVEL, Interval, percentile_interval
from alidade_engine.ratings import ratings, tables_at_ends, win_rates
from alidade_engine.reward.functions import Reward
from alidade_eval.asked import Answers, Collection, Keep, Rows, key_of
from alidade_eval.inference.bradley_terry import table_samples
from alidade_eval.inference.comparisons import judged, sign_of
from alidade_eval.inference.pairs import mcnemar
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
                self._judge.give_up()
                for future in waiting:
                    future.cancel()
                raise

    def _row(self, index: int, first: Row, second: Row) -> Row:
        failure = first.get(FAILURE) or second.get(FAILURE)
        if failure is not None:
            return {INDEX: index, FAILURE: failure}
        messages = self._answers.items[index].messages
        one, other = first["text"].strip(), second["text"].strip()
        if one == other:
            return {INDEX: index, "first": 0.5, "second": 0.5}
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
        """points: of at least one prompt."""
        drawn = table_samples(points, seed=self._seed)
        return [
            result
            for metric, value in (("elo", ratings), ("win_rate", win_rates))
            for result in self._rows(metric, value, points, drawn, models)
        ]

    def _rows(
        self,
        metric: str,
        value: Callable[[Points], Points],
        points: Points,
        drawn: Points,
        models: Sequence[str],
    ) -> Iterator[EvaluationResult]:
        base, prompts, found = models.index(self._baseline), len(points), value(points.sum(0))
        for place, model in enumerate(models):
            result = EvaluationResult(
                suite=self.title, metric=metric, model=model, value=float(found[place]), n=prompts
            )
            if prompts > 1:  # of one, nothing tells how another prompt would differ
                against = base if place != base else None
                result = result.model_copy(update=compared(value, points, drawn, place, against))
            yield result


def compared(
    value: Callable[[Points], Points], points: Points, drawn: Points, place: int, base: int | None
) -> dict[str, float | Verdict | None]:
    """Interval of a model's metric, and how it compares with the baseline, if given.

    value: from (..., models, models) sums of points to the metric of each model. drawn: `table_samples` of points.
    Where a model fares the same on every prompt, resamples do not vary; the ends are then those of Wilson's interval
    of the share that it wins. A difference that the sign test does not tell from chance reaches to 0.
    """
    tables = (
        drawn if np.ptp(win_rates(drawn)[:, place]) > 0 else tables_at_ends(points.sum(0), place, samples=len(points))
    )

    def ends(values: Points) -> Interval:
        return percentile_interval(values, samples=len(points)) if tables is drawn else (values.min(), values.max())

    values = value(tables)
    low, high = ends(values[:, place])
    if value is win_rates:
        low, high = max(low, 0.0), min(high, 1.0)
    found: dict[str, float | Verdict | None] = {"low": float(low), "high": float(high)}
    if base is not None:
        below, above = ends(values[:, place] - values[:, base])
        own = win_rates_of_prompts(points)
        won, lost = int((own[:, place] > own[:, base]).sum()), int((own[:, place] < own[:, base]).sum())
        if mcnemar(won, lost) >= 1 - LEVEL:
            below, above = min(below, 0.0), max(above, 0.0)
        found["difference_low"], found["difference_high"] = float(below), float(above)
        found["verdict"] = judged("higher", sign_of((below, above)))
    return found


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


def win_rates_of_prompts(points: Points) -> Points:
    """(prompts, models) share of the other models that each has beaten on each prompt."""
    return np.asarray(points.sum(2) / max(1, points.shape[1] - 1))
