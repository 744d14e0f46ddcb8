"""The reward model's loss against the published formulas, written out pair by pair."""

import math

import pytest
import torch

from alidade_trainer.reward.ranking import centring_loss, pair_strength, prompt_losses, ranked_pairs, ranking_loss


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_the_ranking_loss_is_the_negative_log_likelihood_of_the_preference() -> None:
    chosen, rejected, margin = [1.0, -0.5, 3.0], [0.0, 0.5, 3.0], [0.0, 1 / 3, 1.0]
    expected = [-math.log(sigmoid(c - r - m)) for c, r, m in zip(chosen, rejected, margin, strict=True)]
    found = ranking_loss(torch.tensor(chosen), torch.tensor(rejected), torch.tensor(margin))
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_the_loss_of_far_apart_rewards_neither_overflows_nor_vanishes() -> None:
    losses = ranking_loss(torch.tensor([-200.0, 200.0]), torch.tensor([200.0, -200.0]))
    assert losses.tolist() == pytest.approx([400.0, 0.0])


def test_bfloat16_rewards_are_compared_in_float32() -> None:
    chosen, rejected = torch.tensor([1.0], dtype=torch.bfloat16), torch.tensor([0.5], dtype=torch.bfloat16)
    assert ranking_loss(chosen, rejected).dtype == torch.float32


def test_centring_is_the_square_of_the_sum() -> None:
    assert centring_loss(torch.tensor([2.0, 1.0]), torch.tensor([1.0, -1.0])).tolist() == [9.0, 0.0]


@pytest.mark.parametrize("answers", [2, 4, 9])
def test_k_answers_make_k_times_k_minus_1_half_pairs_each_better_first(answers: int) -> None:
    scores = [float((7 * place) % answers) for place in range(answers)]
    pairs = ranked_pairs(scores)
    assert len(pairs) == len(set(pairs)) == answers * (answers - 1) // 2
    assert all(scores[better] > scores[worse] for better, worse in pairs)


def test_answers_of_equal_score_are_not_compared() -> None:
    assert ranked_pairs([1.0, 1.0, 0.0]) == [(0, 2), (1, 2)]


def test_strength_is_the_records_own_or_the_distance_in_the_ranking() -> None:
    assert pair_strength([1.0, 0.0], (0, 1), 0.5) == 0.5
    assert pair_strength([1.0, 0.0], (0, 1), None) is None
    assert pair_strength([3.0, 2.0, 1.0], (0, 1), None) == 0.5
    assert pair_strength([3.0, 2.0, 1.0], (0, 2), None) == 1.0


def test_a_prompt_weighs_as_one_whatever_the_number_of_its_answers() -> None:
    """InstructGPT, equation 1: -1/C(K,2) of the sum over a prompt's pairs; here with margins and centring."""
    torch.manual_seed(0)
    rewards = torch.randn(5, requires_grad=True)  # three answers to one prompt, two to another
    pairs = [torch.tensor([[0, 1], [0, 2], [1, 2]]), torch.tensor([[4, 3]])]
    margins = [torch.tensor([0.5, 1.0, 0.5]), torch.tensor([0.0])]
    together = torch.cat(pairs), torch.tensor([0, 0, 0, 1]), torch.cat(margins)
    losses = prompt_losses(rewards, *together, center=0.01)
    values = rewards.tolist()
    expected = []
    for places, wide in zip(pairs, margins, strict=True):
        one = 0.0
        for (better, worse), margin in zip(places.tolist(), wide.tolist(), strict=True):
            one -= math.log(sigmoid(values[better] - values[worse] - margin))
            one += 0.01 * (values[better] + values[worse]) ** 2
        expected.append(one / len(places))
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)
    losses.sum().backward()
    assert rewards.grad is not None
    assert (rewards.grad != 0).all()
