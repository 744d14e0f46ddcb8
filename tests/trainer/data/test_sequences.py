"""Sequences and batches: what a model reads from a packed batch is what it reads from each sample alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from alidade_trainer.data import sequences
from alidade_trainer.data.sequences import (
    NO_LOSS,
    Collator,
    SampleBuilder,
    Samples,
    TokenDataset,
    epoch_order,
    grouped_order,
)

PAD = 0


def build(count: int = 12, seed: int = 0, folder: Path | None = None) -> Samples:
    random = np.random.default_rng(seed)
    builder = SampleBuilder(folder)
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
    starts = [np.flatnonzero(item["position_ids"] == 0) for item in items]
    of_samples = [np.diff([*start, len(item["input_ids"])]) for start, item in zip(starts, items, strict=True)]
    assert data.attended == pytest.approx(sum((of**2).sum() for of in of_samples) / data.tokens)
    with pytest.raises(IndexError):
        data[len(data)]


def test_stored_sequences_are_read_back_as_they_were(tmp_path: Path) -> None:
    for packing in (True, False):
        data = TokenDataset.of(build(), np.arange(12), max_length=24, packing=packing)
        folder = tmp_path / str(packing)
        data.samples.save(folder)
        data.save(folder / "train")
        loaded = TokenDataset.load(folder / "train", Samples.load(folder))
        assert (len(loaded), loaded.packed) == (len(data), packing)
        for row in range(len(data)):
            for name, values in data[row].items():
                np.testing.assert_array_equal(loaded[row][name], values)


def test_samples_in_files_are_those_in_memory_and_are_saved_where_they_lie(tmp_path: Path) -> None:
    in_memory, in_files = build(), build(folder=tmp_path)
    assert isinstance(in_files.tokens, np.memmap)
    written = (tmp_path / "tokens.int32").stat().st_mtime_ns
    in_files.save(tmp_path)
    assert (tmp_path / "tokens.int32").stat().st_mtime_ns == written
    for samples in (in_files, Samples.load(tmp_path)):
        for name in ("tokens", "learned", "offsets"):
            np.testing.assert_array_equal(getattr(samples, name), getattr(in_memory, name))
    assert len(SampleBuilder(tmp_path / "none").build()) == 0  # an empty file cannot be mapped


def test_tokens_know_their_dataset_and_padding_is_of_the_first() -> None:
    samples = build(3)
    datasets = np.array([1, 0, 2], dtype=np.uint8)
    data = TokenDataset.of(samples, np.arange(3), max_length=64, packing=True, datasets=datasets)
    (item,) = [data[row] for row in range(len(data))]
    expected = [int(datasets[member]) for member in data.members for _ in range(samples.lengths[member])]
    assert item["datasets"].tolist() == expected
    short = TokenDataset.of(samples, np.arange(3), max_length=64, packing=False, datasets=datasets)
    batch = Collator(PAD, packed=False)([short[0], short[1], short[2]])
    for row, number in enumerate(datasets):
        length = int(samples.lengths[row])
        assert batch["datasets"][row, :length].tolist() == [number] * length
        assert batch["datasets"][row, length:].sum() == 0


def test_an_epochs_order_depends_on_seed_and_epoch_alone() -> None:
    order = epoch_order(3, 1, 100)
    assert sorted(order.tolist()) == list(range(100))
    assert order.tolist() == epoch_order(3, 1, 100).tolist()
    assert order.tolist() != epoch_order(3, 2, 100).tolist()
    assert order.tolist() != epoch_order(4, 1, 100).tolist()
    # Pinned: a job resumed under another release of numpy must go on in the same order.
    assert epoch_order(0, 0, 8).tolist() == [2, 4, 3, 6, 5, 0, 1, 7]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=400), st.integers(1, 9), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_grouping_by_length_keeps_every_sequence_once_and_depends_on_nothing_else(
    lengths: list[int], batch: int, epoch: int
) -> None:
    sizes = np.array(lengths)
    order = grouped_order(7, epoch, sizes, batch)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert order.tolist() == grouped_order(7, epoch, sizes, batch).tolist()
    # Of sequences that are sorted together, each step that lies within the epoch reads neighbours.
    first = -epoch * len(lengths) % batch
    if len(lengths) - first <= 50 * batch:
        ordered = np.sort(sizes[epoch_order(7, epoch, len(lengths))[first:]])
        starts = range(0, len(ordered) - batch + 1, batch)
        spans = sorted(int(np.ptp(sizes[order[first + start : first + start + batch]])) for start in starts)
        assert spans == sorted(int(np.ptp(ordered[start : start + batch])) for start in starts)


def test_grouped_batches_come_in_another_order_in_each_epoch() -> None:
    lengths = np.arange(64)
    first, second = (grouped_order(0, epoch, lengths, 8) for epoch in (0, 1))
    starts = [[int(order[start]) for start in range(0, 64, 8)] for order in (first, second)]
    assert starts[0] != sorted(starts[0])
    assert starts[0] != starts[1]


@pytest.mark.parametrize("lengths", [[], [4], [2, 1, 3], [1, 5, 2, 2, 3, 1, 4]])
def test_learned_tokens_are_counted_part_by_part(lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "_SAMPLES_AT_ONCE", 3)
    marks = [np.arange(length) % 2 == 1 for length in lengths]
    learned = np.concatenate([*marks, np.empty(0, np.bool_)]).astype(np.bool_)
    samples = Samples(np.zeros(len(learned), np.int32), learned, np.cumsum([0, *lengths], dtype=np.int64))
    assert samples.learned_lengths.tolist() == [int(one.sum()) for one in marks]
