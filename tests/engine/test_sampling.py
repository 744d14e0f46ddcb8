"""Answers drawn from a model, compared with transformers' own generation and with probabilities worked out apart."""

import pytest
import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerFast

from alidade_engine.sampling import generate

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
