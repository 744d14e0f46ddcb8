"""The micro batch by trial: a guess is halved until it fits, and doubled while it does."""

import pytest
import torch

from alidade_trainer.probing import can_probe, largest_fitting


@pytest.mark.parametrize(
    ("guess", "most", "bound", "found", "tried"),
    [
        (4, 64, 100, 64, [4, 8, 16, 32, 64]),
        (4, 64, 9, 8, [4, 8, 16]),
        (16, 64, 5, 4, [16, 8, 4]),
        (8, 8, 0, 1, [8, 4, 2]),
        (1, 4, 0, 1, [2]),
    ],
)
def test_the_largest_that_fits_is_found(guess: int, most: int, bound: int, found: int, tried: list[int]) -> None:
    asked: list[int] = []

    def fits(size: int) -> bool:
        asked.append(size)
        return size <= bound

    assert largest_fitting(guess, most, fits) == found
    assert asked == tried


def test_trials_are_for_gpus_with_whole_weights() -> None:
    assert can_probe(torch.device("cuda"), zero_stage=2)
    assert not can_probe(torch.device("cuda"), zero_stage=3)
    assert not can_probe(torch.device("cpu"), zero_stage=2)
