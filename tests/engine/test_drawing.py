"""Tokens drawn from logits, counted over an even grid of positions and compared with transformers' own processors."""

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from alidade_engine.drawing import SamplingParams, draw, uniforms

GRID = 20_000


def drawn_from(logits: Tensor, params: SamplingParams, seen: Tensor | None = None) -> Tensor:
    """(vocabulary,) shares of tokens when the position runs evenly over [0, 1): the probabilities, to 1 / GRID."""
    positions = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID
    tokens, _ = draw(logits.expand(GRID, -1), params, positions, None if seen is None else seen.expand(GRID, -1))
    return torch.bincount(tokens, minlength=len(logits)) / GRID


def processed(logits: Tensor, params: SamplingParams, seen: list[int]) -> Tensor:
    """(vocabulary,) probabilities after transformers' processors, in the order in which `generate` applies them."""
    steps = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(params.repetition_penalty)])
    steps.append(TemperatureLogitsWarper(params.temperature))
    if params.top_k:
        steps.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        steps.append(TopPLogitsWarper(params.top_p))
    scores: Tensor = steps(torch.tensor([seen]), logits.unsqueeze(0).clone())
    return scores[0].softmax(-1)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(1, temperature=1.0),
        SamplingParams(1, temperature=0.7),
        SamplingParams(1, temperature=1.3, top_k=7),
        SamplingParams(1, temperature=1.0, top_p=0.6),
        SamplingParams(1, temperature=1.0, top_p=0.999),
        SamplingParams(1, temperature=0.85, top_p=0.8, top_k=20),
        SamplingParams(1, temperature=0.5, top_k=5000),
        SamplingParams(1, temperature=0.9, top_p=0.7, repetition_penalty=1.4),
        SamplingParams(1, temperature=2.0, top_p=1e-6),
    ],
    ids=str,
)
@pytest.mark.parametrize("vocabulary", [50, 1000])
def test_tokens_come_as_often_as_transformers_processors_say(params: SamplingParams, vocabulary: int) -> None:
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(vocabulary)) * 2
    repeated = [3, 4, 5, int(logits.argmax()), int(logits.argmin())]
    seen = torch.zeros(vocabulary, dtype=torch.bool)
    seen[repeated] = True
    shares = drawn_from(logits, params, seen if params.repetition_penalty != 1 else None)
    expected = processed(logits, params, repeated)
    # An interval of length p holds between p × GRID - 1 and p × GRID + 1 points of the grid.
    assert (shares - expected).abs().max() <= 1.01 / GRID
    assert shares[expected == 0].sum() == 0


def test_a_flat_distribution_wider_than_the_first_candidates_keeps_its_whole_nucleus() -> None:
    logits = torch.linspace(0, 0.1, 1000)
    shares = drawn_from(logits, SamplingParams(1, top_p=0.5))
    kept = (logits.softmax(-1).sort(descending=True).values.cumsum(-1) < 0.5).sum() + 1
    assert (shares > 0).sum() == kept
    assert kept > 400


def test_rows_do_not_change_one_anothers_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 500, generator=generator) * torch.linspace(0.1, 5, 64).unsqueeze(-1)
    positions = torch.rand(64, generator=generator, dtype=torch.float64)
    for params in (SamplingParams(1), SamplingParams(1, top_p=0.9), SamplingParams(1, top_k=9)):
        together, _ = draw(logits, params, positions)
        apart = [draw(logits[row : row + 1], params, positions[row : row + 1])[0].item() for row in range(64)]
        assert together.tolist() == apart


@pytest.mark.parametrize("position", [0.0, np.nextafter(1.0, 0.0)])
def test_a_token_without_probability_is_never_drawn(position: float) -> None:
    logits = torch.full((1, 40_000), float("-inf"))
    logits[0, 17] = 0.1
    logits[0, 29_000] = 0.2
    for params in (SamplingParams(1), SamplingParams(1, top_p=0.999), SamplingParams(1, top_k=30)):
        (token,), _ = draw(logits, params, torch.tensor([position], dtype=torch.float64))
        assert int(token) in (17, 29_000)


def test_log_probabilities_are_of_the_models_distribution_at_the_temperature() -> None:
    logits = torch.randn(3, 100, generator=torch.Generator().manual_seed(0)).bfloat16()
    positions = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    params = SamplingParams(1, temperature=0.7, top_k=5, top_p=0.9, repetition_penalty=1.5, logprobs=True)
    tokens, logprobs = draw(logits, params, positions, torch.ones(3, 100, dtype=torch.bool))
    expected = (logits.double() / 0.7).log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    assert logprobs is not None
    assert logprobs.dtype is torch.float32
    torch.testing.assert_close(logprobs.double(), expected, atol=2e-6, rtol=0)
    tokens, logprobs = draw(logits, SamplingParams(1, temperature=0.0, logprobs=True), positions)
    assert tokens.tolist() == logits.argmax(-1).tolist()
    assert logprobs is not None
    torch.testing.assert_close(logprobs.double(), logits.double().log_softmax(-1).max(-1).values, atol=2e-6, rtol=0)


def test_random_numbers_depend_on_seed_prompt_and_sample_and_not_on_how_many_are_asked() -> None:
    whole = uniforms(1, 2, 3, 50)
    assert (uniforms(1, 2, 3, 10) == whole[:10]).all()
    assert ((whole >= 0) & (whole < 1)).all()
    others = [uniforms(2, 2, 3, 50), uniforms(1, 3, 3, 50), uniforms(1, 2, 4, 50), uniforms(3, 2, 1, 50)]
    assert all((other != whole).all() for other in others)


def test_neighbouring_streams_are_even_and_do_not_follow_one_another() -> None:
    first = np.array([uniforms(0, prompt, sample, 2) for prompt in range(100) for sample in range(50)])
    # Five standard deviations: of a mean of 5000 even numbers, and of the correlation of 5000 independent pairs.
    assert abs(first[:, 0].mean() - 0.5) < 5 * np.sqrt(1 / 12 / 5000)
    assert abs(np.corrcoef(first[:-1, 0], first[1:, 0])[0, 1]) < 5 / np.sqrt(5000)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens is -1; it must be at least 0."),
        ({"temperature": -0.1}, "temperature is -0.1; it must be 0 or a positive number."),
        ({"temperature": float("nan")}, "temperature is nan; it must be 0 or a positive number."),
        ({"top_p": 0}, "top_p is 0; it must be above 0 and at most 1."),
        ({"top_p": 1.5}, "top_p is 1.5; it must be above 0 and at most 1."),
        ({"top_k": -1}, "top_k is -1; it must be at least 0, where 0 takes all tokens."),
        ({"repetition_penalty": 0}, "repetition_penalty is 0; it must be a positive number; 1 is none."),
    ],
)
def test_a_setting_outside_its_limits_is_named_with_them(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        SamplingParams(**{"max_new_tokens": 1} | fields)  # type: ignore[arg-type]
    assert str(caught.value) == message
