"""PPO's and DPO's numbers against loops that spell the published formulas out."""

import math

import pytest
import torch
from torch import Tensor

from alidade_trainer.align.advantages import (
    generalized_advantages,
    masked_mean,
    masked_whitened,
    token_rewards,
)
from alidade_trainer.align.divergence import KlCoefficient, token_divergence
from alidade_trainer.align.losses import dpo_loss, entropy, explained_variance, policy_loss, value_loss

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]]).bool()


@pytest.fixture
def numbers() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


def test_divergence_estimators_are_schulmans() -> None:
    policy, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -0.5])
    ratios = [math.exp(r - p) for p, r in zip(policy.tolist(), reference.tolist(), strict=True)]
    assert token_divergence(policy, reference, "k1").tolist() == pytest.approx([0.5, -1.5])
    assert token_divergence(policy, reference, "k2").tolist() == pytest.approx([0.125, 1.125])
    assert token_divergence(policy, reference, "k3").tolist() == pytest.approx([r - 1 - math.log(r) for r in ratios])


def test_k1_and_k3_estimate_the_true_divergence_and_k3_with_less_spread(numbers: torch.Generator) -> None:
    policy, reference = draw(numbers, 6).log_softmax(0), draw(numbers, 6).log_softmax(0)
    true = float((policy.exp() * (policy - reference)).sum())
    drawn = torch.multinomial(policy.exp(), 200_000, replacement=True, generator=numbers)
    estimates = {name: token_divergence(policy[drawn], reference[drawn], name) for name in ("k1", "k3")}
    for values in estimates.values():
        assert float(values.mean()) == pytest.approx(true, abs=5 * float(values.std()) / 200_000**0.5)
    assert (estimates["k3"] >= 0).all()
    assert estimates["k3"].std() < estimates["k1"].std()


def test_the_score_comes_once_at_the_last_token_and_the_penalty_at_every_token(numbers: torch.Generator) -> None:
    divergence, scores = draw(numbers, 3, 4), torch.tensor([1.0, 2.0, 3.0])
    rewards = token_rewards(scores, divergence, MASK, kl_coefficient=0.1)
    for row, length in enumerate((4, 2, 1)):
        for place in range(4):
            expected = -0.1 * float(divergence[row, place]) if place < length else 0.0
            expected += float(scores[row]) if place == length - 1 else 0.0
            assert float(rewards[row, place]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("gamma", "lambda_"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (1.0, 0.0)])
def test_advantages_are_the_discounted_sums_of_temporal_differences(
    numbers: torch.Generator, gamma: float, lambda_: float
) -> None:
    rewards, values = draw(numbers, 3, 4), draw(numbers, 3, 4)
    advantages, returns = generalized_advantages(rewards, values, MASK, gamma=gamma, lambda_=lambda_)
    for row, length in enumerate((4, 2, 1)):
        r, v = rewards[row, :length].tolist(), [*values[row, :length].tolist(), 0.0]
        deltas = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            expected = sum((gamma * lambda_) ** k * deltas[t + k] for k in range(length - t))
            assert float(advantages[row, t]) == pytest.approx(expected, abs=1e-5)
            assert float(returns[row, t]) == pytest.approx(expected + v[t], abs=1e-5)
        assert not advantages[row, length:].any()


def test_with_lambda_and_gamma_1_a_return_is_the_sum_of_what_is_still_to_come(numbers: torch.Generator) -> None:
    rewards, values = draw(numbers, 3, 4), draw(numbers, 3, 4)
    _, returns = generalized_advantages(rewards, values, MASK, gamma=1.0, lambda_=1.0)
    held = rewards * MASK
    expected = held.flip(1).cumsum(1).flip(1) * MASK
    torch.testing.assert_close(returns, expected, atol=1e-5, rtol=1e-5)


def test_values_outside_of_the_mask_change_nothing(numbers: torch.Generator) -> None:
    rewards, values = draw(numbers, 3, 4), draw(numbers, 3, 4)
    noise = 100 * draw(numbers, 3, 4) * ~MASK
    clean = generalized_advantages(rewards, values, MASK, gamma=1.0, lambda_=0.95)
    noisy = generalized_advantages(rewards + noise, values + noise, MASK, gamma=1.0, lambda_=0.95)
    assert torch.equal(clean[0], noisy[0])
    assert torch.equal(clean[1], noisy[1])


