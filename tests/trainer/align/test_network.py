"""Log-probabilities, values and references of a policy: the same whatever stands beside a row, and the naive ones."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from alidade_trainer.align.answers import answer_batch, narrow_batch
from alidade_trainer.align.network import FrozenReference, PolicyNetwork, without_dropout
from alidade_trainer.align.prompts import drawn_prompts
from alidade_trainer.dealing import dealt

ROWS = [([5, 6, 7, 8], [9, 10]), ([11], [12, 13, 14, 3]), ([4, 4], [3])]
CPU = torch.device("cpu")


def config(**more: float) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        pad_token_id=0,
        **more,
    )


@pytest.fixture
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    made = LlamaForCausalLM(config())
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(5 if weight.dim() > 1 else 1)
    return made.eval()


def naive(model: LlamaForCausalLM, prompt: Sequence[int], answer: Sequence[int], temperature: float) -> list[float]:
    """One row alone, unpadded, token by token."""
    found = []
    for place in range(len(answer)):
        logits = model(torch.tensor([[*prompt, *answer[:place]]])).logits[0, -1].double() / temperature
        found.append(float(logits.log_softmax(-1)[answer[place]]))
    return found


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_of_a_padded_batch_are_those_of_each_row_alone(
    model: LlamaForCausalLM, temperature: float
) -> None:
    batch = answer_batch(ROWS, 0, CPU)
    with torch.no_grad():
        found = PolicyNetwork(model)(**batch.arguments, temperature=temperature)["logprobs"]
        reference = FrozenReference(model)(**batch.arguments, temperature=temperature)
    torch.testing.assert_close(found, reference)
    for row, (prompt, answer) in enumerate(ROWS):
        assert found[row, : len(answer)].tolist() == pytest.approx(naive(model, prompt, answer, temperature), abs=1e-4)
    assert batch.answer_mask.sum(1).tolist() == [2, 4, 1]


def test_a_narrow_batch_gives_whole_answers_the_same_and_is_no_wider_than_its_longest_row(
    model: LlamaForCausalLM,
) -> None:
    rows = [*ROWS, ([], [7, 8, 9])]
    batch = narrow_batch(rows, 0, CPU)
    with torch.no_grad():
        found = (PolicyNetwork(model)(**batch.arguments)["logprobs"] * batch.answer_mask).sum(1)
        # Of an answer without a prompt, nothing stands before the first token.
        expected = [sum(naive(model, prompt, answer, 1.0)) for prompt, answer in [*ROWS, ([7], [8, 9])]]
    assert found.tolist() == pytest.approx(expected, abs=1e-4)
    assert batch.input_ids.size(1) == 6  # of [5, 6, 7, 8] and [9, 10]
    assert batch.places.tolist() == [1, 2, 3, 4, 5]
    apart = narrow_batch([([5] * 9, [6]), ([7], [8])], 0, CPU)
    assert apart.places.tolist() == [1, 9]  # no logits between


def test_entropy_and_values_are_of_the_state_before_each_token(model: LlamaForCausalLM) -> None:
    torch.manual_seed(1)
    config_of_critic = config()
    config_of_critic.num_labels = 1
    critic = LlamaForSequenceClassification(config_of_critic).eval()
    batch = answer_batch(ROWS, 0, CPU)
    with torch.no_grad():
        found = PolicyNetwork(model, critic=critic)(**batch.arguments, with_entropy=True, with_values=True)
        prompt, answer = ROWS[1]
        for place in range(len(answer)):
            seen = torch.tensor([[*prompt, *answer[:place]]])
            logprobs = model(seen).logits[0, -1].log_softmax(-1)
            assert float(found["entropy"][1, place]) == pytest.approx(
                float(-(logprobs.exp() * logprobs).sum()), abs=1e-4
            )
            value = critic.score(critic.model(seen).last_hidden_state[0, -1])
            assert float(found["values"][1, place]) == pytest.approx(float(value), abs=1e-5)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
def test_with_an_adapter_the_reference_is_the_same_weights_with_it_off(model: LlamaForCausalLM) -> None:
    batch = answer_batch(ROWS, 0, CPU)
    with torch.no_grad():
        before = PolicyNetwork(model)(**batch.arguments)["logprobs"]
    adapted = get_peft_model(
        model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, lora_dropout=0.5)
    )
    network = PolicyNetwork(adapted, value_head=True)
    without_dropout(network)
    network.train()
    with torch.no_grad():
        now = network(**batch.arguments, with_values=True)
        torch.testing.assert_close(network(**batch.arguments, as_reference=True)["logprobs"], before)
        torch.testing.assert_close(network(**batch.arguments)["logprobs"], now["logprobs"])
    assert not torch.allclose(now["logprobs"], before)
    assert now["values"].shape == (3, 4)


def test_a_saved_policy_is_loaded_by_transformers_alone(model: LlamaForCausalLM, tmp_path: Path) -> None:
    PolicyNetwork(model).policy.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)


def test_every_pass_over_the_prompts_takes_each_once_in_an_order_of_its_own() -> None:
    rows = [place for iteration in range(5) for place in drawn_prompts(10, 4, iteration, seed=1)]
    assert sorted(rows[:10]) == sorted(rows[10:20]) == list(range(10))
    assert rows[:10] != rows[10:20]
    assert drawn_prompts(10, 4, 3, seed=1) == rows[12:16]


@pytest.mark.parametrize(("count", "processes", "size"), [(10, 1, 4), (10, 2, 4), (3, 2, 4), (16, 4, 2), (1, 3, 1)])
def test_every_item_is_dealt_once_and_every_process_has_as_many_groups(count: int, processes: int, size: int) -> None:
    items = [place * 7 % 11 for place in range(count)]
    shares = [
        dealt(items, lambda item: item, group_size=size, rank=rank, processes=processes) for rank in range(processes)
    ]
    assert len({len(share) for share in shares}) == 1
    places = [place for share in shares for group in share if not group.is_filler for place in group.places]
    assert sorted(places) == list(range(count))
    assert all(len(group.items) <= size for share in shares for group in share)


def test_a_critic_that_nothing_has_taught_says_0_of_every_state_and_learns_from_there(model: LlamaForCausalLM) -> None:
    batch = answer_batch(ROWS, 0, CPU)
    network = PolicyNetwork(model, value_head=True)
    values = network(**batch.arguments, with_values=True)["values"]
    assert not values.any()
    ((values - 1.0).square() * batch.answer_mask).sum().backward()
    assert network.value_head is not None
    assert network.value_head.weight.grad is not None
    assert network.value_head.weight.grad.any()
