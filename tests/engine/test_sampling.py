"""Answers drawn from a model, compared with transformers' own generation and with probabilities worked out apart."""

import copy
from collections.abc import Sequence

import pytest
import torch
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from alidade_engine.sampling import Completion, Sampler, SamplingParams, generate
from alidade_engine.scoring import token_logprobs

PROMPTS = ["hello", "What is the capital of France?", "中国的首都是哪里？", "a"]


def reference(model: PreTrainedModel, ids: list[int], length: int, stop: int) -> list[int]:
    """transformers' own greedy answer."""
    config = GenerationConfig(max_new_tokens=length, do_sample=False, eos_token_id=stop, pad_token_id=0)
    out = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), generation_config=config)
    answer: list[int] = out[0, len(ids) :].tolist()
    return answer


def test_greedy_answers_of_a_batch_are_transformers_own(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    answers = generate(model, tokenizer, PROMPTS, max_new_tokens=16)
    for answer in answers:
        assert answer.token_ids == reference(model, answer.prompt_ids, 16, tokenizer.eos_token_id)


def test_padding_does_not_shift_positions(tokenizer: PreTrainedTokenizerFast) -> None:
    """Seen only by a model with absolute positions: rotary ones depend on distances alone."""
    torch.manual_seed(0)
    absolute = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=1, n_head=2, initializer_range=0.5)
    ).eval()
    asked = [[5, 6, 7], [9] * 20]
    together = generate(absolute, tokenizer, asked, max_new_tokens=10)
    assert together == [generate(absolute, tokenizer, [ids], max_new_tokens=10)[0] for ids in asked]


