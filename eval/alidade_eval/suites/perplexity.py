"""The perplexity suite: how surprised a model is by texts, or by the answers of conversations."""

import math
from collections.abc import Sequence

import numpy as np

from alidade_crds.contract import JobSuite
from alidade_crds.evaluation import SUITE_METRICS
from alidade_engine.perplexity import MOST_NATS
from alidade_eval.asked import Collection, Rows, TextLikelihoods
from alidade_eval.items import Item, need
from alidade_eval.measures import Measure
from alidade_eval.metrics.perplexity import bits_per_byte, perplexity, perplexity_statistics
from alidade_eval.suites.answering import indices_of, samples
from alidade_eval.suites.base import Findings, Suite, check_metrics, wanted_only, whole


class PerplexitySuite(Suite):
    """Perplexity, which compares models of one tokenizer, and bits per byte, which compares all."""

    def __init__(self, spec: JobSuite, items: Sequence[Item], *, field: str) -> None:
        """Raises JobFailure when records have neither text nor answer."""
        check_metrics(spec, SUITE_METRICS[spec.type], field)
        lacking = [item for item in items if not _measured(item).strip()]
        need(items, lacking, field=field, dataset=spec.dataset, what="it has neither a text nor an answer.")
        super().__init__(spec, items)
        self._likelihoods = TextLikelihoods.of(spec, items)

    def collections(self) -> Sequence[Collection]:
        """Likelihoods of the texts."""
        return [self._likelihoods]

    def findings(self, rows: Rows, models: Sequence[str]) -> Findings:
        """As `Suite.findings`."""
        found = whole(rows, self._likelihoods.key, models)
        indices = indices_of(found)
        measured = [_measured(self.items[index]) for index in indices]
        statistics = {
            model: perplexity_statistics([row["nats"][0] for row in own], [row["tokens"][0] for row in own], measured)
            for model, own in found.items()
        }
        own = {
            model: np.exp(np.minimum(rows_[:, 0] / np.maximum(rows_[:, 1], 1), MOST_NATS))
            for model, rows_ in statistics.items()
        }
        measures = [
            Measure("perplexity", "lower", statistics, perplexity, least=1.0),
            Measure("bits_per_byte", "lower", statistics, bits_per_byte, least=0.0),
        ]
        warnings = []
        if dropped := len(self.items) - len(indices):
            warnings.append(f"{self.title}: {dropped} records do not fit a model's context and were left out.")
        beyond = [model for model, rows_ in statistics.items() if _is_beyond(rows_)]
        if beyond:
            warnings.append(
                f"{self.title}: perplexity of {', '.join(beyond)} is beyond e^{MOST_NATS:.0f} and cut there."
            )
        return Findings(
            measures=wanted_only(measures, self.spec),
            samples=samples(self.items, indices, {}, {"perplexity": own}),
            warnings=warnings,
        )


def _measured(item: Item) -> str:
    """The part of a record whose likelihood is measured."""
    if item.text is not None:
        return item.text
    return item.references[0] if item.references else ""


def _is_beyond(statistics: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> bool:
    nats, tokens = statistics[:, 0].sum(), statistics[:, 1].sum()
    return bool(tokens) and (not math.isfinite(nats) or nats / tokens > MOST_NATS)
