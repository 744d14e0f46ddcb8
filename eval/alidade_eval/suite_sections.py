"""The part of the report that shows one suite: its numbers, charts, leaks and most changed samples."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from alidade_crds.comparison import (
    SIGNS,
    Direction,
    best_of,
    difference_text,
    direction_of,
    interval_text,
    metrics_of,
    value_text,
)
from alidade_crds.evaluation import FAILED, LEAKED, UNFINISHED, EvaluationResult, SuiteType
from alidade_engine.pages.charts import number_text
from alidade_engine.pages.comparison import Bar, heat_map, histograms, interval_bars
from alidade_engine.pages.frame import answer_text, facts, figure, flat
from alidade_eval.changes import Change, Changes, changes_of, telling_score

MOST_LEAKS = 20
MOST_SIGNS = 600
"""Of a question or an answer that are shown; an endless answer would bury the rest."""
MOST_CHARTS = 6
NO_ZERO = frozenset({"elo"})
"""Metrics whose zero means nothing, so that a bar from it would."""
TROUBLES = (FAILED, UNFINISHED)
HEADLINES: dict[SuiteType, tuple[str, ...]] = {
    SuiteType.GENERATION: ("exact_match", "f1", "rougeL", "bleu"),
    SuiteType.RANKING: ("mrr", "hits1"),
    SuiteType.PERPLEXITY: ("perplexity", "bits_per_byte"),
    SuiteType.REWARD: ("mean",),
    SuiteType.DIVERSITY: ("distinct2", "msttr100"),
    SuiteType.QUESTIONS: ("correct",),
    SuiteType.ARENA: ("elo",),
}
"""Metrics that are drawn; the others are in the table. Of other suites the first MOST_CHARTS."""
MEANINGS = {
    "bleu": "corpus BLEU, 0 to 100",
    "rouge1": "shared words",
    "rouge2": "shared word pairs",
    "rougeL": "longest shared sequence",
    "exact_match": "share of answers that are the expected one",
    "f1": "shared words of short answers",
    "mrr": "mean of 1 / place of the first right candidate",
    "map": "mean average precision",
    "hits1": "share whose likeliest candidate is right",
    "perplexity": "per token; only models of one tokenizer compare",
    "bits_per_byte": "compares all models",
    "mean": "mean reward of an answer",
    "msttr100": "different words in 100",
    "distinct1": "different words of all words",
    "distinct2": "different word pairs of all pairs",
    "unique1": "words that are said once",
    "unique2": "word pairs that are said once",
    "mean_length": "words of an answer",
    "correct": "share of questions answered as expected",
    "elo": "rating; 400 more wins ten times of eleven",
    "win_rate": "share of games won, ties half",
    FAILED: "share of samples without an answer",
    UNFINISHED: "share of answers that the limit cut off",
}
"""What metrics mean, for the table; those of a harness or of one's own function are not known."""
ARROWS: dict[Direction, str] = {"higher": "↑", "lower": "↓", None: ""}


@dataclass(frozen=True)
class Comparison:
    """What one suite has measured. results, samples: of this suite alone."""

    names: Sequence[str]
    baseline: str
    results: Sequence[EvaluationResult]
    samples: Sequence[Mapping[str, Any]]

    @property
    def others(self) -> list[str]:
        """The models but the baseline."""
        return [name for name in self.names if name != self.baseline]


def suite_section(suite: Mapping[str, Any], found: Comparison) -> str:
    """The section of one suite of results.json."""
    numbers = metrics_of(one for one in found.results if one.metric != LEAKED)
    # What went wrong comes after what was measured.
    by_metric = dict(
        sorted(((metric, own) for (_, metric), own in numbers.items()), key=lambda one: one[0] in TROUBLES)
    )
    directions = {metric: _direction(suite, metric, own) for metric, own in by_metric.items()}
    charts = [*_bars(suite, found, by_metric, directions), *_matrix(suite), *_rewards(suite, found)]
    drawn = f'<div class="charts">{"".join(figure(*chart) for chart in charts)}</div>' if charts else ""
    table = _table(found, by_metric, directions) if by_metric else '<p class="quiet">No sample could be measured.</p>'
    return (
        f'<section class="suite"><h2>{escape(suite["name"])} <span class="quiet">{escape(_about(suite))}</span></h2>'
        f'<div class="card wide">{table}</div>{drawn}{_leaks(suite, found)}{_changes(suite, found, directions)}'
        f"{_settings(suite)}</section>"
    )


