"""The sampler over the real vLLM, compared with the engine's own: docs/how-to/sample-with-vllm.md tells how to run."""

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from alidade_engine.drawing import SamplingParams
from alidade_engine.sampling import Completion, Sampler
from alidade_engine.vllm_sampling import VllmSampler, is_installed

pytestmark = [
    pytest.mark.skipif(
        not is_installed(), reason="vllm is not installed; docs/how-to/sample-with-vllm.md says how to run this"
    ),
    pytest.mark.filterwarnings("ignore"),  # vLLM's own
]

# Longer than a block of vLLM's cache of prompts (128 places on the CPU), so that one of old weights would be seen.
LONG = [5 + number % 300 for number in range(200)]
PROMPTS = [[5] * 3, [6, 7], [9] * 17, [10, 11, 12], [8] * 40, [13], [14] * 5, LONG]
GREEDY = SamplingParams(16, temperature=0.0)
KINDS = ["llama", "mistral", "qwen2", "qwen3"]


def make_model(kind: str, seed: int = 0, **options: Any) -> PreTrainedModel:
    """A tiny model whose next tokens differ in likelihood by more than rounding."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 128, "intermediate_size": 160, "num_hidden_layers": 2, "max_position_embeddings": 256}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 420}
    made: PreTrainedModel = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **heads, **options))
    with torch.no_grad():
        for weight in made.parameters():
            if weight.dim() > 1:
                weight.mul_(6)
    return made.eval()


def with_lora(model: PreTrainedModel, **options: Any) -> PeftModel:
    """The model with an adapter that changes its answers."""
    torch.manual_seed(3)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear", **options)
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                weight.add_(torch.randn_like(weight) * 0.3)
    return adapted.eval()


def answers(sampler: Any, params: SamplingParams, **options: Any) -> list[list[tuple[list[int], str]]]:
    found: list[list[Completion]] = sampler.sample(PROMPTS, params, **options)
    return [[(one.token_ids, one.finish_reason) for one in samples] for samples in found]


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    return make_model("llama")


@pytest.fixture
def threads() -> Iterator[None]:
    """torch.set_num_threads as it was, which vLLM replaces on the CPU."""
    own = torch.set_num_threads
    yield
    torch.set_num_threads = own


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tied", [False, True])
def test_greedy_answers_are_the_native_engines(kind: str, tied: bool, tokenizer: PreTrainedTokenizerFast) -> None:
    model = make_model(kind, tie_word_embeddings=tied)
    expected = answers(Sampler(model, tokenizer), GREEDY)
    assert answers(VllmSampler(model, tokenizer, rows=8), GREEDY) == expected
    assert len({tuple(tokens) for ((tokens, _),) in expected}) > 5


def test_answers_come_from_the_weights_of_the_time(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    model = copy.deepcopy(llama)
    sampler = VllmSampler(model, tokenizer, rows=8)
    before = answers(sampler, GREEDY)
    model.load_state_dict(make_model("llama", seed=1).state_dict())
    after = answers(sampler, GREEDY)
    assert after == answers(Sampler(model, tokenizer), GREEDY)
    assert all(one != other for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("tied", "options"),
    [
        (False, {}),
        (True, {}),
        (False, {"modules_to_save": ["embed_tokens", "lm_head"]}),
        (True, {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
    ],
)
def test_lora_is_folded_in_and_the_model_left_as_it_was(
    tied: bool, options: dict[str, Any], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make_model("llama", tie_word_embeddings=tied)
    plain = answers(Sampler(model, tokenizer), GREEDY)
    adapted = with_lora(model, **options)
    weights = {name: weight.clone() for name, weight in adapted.state_dict().items()}
    found = answers(VllmSampler(adapted, tokenizer, rows=8), GREEDY)
    assert found == answers(Sampler(adapted, tokenizer), GREEDY)
    assert found != plain
    assert all(torch.equal(weight, weights[name]) for name, weight in adapted.state_dict().items())


def test_a_seed_gives_the_same_samples_whatever_runs_beside_them(
    llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    sampler = VllmSampler(llama, tokenizer, rows=8)
    params = SamplingParams(12, temperature=1.0, top_p=0.95)
    keys = list(range(40, 40 + len(PROMPTS)))
    once = answers(sampler, params, samples_per_prompt=3, seed=9, prompt_keys=keys)
    assert answers(sampler, params, samples_per_prompt=3, seed=9, prompt_keys=keys) == once
    assert answers(sampler, params, samples_per_prompt=3, seed=8, prompt_keys=keys) != once
    assert len({tuple(tokens) for samples in once for tokens, _ in samples}) == 3 * len(PROMPTS)
    some = sampler.sample([PROMPTS[5], PROMPTS[2]], params, samples_per_prompt=2, seed=9, prompt_keys=[45, 42])
    assert [[(one.token_ids, one.finish_reason) for one in samples] for samples in some] == [once[5][:2], once[2][:2]]


def test_draws_follow_temperature_and_nucleus(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    logits = llama(torch.tensor([[5, 6, 7]])).logits[0, -1].double()
    expected = (logits / 1.5).softmax(-1)
    ordered, places = expected.sort(descending=True)
    kept = places[(ordered.cumsum(-1) - ordered) < 0.8]
    expected = expected[kept] / expected[kept].sum()
    params = SamplingParams(1, temperature=1.5, top_p=0.8)
    (draws,) = VllmSampler(llama, tokenizer, rows=8).sample([[5, 6, 7]], params, samples_per_prompt=2000)
    counts = torch.bincount(torch.tensor([draw.token_ids[0] for draw in draws]), minlength=len(logits))
    assert counts[kept].sum() == 2000  # nothing from outside the nucleus
    # Five standard deviations of a binomial count; with a fixed seed this either always holds or never.
    assert ((counts[kept] - 2000 * expected).abs() < 5 * (2000 * expected * (1 - expected)).sqrt() + 1).all()


def test_an_answer_ends_with_the_token_that_stopped_it_or_at_a_limit(
    llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    stops = tuple(range(0, 420, 6))
    for params in (SamplingParams(24, temperature=0.0, stop_token_ids=stops), SamplingParams(0), SamplingParams(1)):
        expected = answers(Sampler(llama, tokenizer), params)
        found = answers(VllmSampler(llama, tokenizer, rows=8), params)
        assert params.max_new_tokens == 1 or found == expected
        assert [[(len(ids), end) for ids, end in one] for one in found] == [
            [(len(ids), end) for ids, end in one] for one in expected
        ]
    ends = answers(VllmSampler(llama, tokenizer, rows=8), SamplingParams(24, temperature=0.0, stop_token_ids=stops))
    assert {end for ((_, end),) in ends} == {"stop", "length"}
    assert all((ids[-1] in stops) == (end == "stop") for ((ids, end),) in ends)
    # The end token is drawn like any other where nothing is to stop.
    eos = tokenizer.eos_token_id
    free = VllmSampler(llama, tokenizer, rows=8).sample(
        [[5, 6, 7]], SamplingParams(200, temperature=2.0, stop_token_ids=()), samples_per_prompt=16
    )
    assert any(eos in one.token_ids[:-1] for one in free[0])
    assert {len(one.token_ids) for one in free[0]} == {200}


def test_the_models_context_and_the_samplers_limit_end_answers(
    llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    params = SamplingParams(50, temperature=0.0, stop_token_ids=())
    ((answer,), (other,)) = VllmSampler(llama, tokenizer, rows=8).sample([[5] * 250, [6] * 255], params)
    assert (len(answer.token_ids), len(other.token_ids)) == (6, 1)
    limited = VllmSampler(llama, tokenizer, rows=8, max_length=10)
    assert len(limited.sample([[5] * 3], params)[0][0].token_ids) == 7
    with pytest.raises(ValueError, match="prompt 1 has 10 tokens; the sampler's max_length is 10"):
        limited.sample([[5] * 10], params)


def test_an_interrupted_call_is_taken_up_where_it_ended(
    llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    sampler = VllmSampler(llama, tokenizer, rows=4)
    params = SamplingParams(10, temperature=1.0)
    expected = sampler.sample(PROMPTS, params, samples_per_prompt=2, seed=2)
    kept: dict[tuple[int, int], Completion] = {}

    def keep_seven(prompt: int, sample: int, completion: Completion) -> None:
        if len(kept) == 7:
            raise KeyboardInterrupt
        kept[prompt, sample] = completion

    with pytest.raises(KeyboardInterrupt):
        sampler.sample(PROMPTS, params, samples_per_prompt=2, seed=2, on_completion=keep_seven)
    again: list[tuple[int, int]] = []
    rest = sampler.sample(
        PROMPTS,
        params,
        samples_per_prompt=2,
        seed=2,
        drawn=kept,
        on_completion=lambda prompt, sample, _: again.append((prompt, sample)),
    )
    assert rest == expected
    assert len(again) == 2 * len(PROMPTS) - 7
    assert not set(again) & set(kept)


def test_the_processs_random_states_are_left_as_they_were(
    llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), np.random.random(), torch.rand(())
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    # Of a length that no other test asks for, so that an engine starts.
    VllmSampler(llama, tokenizer, rows=8, max_length=99).sample([[5]], SamplingParams(4))
    assert (random.random(), np.random.random(), torch.rand(())) == expected


def test_no_prompts_give_no_answers(llama: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    assert VllmSampler(llama, tokenizer, rows=8).sample([], SamplingParams(5)) == []
