"""Sequences and batches: what a model reads from a packed batch is what it reads from each sample alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from alidade_trainer.data.sequences import (
    NO_LOSS,
    Collator,
    SampleBuilder,
    Samples,
    TokenDataset,
    concatenate,
    epoch_order,
)

PAD = 0


def build(count: int = 12, seed: int = 0) -> Samples:
    random = np.random.default_rng(seed)
    builder = SampleBuilder()
    for _ in range(count):
        length = int(random.integers(2, 12))
        builder.add(random.integers(1, 50, length).tolist(), (random.random(length) < 0.6).tolist())
    return builder.build()


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=PAD,
    )
    made = LlamaForCausalLM(config).double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(5)  # a fresh model barely attends; this one does
    return made


def loss_and_gradient(model: LlamaForCausalLM, batches: list[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """Summed loss over batches, and the gradient of all weights in one vector."""
    model.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for batch in batches:
        labels = batch.pop("labels")
        logits = model(**batch, use_cache=False).logits
        total = total + cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=NO_LOSS, reduction="sum"
        )
    total.backward()
    return total.detach(), torch.cat(
        [weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]
    )


def test_packed_samples_do_not_see_one_another(model: LlamaForCausalLM) -> None:
    samples = build()
    indices = np.arange(len(samples))
    packed = TokenDataset.of(samples, indices, max_length=24, packing=True)
    apart = TokenDataset.of(samples, indices, max_length=24, packing=False)
    assert len(packed) < len(apart) / 2
    collate = Collator(PAD, packed=True)
    together = loss_and_gradient(model, [collate([packed[row] for row in range(len(packed))])])
    separate = loss_and_gradient(model, [Collator(PAD, packed=False)([apart[row]]) for row in range(len(apart))])
    # The same sums in another order, in double precision.
    torch.testing.assert_close(together, separate, rtol=1e-9, atol=1e-9)


def test_a_change_in_one_sample_leaves_the_others_logits_alone(model: LlamaForCausalLM) -> None:
    samples = build()
    packed = TokenDataset.of(samples, np.arange(len(samples)), max_length=24, packing=True)
    batch = Collator(PAD, packed=True)([packed[0], packed[1]])
    first = int(samples.lengths[packed.members[0]])
    changed = {name: values.clone() for name, values in batch.items() if name != "labels"}
    changed["input_ids"][0, 0] = 49 - changed["input_ids"][0, 0]
    with torch.no_grad():
        before = model(batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits[0]
        after = model(**changed, use_cache=False).logits[0]
    assert not torch.equal(before[:first], after[:first])
    assert torch.equal(before[first:], after[first:])


def test_unpacked_batches_are_read_as_each_sequence_alone(model: LlamaForCausalLM) -> None:
    samples = build()
    apart = TokenDataset.of(samples, np.arange(len(samples)), max_length=24, packing=False)
    collate = Collator(PAD, packed=False)
    together = loss_and_gradient(model, [collate([apart[row] for row in range(len(apart))])])
    separate = loss_and_gradient(model, [collate([apart[row]]) for row in range(len(apart))])
    torch.testing.assert_close(together, separate, rtol=1e-9, atol=1e-9)


def test_a_hand_worked_packed_batch() -> None:
    builder = SampleBuilder()
    builder.add([5, 6, 7], [True, False, True])
    builder.add([8, 9], [True, True])
    builder.add([3, 4, 3, 4], [False, False, False, True])
    packed = TokenDataset.of(builder.build(), np.arange(3), max_length=5, packing=True)
    batch = Collator(PAD, packed=True)([packed[0], packed[1]])
    assert set(batch) == {"input_ids", "labels", "position_ids"}
    assert batch["input_ids"].tolist() == [[3, 4, 3, 4, PAD], [5, 6, 7, 8, 9]]
    # A sample's first token is never predicted: what stands before it belongs to another sample.
    assert batch["labels"].tolist() == [[-100, -100, -100, 4, -100], [-100, -100, 7, -100, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0], [0, 1, 2, 0, 1]]


def test_a_hand_worked_unpacked_batch() -> None:
    builder = SampleBuilder()
    builder.add([5, 6, 7], [False, False, True])
    builder.add([8, 9], [False, True])
    data = TokenDataset.of(builder.build(), np.array([1, 0]), max_length=5, packing=False)
    batch = Collator(PAD, packed=False)([data[0], data[1]])
    assert set(batch) == {"input_ids", "labels", "attention_mask"}
    assert batch["input_ids"].tolist() == [[8, 9, PAD], [5, 6, 7]]
    assert batch["labels"].tolist() == [[-100, 9, -100], [-100, -100, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_counts_are_those_of_the_items() -> None:
    samples = build(40)
    data = TokenDataset.of(samples, np.arange(0, 40, 2), max_length=24, packing=True)
    items = [data[row] for row in range(len(data))]
    assert data.tokens == sum(len(item["input_ids"]) for item in items)
    assert data.learned_tokens == sum(int((item["labels"] != NO_LOSS).sum()) for item in items)
    assert data.longest == max(len(item["input_ids"]) for item in items)
    with pytest.raises(IndexError):
        data[len(data)]


def test_stored_sequences_are_read_back_as_they_were(tmp_path: Path) -> None:
    for packing in (True, False):
        data = TokenDataset.of(build(), np.arange(12), max_length=24, packing=packing)
        data.save(tmp_path / str(packing))
        loaded = TokenDataset.load(tmp_path / str(packing))
        assert (len(loaded), loaded.packed) == (len(data), packing)
        for row in range(len(data)):
            for name, values in data[row].items():
                np.testing.assert_array_equal(loaded[row][name], values)


def test_parts_are_put_together_in_order() -> None:
    one, other = build(5, seed=1), build(3, seed=2)
    both = concatenate([one, other])
    assert both.lengths.tolist() == [*one.lengths, *other.lengths]
    start = both.offsets[5]
    np.testing.assert_array_equal(both.tokens[start:], other.tokens)
    np.testing.assert_array_equal(both.learned[start:], other.learned)


def test_an_epochs_order_depends_on_seed_and_epoch_alone() -> None:
    order = epoch_order(3, 1, 100)
    assert sorted(order.tolist()) == list(range(100))
    assert order.tolist() == epoch_order(3, 1, 100).tolist()
    assert order.tolist() != epoch_order(3, 2, 100).tolist()
    assert order.tolist() != epoch_order(4, 1, 100).tolist()
    # Pinned: a job resumed under another release of numpy must go on in the same order.
    assert epoch_order(0, 0, 8).tolist() == [2, 4, 3, 6, 5, 0, 1, 7]
