"""Stretched rotary positions against the papers' formulas, and as transformers computes them from what is saved."""

import math

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    PretrainedConfig,
)

from alidade_crds.blocks import Context
from alidade_engine.failures import JobFailure
from alidade_trainer.context.scaling import scaled_config

HEAD, BASE, TRAINED = 32, 10000.0, 256
PAIRS = np.arange(HEAD // 2)
PLAIN = BASE ** (-2 * PAIRS / HEAD)


def config(**changed: object) -> LlamaConfig:
    fields = {
        "vocab_size": 64,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": TRAINED,
    }
    return LlamaConfig(**fields | changed)


def rotation(scaled: PretrainedConfig) -> tuple[np.ndarray, float]:
    """Frequencies of the pairs, and the factor on queries and keys, of a model made from a saved configuration."""
    rotary = LlamaForCausalLM(LlamaConfig.from_dict(scaled.to_dict())).model.rotary_emb
    return rotary.inv_freq.double().numpy(), rotary.attention_scaling


def test_linear_interpolation_divides_every_position() -> None:
    found, temperature = rotation(scaled_config(config(), Context(length=1024, scaling="linear")))

    assert found == pytest.approx(PLAIN / 4, rel=1e-6)
    assert temperature == 1


def test_ntk_stretches_the_slowest_pair_by_the_factor_and_the_fastest_not_at_all() -> None:
    scaled = scaled_config(config(), Context(length=1024, scaling="ntk"))

    found, temperature = rotation(scaled)

    base = BASE * 4 ** (HEAD / (HEAD - 2))
    assert scaled.rope_parameters["rope_theta"] == pytest.approx(base)
    assert found == pytest.approx(base ** (-2 * PAIRS / HEAD), rel=1e-5)
    assert found[0] == 1
    assert found[-1] == pytest.approx(PLAIN[-1] / 4, rel=1e-5)
    assert temperature == 1


@pytest.mark.parametrize("factor", [4, 16])
def test_yarn_interpolates_slow_pairs_only_and_sharpens_attention(factor: int) -> None:
    found, temperature = rotation(scaled_config(config(), Context(length=TRAINED * factor, scaling="yarn")))

    # Peng et al. 2023: pairs that turn more than 32 times in the trained context stay, those below one turn are
    # interpolated; between them the authors' implementation goes over linearly in the pair's number.
    turns = TRAINED * PLAIN / (2 * math.pi)
    first, last = (HEAD * math.log(TRAINED / (2 * math.pi * each)) / (2 * math.log(BASE)) for each in (32, 1))
    ramp = np.clip((PAIRS - max(math.floor(first), 0)) / (math.ceil(last) - max(math.floor(first), 0)), 0, 1)
    assert found == pytest.approx((1 - ramp) * PLAIN + ramp * PLAIN / factor, rel=1e-5)
    assert found[turns > 32] == pytest.approx(PLAIN[turns > 32], rel=1e-5)
    assert found[turns < 0.5] == pytest.approx(PLAIN[turns < 0.5] / factor, rel=1e-5)
    # Section 3.4, equation 22: sqrt(1/t) = 0.1 ln(s) + 1.
    assert temperature == pytest.approx(0.1 * math.log(factor) + 1)


def test_only_rotated_dimensions_count_where_a_part_of_a_head_is_rotated() -> None:
    partial = GPTNeoXConfig(
        vocab_size=64,
        hidden_size=128,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": BASE, "partial_rotary_factor": 0.25},
    )

    scaled = scaled_config(partial, Context(length=512, scaling="ntk"))

    frequencies = GPTNeoXForCausalLM(scaled).gpt_neox.rotary_emb.inv_freq
    assert len(frequencies) == 8
    assert scaled.rope_parameters["rope_theta"] == pytest.approx(BASE * 2 ** (16 / 14))


def test_the_longer_context_is_saved_for_whoever_serves_the_model(tmp_path: object) -> None:
    model = LlamaForCausalLM(scaled_config(config(), Context(length=1024, scaling="yarn", factor=6)))
    model.save_pretrained(tmp_path)

    saved = AutoConfig.from_pretrained(tmp_path)

    assert saved.max_position_embeddings == 1024
    assert saved.rope_parameters["factor"] == 6
    assert saved.rope_parameters["original_max_position_embeddings"] == TRAINED
    again = LlamaForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again.model.rotary_emb.inv_freq, model.model.rotary_emb.inv_freq)


@pytest.mark.parametrize(
    ("base", "context", "message"),
    [
        (GPT2Config(), {"length": 2048}, "the model is a gpt2, which has no rotary positions to stretch"),
        (OPTConfig(), {"length": 4096}, "the model is a opt, which has no rotary positions"),
        (Gemma3TextConfig(), {"length": 2**18}, "rotary positions of different kinds"),
        (config(), {"length": 128}, "context.length is 128; the model's context is 256 tokens already"),
        (
            config(),
            {"length": 8192},
            "context.length is 8192; that is 32 times the model's 256 tokens, and scaling linear has been shown to "
            "hold 16 times. Use scaling yarn, a length of 4096 or less, or set context.factor to 32",
        ),
        (config(), {"length": 16384, "scaling": "yarn"}, "to hold 32 times. Use a length of 8192 or less"),
        (
            config(),
            {"length": 1024, "factor": 2},
            "a factor of 2 stretches the model's 256 tokens to 512. Set context.factor to 4 or more, or "
            "context.length to 512 or less",
        ),
        (
            scaled_config(config(), Context(length=512, scaling="yarn")),
            {"length": 1024},
            "positions are stretched already (yarn, to 512 tokens)",
        ),
    ],
)
def test_what_cannot_be_stretched_is_refused(base: PretrainedConfig, context: dict[str, object], message: str) -> None:
    with pytest.raises(JobFailure) as refused:
        scaled_config(base, Context.model_validate(context))

    assert message in str(refused.value)


def test_a_factor_of_ones_own_goes_farther() -> None:
    scaled = scaled_config(config(), Context(length=8192, scaling="linear", factor=32))

    assert scaled.rope_parameters["factor"] == 32