def _about(suite: Mapping[str, Any]) -> str:
    parts = [] if suite["type"] == suite["name"] else [suite["type"]]
    parts += [dataset] if (dataset := suite["settings"].get("dataset")) else []
    return " of ".join(parts)


def _direction(suite: Mapping[str, Any], metric: str, results: Sequence[EvaluationResult]) -> Direction:
    """As the suite says; what it does not say follows from the results."""
    directions: Mapping[str, Direction] = suite["directions"]
    return directions[metric] if metric in directions else direction_of(results)


# Numbers


def _table(
    found: Comparison, by_metric: Mapping[str, Sequence[EvaluationResult]], directions: Mapping[str, Direction]
) -> str:
    mark = ' <span class="quiet">baseline</span>' if found.others else ""
    head = "".join(f"<th>{escape(name)}{mark if name == found.baseline else ''}</th>" for name in found.names)
    rows = "".join(_row(found.names, metric, own, directions[metric]) for metric, own in by_metric.items())
    return f'<table class="numbers"><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _row(names: Sequence[str], metric: str, results: Sequence[EvaluationResult], direction: Direction) -> str:
    own = {result.model: result for result in results}
    best = best_of(results, direction)
    meaning = f'<span class="quiet">{escape(MEANINGS[metric])}</span>' if metric in MEANINGS else ""
    sizes = "–".join(f"{count:,}" for count in sorted({result.n for result in results}))
    cells = "".join(_number(own.get(name), is_best=name in best) for name in names)
    size = f'<span class="quiet">{ARROWS[direction]} n\N{NO-BREAK SPACE}{sizes}</span>'
    return f"<tr><th>{escape(metric)} {size}{meaning}</th>{cells}</tr>"


def _number(result: EvaluationResult | None, *, is_best: bool) -> str:
    if result is None:
        return "<td></td>"
    value = f"<u>{value_text(result)}</u>" if is_best else value_text(result)
    interval = interval_text(result)
    known = f"<span>{interval}</span>" if interval else ""
    verdict = ""
    if result.verdict is not None:
        difference = difference_text(result) or ""
        verdict = f'<span class="{result.verdict}">{SIGNS[result.verdict]} {difference}</span>'
    return f"<td><b>{value}</b>{known}{verdict}</td>"


# Charts


def _bars(
    suite: Mapping[str, Any],
    found: Comparison,
    by_metric: Mapping[str, Sequence[EvaluationResult]],
    directions: Mapping[str, Direction],
) -> Iterable[tuple[str, str]]:
    if len(found.names) < 2:
        return  # one bar says nothing that the table does not
    wanted = HEADLINES.get(SuiteType(suite["type"]), tuple(by_metric)[:MOST_CHARTS])
    for metric in wanted:
        if metric in by_metric:
            bars = [
                Bar(one.model, one.value, value_text(one), one.low, one.high, one.verdict or "base")
                for one in by_metric[metric]
            ]
            better = {"higher": ", more is better", "lower": ", less is better"}.get(directions[metric] or "", "")
            yield f"{metric}{better}", interval_bars(bars, from_zero=metric not in NO_ZERO)


