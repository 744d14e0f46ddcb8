"""Which records are learned by their perplexity: how well a model foretells what is learned of them.

CCNet (Wenzek et al. 2020, section 4) splits each language's text by perplexity; here every dataset has quantiles of its
own, over the records that are left when repetitions are out.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from alidade_crds.text_dataset import Perplexity
from alidade_engine.perplexity import MOST_NATS
from alidade_trainer.data.report import EXAMPLES_SHOWN
from alidade_trainer.data.selection import kept_samples
from alidade_trainer.data.sequences import Samples
from alidade_trainer.data.tokenising import TokenisedSource

QUANTILES_TOLD = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def candidates(sources: Sequence[TokenisedSource], left_out: Sequence[NDArray[np.bool_]]) -> NDArray[np.int64]:
    """Samples of the records that are not left out, source after source: those whose losses are to be known."""
    parts = [kept_samples(one, out) + one.samples.start for one, out in zip(sources, left_out, strict=True)]
    return np.concatenate(parts)


def out_of_bounds(
    source: TokenisedSource,
    left_out: NDArray[np.bool_],
    samples: Samples,
    losses: NDArray[np.float32],
    bounds: Perplexity,
) -> NDArray[np.bool_]:
    """(records,) whether a record is left out for its perplexity, which the source's report tells.

    losses: of the source's candidates, in nats, summed over the tokens that are learned.
    """
    perplexities = _perplexities(source, left_out, samples, losses)
    told = np.isfinite(perplexities)
    if told.any():
        quantiles = np.quantile(perplexities[told], QUANTILES_TOLD)
        source.report.perplexity = dict(zip(map(str, QUANTILES_TOLD), map(float, quantiles), strict=True))
    outside = np.zeros(len(perplexities), dtype=np.bool_)
    for reason, faulty in _faults(perplexities, bounds):
        records = np.flatnonzero(faulty & ~outside)
        if len(records):
            source.report.drop_kept(reason, len(records), _examples(source, records[:EXAMPLES_SHOWN], perplexities))
        outside |= faulty
    return outside


def _perplexities(
    source: TokenisedSource, left_out: NDArray[np.bool_], samples: Samples, losses: NDArray[np.float32]
) -> NDArray[np.float64]:
    """(records,) exp of the mean loss over all learned tokens of a record; -inf for one without any, or left out."""
    chosen = kept_samples(source, left_out)
    records = source.record_of[chosen]
    sums = np.bincount(records, weights=losses, minlength=len(source.keys))
    learned = samples.learned_lengths[source.samples.start : source.samples.stop][chosen]
    tokens = np.bincount(records, weights=learned, minlength=len(source.keys))
    means = np.full(len(source.keys), -np.inf)
    np.divide(sums, tokens, out=means, where=tokens > 0)
    return np.where(tokens > 0, np.exp(np.minimum(means, MOST_NATS)), -np.inf)


def _faults(perplexities: NDArray[np.float64], bounds: Perplexity) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Reasons to leave records out, and (records,) which ones have each."""
    scored = perplexities > -np.inf
    finite = perplexities[np.isfinite(perplexities)]
    yield "a perplexity that is no number", np.isnan(perplexities)
    if not len(finite):
        return
    name = "filters.perplexity"
    if bounds.minimum is not None:
        yield f"a perplexity below {name}.minimum, {bounds.minimum:g}", scored & (perplexities < bounds.minimum)
    if bounds.maximum is not None:
        yield f"a perplexity above {name}.maximum, {bounds.maximum:g}", perplexities > bounds.maximum
    if bounds.minimum_quantile is not None:
        least = np.quantile(finite, bounds.minimum_quantile)
        yield (
            f"a perplexity below {name}.minimumQuantile {bounds.minimum_quantile:g}, which is {least:.4g}",
            scored & (perplexities < least),
        )
    if bounds.maximum_quantile is not None:
        greatest = np.quantile(finite, bounds.maximum_quantile)
        yield (
            f"a perplexity above {name}.maximumQuantile {bounds.maximum_quantile:g}, which is {greatest:.4g}",
            perplexities > greatest,
        )


def _examples(source: TokenisedSource, records: NDArray[np.int64], perplexities: NDArray[np.float64]) -> list[str]:
    """Where records stand, each with its perplexity."""
    ordered = records[np.argsort(source.numbers[records])]
    places = source.source.places(source.numbers[ordered].tolist())
    return [f"{place}: {perplexities[record]:.4g}" for place, record in zip(places, ordered, strict=True)]
