"""When vLLM samples and with which settings: what can be told without it."""

import importlib.util
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from alidade_crds.reasons import FailureReason
from alidade_engine.drawing import SamplingParams
from alidade_engine.failures import JobFailure
from alidade_engine.vllm_sampling import (
    MOST_CACHE_BYTES,
    cache_bytes,
    choose_engine,
    has_stopped,
    request_seed,
    request_settings,
    whole_weights,
)

# peft's, of names that transformers is giving up.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
Install = Callable[[bool], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Makes the package vllm seem to be here or not."""
    find = importlib.util.find_spec

    def seem(installed: bool) -> None:
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: installed or None if name == "vllm" else find(name)
        )

    return seem


@pytest.fixture(scope="module")
def gpt2() -> PreTrainedModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=420, n_positions=128, n_embd=32, n_layer=1, n_head=4))


@pytest.mark.parametrize(
    ("wish", "installed", "on_gpu", "temperature", "chosen"),
    [
        ("auto", True, True, 1.0, "vllm"),
        ("auto", True, False, 1.0, "native"),
        ("auto", False, True, 1.0, "native"),
        ("auto", True, True, 2.5, "native"),
        ("native", True, True, 1.0, "native"),
        ("vllm", True, True, 1.0, "vllm"),
        ("vllm", True, False, 2.0, "vllm"),
    ],
)
def test_auto_takes_vllm_where_it_can_serve_on_a_gpu(
    wish: Literal["auto", "native", "vllm"],
    installed: bool,
    on_gpu: bool,
    temperature: float,
    chosen: str,
    model: PreTrainedModel,
    install: Install,
) -> None:
    install(installed)
    assert choose_engine(wish, model, temperature=temperature, on_gpu=on_gpu) == chosen
    adapted = get_peft_model(model.__class__(model.config), LoraConfig(task_type="CAUSAL_LM", r=1))
    assert choose_engine(wish, adapted, temperature=temperature, on_gpu=on_gpu) == chosen


def test_vllm_that_was_asked_for_and_cannot_serve_is_refused_with_a_way_out(
    model: PreTrainedModel, gpt2: PreTrainedModel, install: Install
) -> None:
    def refusal(asked: PreTrainedModel, temperature: float) -> str:
        with pytest.raises(JobFailure) as caught:
            choose_engine("vllm", asked, temperature=temperature, on_gpu=True)
        assert caught.value.reason == FailureReason.CONFIG_INVALID
        return caught.value.message

    install(False)
    assert refusal(model, 1.0) == (
        "generation.engine is vllm, but this image lacks the Python package vllm. Set compute.image to an image that "
        "has it, or generation.engine to native."
    )
    install(True)
    assert choose_engine("auto", gpt2, temperature=1.0, on_gpu=True) == "native"
    assert refusal(gpt2, 1.0) == (
        "generation.engine is vllm, but the model is a GPT2LMHeadModel; weights under training are handed to vLLM for "
        "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM only. Set generation.engine to "
        "native."
    )
    assert refusal(model, 2.5) == (
        "generation.engine is vllm, but temperature is 2.5; vLLM takes at most 2.0. Set generation.engine to native."
    )


def test_each_sample_has_a_seed_of_its_own_that_its_place_does_not_change() -> None:
    large = 2**64 - 1  # prompts' keys are 64 bits of a digest
    seeds = {request_seed(seed, key, sample) for seed in (0, 1) for key in (0, 1, large) for sample in range(50)}
    assert len(seeds) == 2 * 3 * 50
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert request_seed(7, large, 3) == request_seed(7, large, 3)


def test_settings_say_what_ends_an_answer_and_leave_no_end_to_be_guessed() -> None:
    params = SamplingParams(50, temperature=0.7, top_p=0.9, top_k=20, repetition_penalty=1.1)
    assert request_settings(params, (2, 9), max_tokens=12, seed=5) == {
        "max_tokens": 12,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 20,
        "repetition_penalty": 1.1,
        "seed": 5,
        "stop_token_ids": [2, 9],
        "ignore_eos": True,
        "detokenize": False,
    }


def test_an_answer_ends_by_the_model_or_by_a_limit_and_every_other_end_is_an_error() -> None:
    assert has_stopped("stop")
    assert not has_stopped("length")
    for other in ("abort", "repetition", None):
        with pytest.raises(RuntimeError, match=f"vLLM ended an answer with {other}; it must be stop or length"):
            has_stopped(other)


def test_the_cache_has_room_for_all_rows_up_to_its_bound_and_for_one_always() -> None:
    small = SimpleNamespace(
        num_hidden_layers=2, num_key_value_heads=2, num_attention_heads=4, hidden_size=128, head_dim=None
    )
    per_token = 2 * 2 * 2 * 32 * 4  # keys and values, layers, heads, size, bytes
    assert cache_bytes(small, torch.float32, rows=8, length=200) == (8 * 256 + 128) * per_token
    # Llama 2 7B: half a MiB a token in bfloat16.
    llama2 = SimpleNamespace(
        num_hidden_layers=32, num_key_value_heads=32, num_attention_heads=32, hidden_size=4096, head_dim=128
    )
    block = 128 * 2**19
    assert cache_bytes(llama2, torch.bfloat16, rows=256, length=1024) == MOST_CACHE_BYTES + block
    assert cache_bytes(llama2, torch.bfloat16, rows=1, length=32768) == 32768 * 2**19 + block


@pytest.mark.parametrize(
    "options", [{}, {"use_rslora": True}, {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}]
)
def test_weights_have_the_names_and_values_that_merging_would_give(
    options: dict[str, Any], model: PreTrainedModel
) -> None:
    base = model.__class__(model.config)
    assert {name: weight.data_ptr() for name, weight in whole_weights(base)} == {
        name: weight.data_ptr() for name, weight in base.named_parameters(remove_duplicate=False)
    }
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "down_proj"], **options)
    adapted = get_peft_model(base, config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                weight.add_(torch.randn_like(weight))
    found = {name: weight.clone() for name, weight in whole_weights(adapted)}
    merged = adapted.merge_and_unload()
    expected = dict(merged.named_parameters(remove_duplicate=False))
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight.detach(), rtol=1e-6, atol=1e-6)
