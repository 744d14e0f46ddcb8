"""Perplexity by length: the same tokens at every length, with more or less text before them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from alidade_crds.blocks import Context
from alidade_trainer.context.lengths import doubling, perplexities, plan_windows, rotating_as
from alidade_trainer.context.scaling import scaled_config
from alidade_trainer.data.sequences import SampleBuilder, TokenDataset
from alidade_trainer.peers import Peers

ALONE = Peers(0, 1, 0, 1, torch.device("cpu"))


def held_out(*lengths: int) -> TokenDataset:
    builder = SampleBuilder()
    random = np.random.default_rng(1)
    for length in lengths:
        builder.add(random.integers(0, 50, length).tolist(), [True] * length)
    return TokenDataset.of(builder.build(), np.arange(len(lengths)), max_length=4096, packing=False)


def config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )


def test_lengths_double_up_to_the_target() -> None:
    assert doubling(512, 4096) == [512, 1024, 2048, 4096]
    assert doubling(512, 3000) == [512, 1024, 2048, 3000]


def test_windows_lie_within_the_texts_that_are_long_enough() -> None:
    windows = plan_windows(held_out(100, 300, 256), original=64, target=256)

    assert windows is not None
    assert windows.lengths == [64, 128, 256]
    assert windows.stride == 32
    assert windows.within_texts
    assert len(windows.tokens) == 3  # ends at 256 and 288 of the text of 300, and at 256 of the other
    assert {len(window) for window in windows.tokens} == {256}


def test_short_texts_are_joined_as_far_as_they_reach() -> None:
    windows = plan_windows(held_out(60, 60, 60), original=64, target=512)

    assert windows is not None
    assert windows.lengths == [64, 128]
    assert not windows.within_texts


@pytest.mark.parametrize("data", [None, held_out(40)])
def test_without_held_out_text_there_are_no_windows(data: TokenDataset | None) -> None:
    assert plan_windows(data, original=64, target=256) is None


def test_perplexity_is_that_of_the_last_tokens_of_each_window() -> None:
    torch.manual_seed(2)
    model = LlamaForCausalLM(config())
    windows = plan_windows(held_out(200, 150), original=64, target=128)
    assert windows is not None

    found = perplexities(model, windows, ALONE)

    for length, perplexity in zip(windows.lengths, found, strict=True):
        losses = []
        for window in windows.tokens:
            ids = torch.tensor(window[-length:].astype(np.int64))
            with torch.no_grad():
                predicted = model(input_ids=ids[None]).logits[0].log_softmax(-1)
            losses += [-float(predicted[place - 1, ids[place]]) for place in range(length - windows.stride, length)]
        assert perplexity == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)
    assert model.training


def test_a_model_may_turn_as_its_base_did(tmp_path: Path) -> None:
    torch.manual_seed(2)
    base = LlamaForCausalLM(config())
    base.save_pretrained(tmp_path)
    stretched = LlamaForCausalLM.from_pretrained(
        tmp_path, config=scaled_config(config(), Context(length=256, scaling="yarn"))
    )
    ids = torch.arange(40)[None]

    with torch.no_grad():
        own = stretched(input_ids=ids).logits
        with rotating_as(stretched, config()):
            as_base = stretched(input_ids=ids).logits

        assert torch.equal(as_base, base(input_ids=ids).logits)
        assert not torch.allclose(own, as_base, atol=1e-4)
        assert torch.equal(stretched(input_ids=ids).logits, own)
