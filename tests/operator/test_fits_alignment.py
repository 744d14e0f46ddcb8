"""What an alignment holds beside its policy, against numbers worked by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from alidade_crds.alignmentrun import AlignmentRunSpec
from alidade_crds.blocks import AdapterType, Model
from alidade_operator.fits import GIB, VLLM_CACHE_BYTES, Estimate, estimate, setup_of
from alidade_operator.reconcile.alignmentjob import alignment_spec
from tests.operator.test_fits import GIGA, LLAMA_7B, setup

PPO = {"has_critic": True, "has_reference": True, "judges": (LLAMA_7B.parameters,)}


def resident(found: Estimate) -> float:
    """Weights, gradients, optimizer states and frozen models, in bytes."""
    return found.weights + found.gradients + found.optimizer + found.frozen


def test_full_ppo_of_four_7b_models_takes_16_bytes_a_weight_for_two_and_2_for_the_others() -> None:
    by_hand = (2 * 16 + 2 * 2) * LLAMA_7B.parameters
    assert resident(estimate(LLAMA_7B, setup(**PPO))) == pytest.approx(by_hand)
    assert by_hand == pytest.approx(242.6 * GIGA, rel=1e-3)


def test_lora_holds_one_base_and_the_reward_model() -> None:
    found = estimate(LLAMA_7B, setup(adapter=AdapterType.LORA, judges=(LLAMA_7B.parameters,)))
    assert resident(found) == pytest.approx(2 * 2 * LLAMA_7B.parameters, rel=0.02)


def test_stage_3_divides_the_reference_and_gathers_the_policy_for_sampling() -> None:
    whole = setup(**PPO, zero_stage=3, processes=8, samples=64)
    found = estimate(LLAMA_7B, whole)
    assert found.frozen == pytest.approx(2 * LLAMA_7B.parameters * (1 / 8 + 1))
    keys_and_values = 2 * 2 * 32 * 4096 * 1024 * 64  # two of 2 bytes, in 32 blocks, for 64 sequences of 1,024 tokens
    assert found.sampling == pytest.approx(2 * LLAMA_7B.parameters + keys_and_values)


def test_sampling_and_training_take_turns() -> None:
    found = estimate(LLAMA_7B, setup(samples=64))
    passes = found.gradients + found.activations + found.logits
    assert found.total == pytest.approx(found.weights + found.optimizer + found.fixed + max(passes, found.sampling))


def test_vllm_holds_the_weights_again_and_a_cache_of_its_own() -> None:
    found = estimate(LLAMA_7B, setup(samples=64, samples_with_vllm=True))
    assert found.sampling == pytest.approx(2 * LLAMA_7B.parameters + VLLM_CACHE_BYTES)
    assert VLLM_CACHE_BYTES == 8 * GIB


@pytest.mark.parametrize(
    ("steps", "adapter", "critic", "reference", "samples"),
    [
        ([{"raft": {}}], "none", False, False, 64),
        ([{"raft": {"klCoefficient": 0.1}}], "none", False, True, 64),
        ([{"raft": {}}, {"ppo": {}}], "none", True, True, 64),
        ([{"ppo": {}}], "lora", False, False, 64),
        ([{"dpo": {"dataset": {"uri": "pvc://d/x"}}}], "none", False, False, 0),
    ],
)
def test_steps_decide_what_is_held(steps: list[Any], adapter: str, critic: bool, reference: bool, samples: int) -> None:
    spec = AlignmentRunSpec.model_validate(
        {
            "sft": {"model": {"uri": "hf://a/b"}},
            "rewardModels": [{"name": "right", "function": "exact_match"}],
            "prompts": {"uri": "pvc://d/prompts", "maxLength": 512},
            "align": steps,
            "adapter": {"type": adapter},
            "generation": {"maxNewTokens": 128},
        }
    )
    found = setup_of(alignment_spec(spec, model=Model(), rewards={}, output=None), micro_batch_size=1)
    assert (found.has_critic, found.has_reference, found.samples) == (critic, reference, samples)
    assert found.max_length == 640
    assert replace(found, judges=()) == found
