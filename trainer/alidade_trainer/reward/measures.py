"""How good a reward model is on preferences that it has not seen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

CALIBRATION_BINS = 10
HISTOGRAM_BINS = 24


@dataclass(frozen=True)
class ScoredPair:
    """A held-out pair: rewards of the preferred and the other answer, how strong the preference is, their lengths."""

    chosen: float
    rejected: float
    strength: float | None = None
    chosen_tokens: int = 0
    rejected_tokens: int = 0

    @property
    def margin(self) -> float:
        """Positive where the model agrees with the preference."""
        return self.chosen - self.rejected


def preference_metrics(pairs: Sequence[ScoredPair]) -> dict[str, float]:
    """Metrics of held-out pairs; names are those of a RewardModel's status.

    accuracy: share of pairs ordered as preferred, a tie counting half. accuracyByStrength.S: of the pairs of one
    strength. meanMargin: mean of chosen - rejected. expectedCalibrationError: `calibration_error`. lengthBias: how much
    more often the longer answer gets the higher reward than it is the preferred one; 0 is none.
    """
    metrics = {
        "accuracy": accuracy(pairs),
        "meanMargin": sum(pair.margin for pair in pairs) / len(pairs),
        "expectedCalibrationError": calibration_error([pair.margin for pair in pairs]),
        "lengthBias": length_bias(pairs),
        "heldOutPairs": float(len(pairs)),
    }
    for strength in sorted({pair.strength for pair in pairs if pair.strength is not None}):
        metrics[f"accuracyByStrength.{strength:g}"] = accuracy([pair for pair in pairs if pair.strength == strength])
    return metrics


def accuracy(pairs: Sequence[ScoredPair]) -> float:
    """Share of pairs whose preferred answer has the higher reward; a tie is a coin's throw, one half."""
    return sum(1.0 if pair.margin > 0 else 0.5 if pair.margin == 0 else 0.0 for pair in pairs) / len(pairs)


def calibration_error(margins: Sequence[float], bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error (Naeini et al. 2015) of the win probabilities that margins stand for.

    By Bradley and Terry a margin m says that the preferred answer wins with probability sigmoid(m). As each pair is
    stored winner first, the prediction is taken for the answer with the higher reward: confidence sigmoid(|m|) from 0.5
    to 1, right when m > 0; the bins divide that range evenly.
    """
    sums = [[0.0, 0.0, 0] for _ in range(bins)]  # confidence, right, count
    for margin in margins:
        confidence = 1.0 / (1.0 + math.exp(-min(abs(margin), 700.0)))  # 700: the largest exponent of a float
        place = min(int((confidence - 0.5) * 2 * bins), bins - 1)
        sums[place][0] += confidence
        sums[place][1] += 1.0 if margin > 0 else 0.5 if margin == 0 else 0.0
        sums[place][2] += 1
    return sum(abs(confidence - right) for confidence, right, _ in sums) / len(margins)


def length_bias(pairs: Sequence[ScoredPair]) -> float:
    """Among pairs of unequal length: share where the longer answer has the higher reward, less that where it is the
    preferred one; from -1 to 1, and 0 without such pairs."""
    unequal = [pair for pair in pairs if pair.chosen_tokens != pair.rejected_tokens]
    if not unequal:
        return 0.0
    longer_wins = sum((pair.chosen_tokens > pair.rejected_tokens) == (pair.margin > 0) for pair in unequal)
    longer_is_better = sum(pair.chosen_tokens > pair.rejected_tokens for pair in unequal)
    return (longer_wins - longer_is_better) / len(unequal)


def reward_histogram(chosen: Sequence[float], rejected: Sequence[float], bins: int = HISTOGRAM_BINS) -> dict[str, Any]:
    """Counts of the rewards of chosen and of rejected answers over common bins, as a report can hold them.

    `edges` has one entry more than each list of counts.
    """
    low, high = min(*chosen, *rejected), max(*chosen, *rejected)
    width = (high - low) / bins or 1.0
    counts = {"chosen": [0] * bins, "rejected": [0] * bins}
    for name, values in (("chosen", chosen), ("rejected", rejected)):
        for value in values:
            counts[name][min(int((value - low) / width), bins - 1)] += 1
    return {"edges": [low + width * place for place in range(bins + 1)], **counts}
