"""The reward is read at the last real token, by the mask and never by an id."""

import torch

from alidade_engine.padding import last_token, pooled, positions_of

MASK = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 1, 1, 0, 0]])


def test_the_last_token_is_found_whichever_side_is_padded() -> None:
    assert last_token(MASK).tolist() == [2, 4, 4, 2]


def test_positions_begin_with_the_first_real_token() -> None:
    assert positions_of(MASK)[1].tolist() == [0, 0, 0, 1, 2]
    assert positions_of(MASK)[0, :3].tolist() == [0, 1, 2]


def test_pooling_takes_each_rows_own_place() -> None:
    values = torch.arange(20.0).reshape(4, 5)
    assert pooled(values, MASK).tolist() == [2.0, 9.0, 14.0, 17.0]
