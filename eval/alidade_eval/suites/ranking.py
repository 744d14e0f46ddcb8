"""The ranking suite: how high right answers stand among candidates, ranked by their likelihood."""

from collections.abc import Callable, Sequence

import numpy as np

from alidade_crds.contract import JobSuite
from alidade_crds.evaluation import SUITE_METRICS
from alidade_eval.asked import CandidateLikelihoods, Collection, Rows
from alidade_eval.items import Item, need
from alidade_eval.metrics.ranking import average_precision, first_is_relevant, reciprocal_rank
from alidade_eval.samples import Row
from alidade_eval.suites.answering import indices_of, mean_measure, samples
from alidade_eval.suites.base import Findings, Suite, check_metrics, wanted_only, whole

_METRICS: dict[str, Callable[[Sequence[float], Sequence[bool]], float]] = {
    "mrr": reciprocal_rank,
    "map": average_precision,
    "hits1": first_is_relevant,
}


class RankingSuite(Suite):
    """MRR, MAP and the share of records whose likeliest candidate is right."""

    def __init__(self, spec: JobSuite, items: Sequence[Item], *, field: str) -> None:
        """Raises JobFailure when records have no candidates, or none that is better than another."""
        check_metrics(spec, SUITE_METRICS[spec.type], field)
        lacking = [item for item in items if not any(item.relevant) or all(item.relevant)]
        what = "it has no candidate answers of which some are right and some are not (output: [{score, text}])."
        need(items, lacking, field=field, dataset=spec.dataset, what=what)
        super().__init__(spec, items)
        self._likelihoods = CandidateLikelihoods.of(spec, items)

    def collections(self) -> Sequence[Collection]:
        """Likelihoods of the candidates."""
        return [self._likelihoods]

    def findings(self, rows: Rows, models: Sequence[str]) -> Findings:
        """As `Suite.findings`."""
        found = whole(rows, self._likelihoods.key, models)
        indices = indices_of(found)
        scored = {model: [self._scores(row) for row in own] for model, own in found.items()}
        scores = {
            metric: {
                model: np.array(
                    [one(own, self.items[index].relevant) for own, index in zip(rank, indices, strict=True)]
                )
                for model, rank in scored.items()
            }
            for metric, one in _METRICS.items()
        }
        measures = [mean_measure(metric, own, binary=metric == "hits1", least=0.0) for metric, own in scores.items()]
        likeliest = {
            model: [self.items[index].candidates[int(np.argmax(own))] for own, index in zip(rank, indices, strict=True)]
            for model, rank in scored.items()
        }
        dropped = len(self.items) - len(indices)
        warning = f"{self.title}: {dropped} records do not fit a model's context and were left out."
        return Findings(
            measures=wanted_only(measures, self.spec),
            samples=samples(self.items, indices, likeliest, scores),
            warnings=[warning] if dropped else [],
        )

    def _scores(self, row: Row) -> list[float]:
        """The candidates' log-likelihoods, divided as the suite says."""
        candidates = self.items[row["index"]].candidates
        sizes = {
            "tokens": row["tokens"],
            "bytes": [max(1, len(text.encode())) for text in candidates],
            "none": [1] * len(candidates),
        }[self.spec.normalization]
        return [-nats / size for nats, size in zip(row["nats"], sizes, strict=True)]