def test_whitening_counts_the_masks_tokens_alone(numbers: torch.Generator) -> None:
    values = 5 + 3 * draw(numbers, 3, 4)
    white = masked_whitened(values, MASK)
    assert float(white[MASK].mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(white[MASK].std(unbiased=False)) == pytest.approx(1.0, abs=1e-5)
    kept = masked_whitened(values, MASK, shift_mean=False)
    assert float(kept[MASK].mean()) == pytest.approx(float(values[MASK].mean()), abs=1e-5)
    assert not white[~MASK].any()
    assert float(masked_mean(values, MASK)) == pytest.approx(float(values[MASK].mean()), abs=1e-5)


def test_the_policy_loss_is_the_pessimistic_surrogate(numbers: torch.Generator) -> None:
    new, old, advantages = draw(numbers, 3, 4), draw(numbers, 3, 4), draw(numbers, 3, 4)
    found = policy_loss(new, old, advantages, MASK, clip=0.2)
    loss = clipped = kl = 0.0
    for row, place in MASK.nonzero().tolist():
        log_ratio = float(new[row, place] - old[row, place])
        ratio, advantage = math.exp(log_ratio), float(advantages[row, place])
        bounded = min(max(ratio, 0.8), 1.2)
        loss -= min(ratio * advantage, bounded * advantage)
        clipped += bounded * advantage < ratio * advantage
        kl += 0.5 * log_ratio**2
    assert float(found.loss) == pytest.approx(loss, rel=1e-5)
    assert float(found.clipped) == clipped
    assert float(found.approx_kl) == pytest.approx(kl, rel=1e-5)


def test_before_the_first_update_the_ratio_is_1_and_the_gradient_that_of_the_plain_policy_gradient(
    numbers: torch.Generator,
) -> None:
    old, advantages = draw(numbers, 3, 4), draw(numbers, 3, 4)
    new = old.clone().requires_grad_()
    found = policy_loss(new, old, advantages, MASK, clip=0.2)
    found.loss.backward()
    assert found.ratio.item() == MASK.sum()
    assert float(found.clipped) == 0
    torch.testing.assert_close(new.grad, -advantages * MASK)


def test_a_token_beyond_the_clip_gets_no_gradient_from_an_advantage_that_would_push_it_on() -> None:
    new = torch.tensor([[0.5]], requires_grad=True)
    policy_loss(new, torch.tensor([[0.0]]), torch.tensor([[1.0]]), torch.tensor([[True]]), clip=0.2).loss.backward()
    assert new.grad is not None
    assert float(new.grad) == 0.0


def test_the_value_loss_is_half_the_greater_square(numbers: torch.Generator) -> None:
    new, old, returns = draw(numbers, 3, 4), draw(numbers, 3, 4), draw(numbers, 3, 4)
    loss, clipped = value_loss(new, old, returns, MASK, clip=0.2)
    expected = counted = 0.0
    for row, place in MASK.nonzero().tolist():
        v, o, r = (float(x[row, place]) for x in (new, old, returns))
        bounded = min(max(v, o - 0.2), o + 0.2)
        expected += 0.5 * max((v - r) ** 2, (bounded - r) ** 2)
        counted += (bounded - r) ** 2 > (v - r) ** 2
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(clipped) == counted


def test_entropy_of_a_flat_distribution_is_the_log_of_its_size() -> None:
    assert float(entropy(torch.zeros(1, 50, dtype=torch.bfloat16))) == pytest.approx(math.log(50), rel=1e-6)
    logits = torch.tensor([1.0, 2.0, -1.0])
    p = logits.softmax(0)
    assert float(entropy(logits)) == pytest.approx(float(-(p * p.log()).sum()), rel=1e-6)


def test_explained_variance_is_1_for_a_perfect_critic_and_0_for_a_constant_one(numbers: torch.Generator) -> None:
    returns = draw(numbers, 3, 4)
    assert explained_variance(returns, returns, MASK) == pytest.approx(1.0)
    assert explained_variance(torch.full_like(returns, 7.0), returns, MASK) == pytest.approx(0.0, abs=1e-6)
    assert math.isnan(explained_variance(returns, torch.ones_like(returns), MASK))


def test_the_adaptive_coefficient_follows_the_clipped_relative_error() -> None:
    coefficient = KlCoefficient(0.1, target=6.0)
    coefficient.update(6.6, 512)
    assert coefficient.value == pytest.approx(0.1 * (1 + 0.1 * 512 / 10_000))
    coefficient.update(600.0, 512)
    assert coefficient.value == pytest.approx(0.1 * (1 + 0.1 * 512 / 10_000) * (1 + 0.2 * 512 / 10_000))
    coefficient.update(0.0, 10_000)
    assert coefficient.value == pytest.approx(0.1 * (1 + 0.1 * 512 / 10_000) * (1 + 0.2 * 512 / 10_000) * 0.8)


def test_a_fixed_coefficient_stays() -> None:
    coefficient = KlCoefficient(0.05)
    coefficient.update(100.0, 512)
    assert coefficient.value == 0.05


def test_the_dpo_loss_is_the_papers(numbers: torch.Generator) -> None:
    chosen, rejected, ref_chosen, ref_rejected = (draw(numbers, 4) for _ in range(4))
    found = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=0.3)
    for pair in range(4):
        logit = 0.3 * float(chosen[pair] - ref_chosen[pair]) - 0.3 * float(rejected[pair] - ref_rejected[pair])
        assert float(found.loss[pair]) == pytest.approx(-math.log(1 / (1 + math.exp(-logit))), rel=1e-5)
    assert dpo_loss(chosen, rejected, chosen, rejected, beta=0.3).loss.tolist() == pytest.approx([math.log(2)] * 4)
