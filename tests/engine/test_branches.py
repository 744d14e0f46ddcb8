"""Answers that share the reading of their question are scored as if each stood alone."""

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from alidade_engine.branches import Question, branch_likelihoods, shared_likelihoods, shares_contexts
from alidade_engine.scoring import likelihoods_and_greed
from alidade_engine.templates import Rendered

SHAPE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
FAMILY = [
    (LlamaForCausalLM, LlamaConfig(**SHAPE)),
    (MistralForCausalLM, MistralConfig(**SHAPE, sliding_window=None)),
    (Qwen2ForCausalLM, Qwen2Config(**SHAPE)),
    (Qwen3ForCausalLM, Qwen3Config(**SHAPE, head_dim=8)),
]


def made(kind: type[PreTrainedModel], config: object, attention: str = "sdpa") -> PreTrainedModel:
    torch.manual_seed(0)
    model = kind._from_config(config, attn_implementation=attention)
    # As they are made, weights are so small that all tokens are about as likely.
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model.eval()


def questions() -> list[Question]:
    """Of one to three answers, of which one is a single token and two begin alike."""
    torch.manual_seed(1)
    words = torch.randint(1, 50, (400,)).tolist()
    drawn = [Question(words[at : at + 3 + at % 17], [words[at + 20 : at + 21 + at % 5]]) for at in range(0, 200, 20)]
    more = [
        Question(one.context, [*one.answers, words[at : at + 4], words[at : at + 2]]) for at, one in enumerate(drawn)
    ]
    return [*drawn, *more, Question(words[:9], [[3], [4], [5], [6]]), Question([7], [[8, 9], [8]])]


def one_by_one(model: PreTrainedModel, asked: list[Question]) -> list[list[tuple[float, bool]]]:
    return [
        [
            likelihoods_and_greed(
                model,
                [Rendered([*one.context, *answer], [False] * len(one.context) + [True] * len(answer))],
                pad_token_id=0,
            )[0]
            for answer in one.answers
        ]
        for one in asked
    ]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("kind", "config"), FAMILY)
def test_each_answer_is_scored_as_if_it_stood_alone(
    kind: type[PreTrainedModel], config: object, attention: str
) -> None:
    model, asked = made(kind, config, attention), questions()
    assert shares_contexts(model, 64)
    # Without a branch in the whole batch: one answer, or several of which at most one is longer than a token.
    alone = [one for one in asked if sum(len(answer) > 1 for answer in one.answers) <= 1]
    wanted = one_by_one(model, [*asked, *alone])
    found = [*branch_likelihoods(model, asked, pad_token_id=0), *branch_likelihoods(model, alone, pad_token_id=0)]
    for one, other in zip(wanted, found, strict=True):
        assert [value for value, _ in other] == pytest.approx([value for value, _ in one], abs=1e-4)  # float32
        assert [is_greedy for _, is_greedy in other] == [is_greedy for _, is_greedy in one]


def test_the_likeliest_answer_is_told() -> None:
    model = made(*FAMILY[0])
    with torch.inference_mode():
        best = int(model(torch.tensor([[5, 6, 7]])).logits[0, -1].argmax())
        then = int(model(torch.tensor([[5, 6, 7, best]])).logits[0, -1].argmax())
    ((long, short, other),) = branch_likelihoods(
        model, [Question([5, 6, 7], [[best, then], [best], [best, then + 1 if then < 49 else 0]])], pad_token_id=0
    )
    assert (long[1], short[1], other[1]) == (True, True, False)


def test_models_whose_attention_takes_no_such_mask_are_told_apart() -> None:
    small = GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=64)
    assert not shares_contexts(GPT2LMHeadModel(small), 64)
    sliding = MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=16))
    assert shares_contexts(sliding, 16)
    assert not shares_contexts(sliding, 64)


def test_contexts_are_shared_where_that_is_less_work() -> None:
    model = made(*FAMILY[0])
    read: list[tuple[int, ...]] = []
    model.model.register_forward_pre_hook(
        lambda _, _args, kwargs: read.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    texts = [([1], [5 + at] * 30) for at in range(8)]
    choices = [([4, 5, 6, 7, 8, 9], [10 + at, 11, 12, 13]) for at in range(8)]
    letters = [([4, 5, 6], [10 + at]) for at in range(8)]
    for asked, rows in ((texts, (8, 30)), (choices, (2, 18)), (letters, (1, 3))):
        read.clear()
        found = shared_likelihoods(model, asked, pad_token_id=0)
        assert read == [rows]
        wanted = one_by_one(model, [Question(context, [answer]) for context, answer in asked])
        assert [value for value, _ in found] == pytest.approx([one[0][0] for one in wanted], abs=1e-4)


def test_an_answer_without_tokens_is_certain() -> None:
    assert shared_likelihoods(made(*FAMILY[0]), [([3, 4], []), ([3, 4], [])], pad_token_id=0) == [(0.0, True)] * 2
