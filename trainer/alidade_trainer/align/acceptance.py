"""Which samples RAFT learns from (Dong et al. 2023, algorithm 1). Pure functions of the samples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Sample:
    """An answer drawn and judged.

    prompt: the prompt's place in the dataset. prompt_ids, answer_ids: tokens, the answer's with the one that ends it.
    finished: whether the model ended it; what the length limit cut off is never accepted, since it would teach not to
    end. reward: what samples are ranked by, the divergence taken off. score: the reward alone, comparable between
    iterations. divergence: nats from the start model, where it is charged.
    """

    prompt: int
    prompt_ids: list[int]
    answer_ids: list[int]
    text: str
    finished: bool
    reward: float
    score: float
    divergence: float = 0.0


def _rank(sample: Sample) -> tuple[float, int, list[int]]:
    """Best first; what else stands here only makes the order of equals the same in every process and attempt."""
    return (-sample.reward, sample.prompt, sample.answer_ids)


def best_of_each(samples: Sequence[Sample]) -> list[Sample]:
    """The best finished answer of each prompt, in order of the prompts; a prompt without one is passed over."""
    ordered = sorted((sample for sample in samples if sample.finished), key=lambda sample: sample.prompt)
    return [min(group, key=_rank) for _, group in groupby(ordered, key=lambda sample: sample.prompt)]


def accepted_count(samples: int, ratio: float) -> int:
    """Samples that are the best share of so many: ratio x samples, rounded up."""
    return math.ceil(ratio * samples - 1e-9)  # 0.1 x 30 is 3.0000000000000004


def best_of_all(samples: Sequence[Sample], ratio: float) -> list[Sample]:
    """The best share of the whole batch: `accepted_count` of the finished ones, the best first."""
    count = accepted_count(len(samples), ratio)
    return sorted((sample for sample in samples if sample.finished), key=_rank)[:count]


def replayed(pool: Sequence[Sample], accepted: Sequence[Sample]) -> list[Sample]:
    """What of earlier iterations is learned again beside the newly accepted (Llama 2, section 3.2.3).

    The best of the pool, at most as many as the new ones, so that an iteration costs at most twice one without replay;
    an answer that was accepted anew is not repeated.
    """
    new = {(sample.prompt, tuple(sample.answer_ids)) for sample in accepted}
    earlier = [sample for sample in pool if (sample.prompt, tuple(sample.answer_ids)) not in new]
    return sorted(earlier, key=_rank)[: len(accepted)]


def pool_with(pool: Sequence[Sample], accepted: Sequence[Sample], *, most: int) -> list[Sample]:
    """The pool for later iterations: different answers of old pool and newly accepted, the best `most` of them."""
    different = {(sample.prompt, tuple(sample.answer_ids)): sample for sample in [*pool, *accepted]}
    return sorted(different.values(), key=_rank)[:most]
