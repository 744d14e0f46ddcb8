"""The training loss against a formula written out."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import ClassVar

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from alidade_trainer.batches import evaluation_batches
from alidade_trainer.data.sequences import Collator, SampleBuilder, TokenDataset
from alidade_trainer.loop import evaluation_loss
from alidade_trainer.loss import IGNORED, LossTally, add_embedding_noise, can_select_positions, summed_loss
from alidade_trainer.peers import Peers


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, **sizes)).eval()


@torch.no_grad()
@pytest.mark.parametrize("selects", [True, False])
def test_the_loss_is_the_sum_of_minus_log_probabilities_of_learned_tokens(
    model: LlamaForCausalLM, selects: bool
) -> None:
    ids = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10]])
    labels = torch.tensor([[IGNORED, IGNORED, 5, 6], [IGNORED, 8, IGNORED, IGNORED]])

    loss = summed_loss(model, {"input_ids": ids, "labels": labels}, selects_positions=selects)

    logits = model(input_ids=ids).logits.double()
    by_hand = sum(
        math.log(sum(math.exp(value) for value in logits[row, at].tolist())) - float(logits[row, at, token])
        for row, at, token in ((0, 1, 5), (0, 2, 6), (1, 0, 8))
    )
    assert float(loss) == pytest.approx(by_hand, abs=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("selects", [True, False])
def test_the_loss_of_each_dataset_is_that_of_its_tokens_alone(model: LlamaForCausalLM, selects: bool) -> None:
    ids = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 10]])
    labels = torch.tensor([[IGNORED, IGNORED, 5, 6], [IGNORED, 8, IGNORED, IGNORED]])
    datasets = torch.tensor([[0, 0, 0, 2], [2, 2, 2, 2]])
    tally = LossTally(["a", "b", "c"])

    batch = {"input_ids": ids, "labels": labels}
    for _ in range(2):  # a step of two equal batches
        both = summed_loss(model, batch | {"datasets": datasets}, selects_positions=selects, tally=tally)

    def alone(wanted: int) -> float:
        own = torch.where(datasets == wanted, labels, IGNORED)
        return float(summed_loss(model, batch | {"labels": own}, selects_positions=selects))

    assert float(both) == pytest.approx(alone(0) + alone(2), rel=1e-6)
    expected = pytest.approx({"a": alone(0), "c": alone(2) / 2}, rel=1e-6)  # b has no token
    assert tally.means(tally.sums()) == expected
    assert tally.means([2 * value for value in tally.sums()]) == expected  # two processes that saw the same
    tally.start()
    assert tally.sums() == [0.0] * 6


class Alone(Peers):
    """One of several processes, without the others: keeps what would be added up."""

    def sums(self, values: Sequence[float]) -> list[float]:
        self.told.append(list(values))
        return list(values)

    told: ClassVar[list[list[float]]] = []


@torch.no_grad()
@pytest.mark.parametrize("packed", [False, True])
def test_held_out_losses_of_datasets_are_those_of_plain_transformers_and_their_weighted_mean_is_the_whole(
    model: LlamaForCausalLM, packed: bool
) -> None:
    generator = np.random.default_rng(0)
    builder = SampleBuilder()
    for length in (3, 9, 5, 2, 7, 4, 6):
        builder.add(generator.integers(1, 32, length).tolist(), generator.random(length) < 0.7)
    samples, of = builder.build(), np.array([0, 1, 1, 0, 2, 0, 1], dtype=np.uint8)
    data = TokenDataset.of(samples, np.arange(7), max_length=16, packing=packed, datasets=of)
    losses: dict[str, list[float]] = {"a": [], "b": [], "c": []}
    for sample, name in enumerate("abc"[number] for number in of):
        bounds = slice(samples.offsets[sample], samples.offsets[sample + 1])
        ids, learned = torch.tensor(samples.tokens[bounds].astype(np.int64)), samples.learned[bounds]
        # transformers' own loss is a mean; a label at a time it is that of one token.
        for place in np.flatnonzero(learned):
            labels = torch.full_like(ids, IGNORED).index_copy(0, torch.tensor([place]), ids[place : place + 1])
            losses[name].append(float(model(input_ids=ids[None], labels=labels[None]).loss))
    expected = {name: pytest.approx(fmean(own), rel=1e-6) for name, own in losses.items()}

    for processes in (1, 2, 3):
        Alone.told.clear()
        for rank in range(processes):
            batches = evaluation_batches(
                data, Collator(0, packed=packed), micro_batch_size=1, rank=rank, processes=processes
            )
            peers = Alone(rank, processes, rank, processes, torch.device("cpu"))
            tally = LossTally("abc")
            evaluation_loss(model, batches, peers, selects_positions=True, tally=tally)
        loss_sum, learned, *by_dataset = map(sum, zip(*Alone.told, strict=True))
        parts = tally.means(by_dataset)
        assert parts == expected
        assert learned == sum(map(len, losses.values()))
        assert loss_sum / learned == pytest.approx(sum(parts[name] * len(losses[name]) for name in parts) / learned)


@torch.no_grad()
def test_a_batch_without_anything_to_learn_has_loss_zero(model: LlamaForCausalLM) -> None:
    ids = torch.tensor([[3, 4, 5]])

    loss = summed_loss(model, {"input_ids": ids, "labels": torch.full_like(ids, IGNORED)}, selects_positions=True)

    assert float(loss) == 0.0


def test_models_that_cannot_leave_out_logits_are_recognised(model: LlamaForCausalLM) -> None:
    assert can_select_positions(model)
    assert not can_select_positions(torch.nn.Linear(1, 1))


@torch.no_grad()
def test_noise_on_embeddings_stays_within_its_bound_and_out_of_evaluation() -> None:
    embeddings = torch.nn.Embedding(10, 16)
    add_embedding_noise(embeddings, 4.0)
    ids = torch.arange(9)[None]

    noise = embeddings.train()(ids) - embeddings.eval()(ids)

    bound = 4.0 / math.sqrt(9 * 16)
    assert 0.9 * bound < float(noise.abs().max()) <= bound
    assert torch.equal(embeddings(ids), embeddings.weight[ids])
