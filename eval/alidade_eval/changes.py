"""The samples that tell most about a difference: those whose score changed most from the baseline to a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alidade_crds.evaluation import SuiteType

SHOWN = 3
"""Gains, and as many losses, that are shown of each model."""
_BEST_TELLING = {SuiteType.GENERATION: ("f1", "rougeL", "rouge1", "exact_match"), SuiteType.RANKING: ("mrr",)}
"""Scores that tell answers apart best; of other suites the first one."""

Sample = Mapping[str, Any]
"""One line of scores/SUITE.jsonl (alidade_eval.suites.base.Sample)."""


@dataclass(frozen=True)
class Change:
    """One sample, and its score by the baseline and by the model."""

    sample: Sample
    before: float
    after: float


@dataclass(frozen=True)
class Changes:
    """How a model changed the samples' scores. gains, losses: the largest, the largest first."""

    metric: str
    model: str
    better: int
    worse: int
    same: int
    gains: Sequence[Change]
    losses: Sequence[Change]


def telling_score(suite_type: str, samples: Sequence[Sample]) -> str | None:
    """The score that samples are compared by; None when they have none."""
    known = list(samples[0]["scores"]) if samples else []
    wanted = (*_BEST_TELLING.get(SuiteType(suite_type), ()), *known)
    return next((metric for metric in wanted if metric in known), None)


def changes_of(
    samples: Sequence[Sample], *, metric: str, model: str, baseline: str, lower_is_better: bool = False
) -> Changes:
    """What became of the samples. Of equal changes those come first that stand first in the data."""
    scored = [Change(sample, sample["scores"][metric][baseline], sample["scores"][metric][model]) for sample in samples]

    def gain(change: Change) -> float:
        return change.before - change.after if lower_is_better else change.after - change.before

    better = sorted((change for change in scored if gain(change) > 0), key=gain, reverse=True)
    worse = sorted((change for change in scored if gain(change) < 0), key=gain)
    same = len(scored) - len(better) - len(worse)
    return Changes(metric, model, len(better), len(worse), same, better[:SHOWN], worse[:SHOWN])