def _matrix(suite: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    details = suite["details"]
    if "wins" not in details or not details["games"]:
        return
    shares = [
        [None if row == column else points / details["games"] for column, points in enumerate(own)]
        for row, own in enumerate(details["wins"])
    ]
    games = f"{details['games']:,} prompt{'s' * (details['games'] > 1)}"
    yield f"Share of {games} that the row wins against the column, ties half", heat_map(details["models"], shares)


def _rewards(suite: Mapping[str, Any], found: Comparison) -> Iterable[tuple[str, str]]:
    if suite["type"] != SuiteType.REWARD or not found.samples:
        return
    rewards = {name: [sample["scores"]["mean"][name] for sample in found.samples] for name in found.names}
    yield "Rewards of the answers", histograms(rewards, value_name="reward")


# Leaks


def _leaks(suite: Mapping[str, Any], found: Comparison) -> str:
    checked = next((one for one in found.results if one.metric == LEAKED), None)
    if checked is None:
        return ""
    leaks = suite["leaks"]
    if not leaks:
        at_most = f" (95 % interval of the share: up to {checked.high:.1%})" if checked.high else ""
        return (
            f'<p class="card">Leak check: none of the {checked.n:,} prompts stands in the training data{at_most}.</p>'
        )
    exact = sum(leak["kind"] == "exact" for leak in leaks)
    rows = "".join(map(_leak, leaks[:MOST_LEAKS]))
    more = (
        f"<p class=quiet>and {len(leaks) - MOST_LEAKS:,} more, in results.json</p>" if len(leaks) > MOST_LEAKS else ""
    )
    return (
        f'<details class="card" open><summary>Leak check: {len(leaks):,} of {checked.n:,} prompts '
        f"({checked.value:.1%}) stand in the training data, {exact:,} of them word for word</summary>"
        '<div class="wide"><table class="texts"><thead><tr><th>Sample</th><th>Question</th><th>Found</th>'
        f"<th>Where</th></tr></thead><tbody>{rows}</tbody></table></div>{more}</details>"
    )


def _leak(leak: Mapping[str, Any]) -> str:
    how = "word for word" if leak["kind"] == "exact" else f"{leak['similarity']:.0%} alike"
    return (
        f"<tr><td>{leak['index']}</td><td>{_clipped(leak['question'])}</td><td>{how}</td>"
        f"<td>{escape(leak['place'])}</td></tr>"
    )


# Samples


def _changes(suite: Mapping[str, Any], found: Comparison, directions: Mapping[str, Direction]) -> str:
    metric = telling_score(suite["type"], found.samples)
    if metric is None or not any(sample["answers"] for sample in found.samples):
        return ""
    if not found.others:
        return _examples(found)
    direction = directions.get(metric, "higher")  # a score that is no result is one of answers, or of games
    if direction is None:
        return ""  # such as a length: no sample is better than another
    lower = direction == "lower"
    compared = [
        changes_of(found.samples, metric=metric, model=name, baseline=found.baseline, lower_is_better=lower)
        for name in found.others
    ]
    return "".join(_changed(changes, found.baseline) for changes in compared)


def _examples(found: Comparison) -> str:
    """The first answers of a model that there is nothing to compare with."""
    name = found.baseline
    shown = "".join(_sample(sample, {name: None}) for sample in found.samples[:MOST_CHARTS])
    return f'<details class="card"><summary>The first answers</summary>{shown}</details>'


def _changed(changes: Changes, baseline: str) -> str:
    summary = (
        f"Samples by {changes.metric}, {changes.model} against {baseline}: {changes.better:,} better, "
        f"{changes.worse:,} worse, {changes.same:,} alike"
    )
    parts = [
        f"<h3>{title}</h3>{''.join(_change(one, changes, baseline) for one in some)}"
        for title, some in (("Largest gains", changes.gains), ("Largest losses", changes.losses))
        if some
    ]
    if not parts:
        return f'<p class="card">{escape(summary)}.</p>'
    return f'<details class="card"><summary>{escape(summary)}</summary>{"".join(parts)}</details>'


def _change(change: Change, changes: Changes, baseline: str) -> str:
    return _sample(change.sample, {baseline: change.before, changes.model: change.after})


def _sample(sample: Mapping[str, Any], scores: Mapping[str, float | None]) -> str:
    """One sample: what was asked, what the data says, and the models' answers side by side."""
    expected = " / ".join(_clipped(reference) for reference in sample["references"])
    rows = [("Question", _clipped(sample["question"])), *([("In the data", expected)] if expected else [])]
    asked = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in rows)
    sides = "".join(
        f"<div><h4>{escape(name)}{_score(score)}</h4><p>{_clipped(sample['answers'].get(name, ''))}</p></div>"
        for name, score in scores.items()
    )
    number = f'<span class="quiet">Sample {sample["index"]}</span>'
    return f'<article>{number}<dl>{asked}</dl><div class="sides">{sides}</div></article>'


def _score(score: float | None) -> str:
    return "" if score is None else f' <span class="quiet">{number_text(float(f"{score:.3g}"))}</span>'


def _clipped(text: str) -> str:
    """The text, escaped; what is beyond MOST_SIGNS is counted."""
    if len(text) <= MOST_SIGNS:
        return answer_text(text)
    return f"{answer_text(text[:MOST_SIGNS])}<i class=quiet> … and {len(text) - MOST_SIGNS:,} more signs</i>"


def _settings(suite: Mapping[str, Any]) -> str:
    rows = dict(flat(suite["settings"], ""))
    rows |= dict(flat({name: value for name, value in suite["details"].items() if isinstance(value, str)}, ""))
    return f'<details class="card facts"><summary>Settings</summary>{facts("", rows)}</details>'
