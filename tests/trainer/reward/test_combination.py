"""Several rewards made one."""

import torch

from alidade_trainer.reward.combination import gated, weighted_sum, whitened


def test_weights_multiply_before_the_sum() -> None:
    assert weighted_sum([torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0])], [1.0, -0.5]).tolist() == [-4.0, -8.0]


def test_the_gated_reward_is_llama_2s_rule_written_out() -> None:
    safety = torch.tensor([2.0, -3.0, 1.0, 0.5])
    helpfulness = torch.tensor([0.7, 4.0, -1.0, -2.0])
    tagged = torch.tensor([False, False, True, False])
    # sigmoid(-3) = 0.047 is below 0.15; the tagged one goes by safety whatever its score.
    logits = torch.tensor([0.7, -3.0, 1.0, -2.0])
    expected = (logits - logits.mean()) / logits.std(unbiased=False)
    torch.testing.assert_close(gated(safety, helpfulness, tagged), expected, rtol=1e-4, atol=1e-4)


def test_the_gate_holds_extreme_scores_finite_and_a_constant_at_zero() -> None:
    assert (
        gated(torch.tensor([900.0, -900.0]), torch.tensor([900.0, 0.0]), torch.tensor([False, False])).isfinite().all()
    )
    assert whitened(torch.ones(3)).tolist() == [0.0, 0.0, 0.0]