def test_an_answer_ends_when_it_is_said_to_be_over(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    prompts = [[5, 6], [7, 8, 9], [10]]
    params = SamplingParams(12, temperature=0.0, stop_token_ids=())
    whole = Sampler(model, tokenizer, slots=2).sample(prompts, params)
    asked: list[tuple[int, int]] = []

    def is_over(prompt: int, tokens: Sequence[int]) -> bool:
        asked.append((prompt, len(tokens)))
        return len(tokens) == 2 + prompt

    cut = Sampler(model, tokenizer, slots=2).sample(prompts, params, is_over=is_over)
    for prompt, ((long,), (short,)) in enumerate(zip(whole, cut, strict=True)):
        assert short.token_ids == long.token_ids[: 2 + prompt]
        assert short.text == tokenizer.decode(short.token_ids, skip_special_tokens=True)
        assert short.finish_reason == "length"
    assert sorted(asked) == [(prompt, count) for prompt in range(3) for count in range(1, 3 + prompt)]


def test_an_answer_ends_at_the_end_token_and_its_text_is_without_it(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    (free,) = generate(model, tokenizer, ["hello"], max_new_tokens=8)
    # Let the third token drawn be the end token: the same weights answer the same up to there.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(free.token_ids[2])
    (answer,) = generate(model, tokenizer, [free.prompt_ids], max_new_tokens=8)
    end = free.token_ids.index(free.token_ids[2])
    assert answer.token_ids == free.token_ids[: end + 1]
    assert answer.finish_reason == "stop"
    assert answer.text == tokenizer.decode(free.token_ids[:end], skip_special_tokens=True)


def test_rows_that_end_early_do_not_change_the_others(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    alone = [generate(model, tokenizer, [prompt], max_new_tokens=20)[0] for prompt in PROMPTS]
    # An end token that some of the answers contain early and one does not.
    used = [set(answer.token_ids) for answer in alone]
    stop = next(token for token in alone[0].token_ids for other in used if token not in other)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(stop)
    asked = [answer.prompt_ids for answer in alone]
    together = generate(model, tokenizer, asked, max_new_tokens=20, batch_size=4)
    assert {answer.finish_reason for answer in together} == {"stop", "length"}
    for answer, free in zip(together, alone, strict=True):
        end = free.token_ids.index(stop) + 1 if stop in free.token_ids else 20
        assert answer.token_ids == free.token_ids[:end]


def test_the_limit_and_the_models_context_end_an_answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    (answer,) = generate(model, tokenizer, ["hello"], max_new_tokens=3)
    assert (len(answer.token_ids), answer.finish_reason) == (3, "length")
    (answer,) = generate(model, tokenizer, [[5] * 125], max_new_tokens=10)
    assert len(answer.token_ids) <= 3  # the model's context is 128
    assert generate(model, tokenizer, ["hello"], max_new_tokens=0)[0].token_ids == []


def test_a_prompt_without_room_for_an_answer_is_refused(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(ValueError, match="prompt 2 has 128 tokens; the model's context is 128"):
        generate(model, tokenizer, ["hello", [5] * 128], max_new_tokens=1)
    with pytest.raises(ValueError, match="prompt 1 has no tokens"):
        generate(model, tokenizer, [[]], max_new_tokens=1)


def test_draws_follow_temperature_and_nucleus(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = [5, 6, 7]
    logits = model(torch.tensor([prompt])).logits[0, -1].double()
    expected = (logits / 1.5).softmax(-1)
    ordered, places = expected.sort(descending=True)
    kept = places[(ordered.cumsum(-1) - ordered) < 0.8]
    expected = expected[kept] / expected[kept].sum()
    draws = generate(model, tokenizer, [prompt] * 4000, max_new_tokens=1, temperature=1.5, top_p=0.8, batch_size=4000)
    counts = torch.bincount(torch.tensor([draw.token_ids[0] for draw in draws]), minlength=len(logits))
    assert counts[kept].sum() == 4000  # nothing from outside the nucleus
    # Five standard deviations of a binomial count; with a fixed seed this either always holds or never.
    assert ((counts[kept] - 4000 * expected).abs() < 5 * (4000 * expected * (1 - expected)).sqrt() + 1).all()


def test_a_seed_gives_the_same_answers_and_another_seed_others(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    once, again, other = (
        generate(model, tokenizer, PROMPTS, max_new_tokens=12, temperature=1.0, seed=seed) for seed in (1, 1, 2)
    )
    assert once == again
    assert once != other


def test_tokens_are_told_as_they_come_and_the_model_is_left_as_it_was(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    told: dict[int, list[int]] = {}
    model.train()
    try:
        answers = generate(
            model,
            tokenizer,
            PROMPTS,
            max_new_tokens=5,
            on_token=lambda place, token: told.setdefault(place, []).append(token),
        )
        assert model.training
    finally:
        model.eval()
    assert [told[place] for place in range(len(PROMPTS))] == [answer.token_ids for answer in answers]


KEYS = [3, 0, 7, 11, 12, 40, 41]
RAGGED = [[5] * 3, [6, 7], [9] * 17, [10, 11, 12], [8] * 40, [13], [14] * 5]


@pytest.fixture(scope="module")
def gpt2() -> PreTrainedModel:
    """A model that runs through its own forward."""
    torch.manual_seed(0)
    made = GPT2LMHeadModel(GPT2Config(vocab_size=420, n_positions=128, n_embd=32, n_layer=2, n_head=4))
    with torch.no_grad():
        for weight in made.parameters():
            if weight.dim() > 1:
                weight.mul_(6)
    return made.eval()


@pytest.fixture(scope="module")
def sliding() -> PreTrainedModel:
    """A model whose cache holds a window, so that batches cannot be refilled."""
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=420,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        sliding_window=16,
    )
    return MistralForCausalLM(config).eval()


@pytest.mark.parametrize("kind", ["model", "gpt2", "sliding"])
def test_samples_depend_on_seed_prompt_and_number_and_not_on_what_runs_beside_them(
    request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast, kind: str
) -> None:
    model: PreTrainedModel = request.getfixturevalue(kind)
    params = SamplingParams(20, temperature=1.0, top_p=0.95, stop_token_ids=tuple(range(60)), logprobs=True)

    def drawn(slots: int, order: list[int], samples: int = 3) -> dict[tuple[int, int], Completion]:
        sampler = Sampler(model, tokenizer, slots=slots)
        answers = sampler.sample(
            [RAGGED[place] for place in order],
            params,
            samples_per_prompt=samples,
            seed=9,
            prompt_keys=[KEYS[place] for place in order],
        )
        return {
            (place, number): answer
            for place, samples in zip(order, answers, strict=True)
            for number, answer in enumerate(samples)
        }

    everything = list(range(len(RAGGED)))
    expected = drawn(32, everything)
    assert len({tuple(answer.token_ids) for answer in expected.values()}) > 15
    assert {answer.finish_reason for answer in expected.values()} == {"stop", "length"}
    for found in (drawn(1, everything), drawn(4, everything[::-1]), drawn(5, [2, 6], samples=2)):
        for place, answer in found.items():
            assert answer.token_ids == expected[place].token_ids
            # Batches of other sizes round differently in float32.
            assert answer.logprobs == pytest.approx(expected[place].logprobs, abs=1e-5)


def test_a_row_that_ends_makes_room_for_the_next_and_a_prompt_is_read_once(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    read: list[torch.Size] = []
    hook = model.model.embed_tokens.register_forward_hook(lambda _, inputs, __: read.append(inputs[0].shape))
    params = SamplingParams(30, temperature=1.0, stop_token_ids=tuple(range(60)))
    try:
        answers = Sampler(model, tokenizer, slots=8).sample(
            [[5 + n] * 16 for n in range(12)], params, samples_per_prompt=4
        )
    finally:
        hook.remove()
    assert sum(shape[0] for shape in read if len(shape) == 2) == 12  # prompts, each once for its four samples
    steps = [shape[0] for shape in read if len(shape) == 1]
    # The first token of each sample comes with its prompt, each further one from a step.
    assert sum(steps) >= sum(len(answer.token_ids) - 1 for samples in answers for answer in samples)
    assert max(steps) == 8
    drained = len(steps) - 30  # at most the longest answer is drawn after the last prompt was taken
    assert steps[:drained] == [8] * drained
    assert drained > 0


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_greedy_answers_under_a_repetition_penalty_are_transformers_own(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, slots: int
) -> None:
    answers = generate(
        model, tokenizer, RAGGED, max_new_tokens=24, repetition_penalty=1.3, batch_size=slots, temperature=0.0
    )
    for prompt, answer in zip(RAGGED, answers, strict=True):
        config = GenerationConfig(
            max_new_tokens=24,
            do_sample=False,
            repetition_penalty=1.3,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=0,
        )
        out = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), generation_config=config
        )
        assert answer.token_ids == out[0, len(prompt) :].tolist()


def test_log_probabilities_are_those_that_scoring_gives(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    params = SamplingParams(12, temperature=0.8, top_k=50, logprobs=True)
    for samples in Sampler(model, tokenizer, slots=4).sample(RAGGED, params, samples_per_prompt=2):
        for answer in samples:
            ids = torch.tensor([answer.prompt_ids + answer.token_ids])
            with torch.no_grad():
                logits = model(ids).logits[0, len(answer.prompt_ids) - 1 : -1] / 0.8
            expected = token_logprobs(logits, ids[0, len(answer.prompt_ids) :])
            assert answer.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_an_interrupted_call_is_taken_up_where_it_ended(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    params = SamplingParams(10, temperature=1.0)
    sampler = Sampler(model, tokenizer, slots=4)
    expected = sampler.sample(RAGGED, params, samples_per_prompt=3, seed=2)
    kept: dict[tuple[int, int], Completion] = {}

    def keep_seven(prompt: int, sample: int, completion: Completion) -> None:
        if len(kept) == 7:
            raise KeyboardInterrupt
        kept[prompt, sample] = completion

    model.train()
    try:
        with pytest.raises(KeyboardInterrupt):
            sampler.sample(RAGGED, params, samples_per_prompt=3, seed=2, on_completion=keep_seven)
        assert model.training
    finally:
        model.eval()
    again: list[tuple[int, int]] = []
    rest = sampler.sample(
        RAGGED,
        params,
        samples_per_prompt=3,
        seed=2,
        drawn=kept,
        on_completion=lambda prompt, sample, _: again.append((prompt, sample)),
    )
    assert [[answer.token_ids for answer in samples] for samples in rest] == [
        [answer.token_ids for answer in samples] for samples in expected
    ]
    assert len(again) == 3 * len(RAGGED) - 7
    assert not set(again) & set(kept)


def test_a_sampler_draws_from_the_weights_of_the_time(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    changed = copy.deepcopy(model)
    sampler = Sampler(changed, tokenizer)
    params = SamplingParams(8, temperature=0.0)
    before = sampler.sample(RAGGED, params)
    with torch.no_grad():
        changed.lm_head.weight.copy_(changed.lm_head.weight.flip(0))
    after = sampler.sample(RAGGED, params)
    assert after != before
    assert after == Sampler(copy.deepcopy(changed), tokenizer).sample(RAGGED, params)


def test_the_samplers_own_limit_ends_answers_and_refuses_prompts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    sampler = Sampler(model, tokenizer, max_length=10)
    params = SamplingParams(50, temperature=1.0, stop_token_ids=())
    ((answer,), (other,)) = sampler.sample([[5] * 3, [6] * 9], params)
    assert (len(answer.token_ids), len(other.token_ids)) == (7, 1)
    assert answer.finish_reason == "length"
    with pytest.raises(ValueError, match="prompt 1 has 10 tokens; the sampler's max_length is 10"):
        sampler.sample([[5] * 10], params)


def test_no_prompts_give_no_answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    assert Sampler(model, tokenizer).sample([], SamplingParams(5)) == []
    assert generate(model, tokenizer, [], max_new_tokens=5) == []


def test_arguments_outside_their_limits_are_named_with_them(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    sampler = Sampler(model, tokenizer)
    with pytest.raises(ValueError, match="slots is 0; it must be at least 1"):
        Sampler(model, tokenizer, slots=0)
    with pytest.raises(ValueError, match="samples_per_prompt is 0; it must be at least 1"):
        sampler.sample([[5]], SamplingParams(1), samples_per_prompt=0)
    with pytest.raises(ValueError, match="seed is -1; it and every one of prompt_keys must be at least 0"):
        sampler.sample([[5]], SamplingParams(1), seed=-1)
    with pytest.raises(ValueError, match="prompt_keys has 1 entries for 2 prompts; it must have one each"):
        sampler.sample([[5], [6]], SamplingParams(1), prompt_keys=[4])


def test_weights_that_are_elsewhere_are_asked_for_by_name(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    partitioned = copy.deepcopy(model)
    partitioned.model.norm.weight.data = torch.empty(0)
    with pytest.raises(ValueError, match=r"model\.norm\.weight is not on this worker.*GatheredParameters"):
        generate(partitioned, tokenizer, [[5]], max_new_tokens=1)
