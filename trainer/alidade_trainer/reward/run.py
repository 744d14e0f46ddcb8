"""Stage `reward`: from preferences to a reward model, with what it gets right on prompts it has not seen."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from alidade_crds.contract import JobDocument
from alidade_crds.jobs import RankingLoss
from alidade_crds.reasons import FailureReason
from alidade_engine.models import check_sizes, ensure_pad_token, load_config, load_tokenizer
from alidade_engine.reward.network import RewardNetwork, load_classifier
from alidade_engine.sources import Locations
from alidade_trainer.dealing import dealt
from alidade_trainer.failures import JobFailure
from alidade_trainer.kernels import fuse, keep_few_activations
from alidade_trainer.loop import HeldOutLoss, TrainingLoop
from alidade_trainer.peers import Peers
from alidade_trainer.precision import training_format
from alidade_trainer.quantized_bases import refuse_quantized
from alidade_trainer.report import ReportPieces
from alidade_trainer.reward.comparisons import Comparison, ComparisonCollator, ComparisonData, prepare_comparisons
from alidade_trainer.reward.heads import init_head
from alidade_trainer.reward.measures import ScoredPair, preference_metrics, reward_histogram
from alidade_trainer.reward.ranking import prompt_losses
from alidade_trainer.starting import StartingPoint, base_options, check_digest, ready_to_train
from alidade_trainer.surroundings import Surroundings
from alidade_trainer.training import StageParts, TrainingRun


def prepare_reward(job: JobDocument, around: Surroundings, peers: Peers) -> StartingPoint:
    """Tokenizer and comparisons. Raises JobFailure on every process when one of them fails."""
    return peers.agree(lambda: _make_start(job, around.locations))


def _make_start(job: JobDocument, locations: Locations) -> StartingPoint:
    assert job.model.uri is not None, "a reward model starts from a language model"
    folder = locations.resolve_model(job.model.uri)
    trust = job.model.trust_remote_code
    config = load_config(folder, trust_remote_code=trust)
    refuse_quantized(config, job.adapter.type)
    check_digest(job, folder)
    tokenizer = load_tokenizer(folder, trust_remote_code=trust)
    check_sizes(tokenizer, config, folder)
    ensure_pad_token(tokenizer)
    context_length = getattr(config, "max_position_embeddings", None)
    return StartingPoint(
        tokenizer, prepare_comparisons(job, tokenizer, locations, context_length=context_length), folder
    )


def build_reward_model(job: JobDocument, start: StartingPoint) -> RewardNetwork:
    """The model to train, equal on all processes. Raises JobFailure when it or the adapter cannot be used."""
    assert start.model_folder is not None
    dtype = training_format(job.training)
    torch.manual_seed(job.training.seed)
    model = load_classifier(
        start.model_folder,
        dtype=dtype,
        trust_remote_code=job.model.trust_remote_code,
        new_head=init_head,
        **base_options(job, start.model_folder, dtype),
    )
    ensure_pad_token(start.tokenizer, model)
    fuse(model, job.training)
    keep_few_activations(model, job.training)
    return RewardNetwork(ready_to_train(model, job, "SEQ_CLS"))


@dataclass(frozen=True)
class RewardLoop(TrainingLoop):
    """Steps of the ranking loss; what a step divides by is its prompts."""

    loss: RankingLoss = field(default_factory=RankingLoss)

    def _summed_loss(self, tensors: dict[str, Tensor]) -> Tensor:
        return self.losses(tensors)[0].sum()

    def losses(self, tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(prompts,) losses and (answers,) rewards of a batch that ComparisonCollator made."""
        rewards = self.engine(tensors["input_ids"], tensors["attention_mask"])
        losses = prompt_losses(
            rewards, tensors["pairs"], tensors["prompts"], tensors["margins"], center=self.loss.center
        )
        return losses, rewards


class RewardRun(TrainingRun):
    """A reward model's training that is ready to go on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        assert isinstance(self.start.data, ComparisonData)
        self._data = self.start.data
        loss = self.job.loss or RankingLoss()
        self._comparison_collator = ComparisonCollator(
            self.start.tokenizer.pad_token_id, use_margin=loss.margin == "fromStrength"
        )
        self._loss = loss
        self._reward_loop = self._new_loop(loss)

    def _trained_model(self) -> nn.Module:
        model: nn.Module = self.engine.module.model
        return model

    def _loop(self) -> TrainingLoop:
        return self._new_loop(self._loss)

    def _new_loop(self, loss: RankingLoss) -> RewardLoop:
        return RewardLoop(
            self.engine,
            self.job.training,
            self.plan,
            self._stream(self._data.comparisons, self._comparison_collator),
            self.peers,
            self.job.checkpoint.every_steps,
            selects_positions=False,
            norms=self._norms,
            watch=self._watch(),
            loss=loss,
        )

    def _held_out_loss(self) -> HeldOutLoss:
        losses, _ = self._held_out_results()
        return HeldOutLoss(sum(losses) / len(losses))

    def _held_out_results(self) -> tuple[list[float], list[ScoredPair]]:
        """The ranking loss of each held-out prompt, and each of their pairs with its rewards, on every process."""
        assert self._data.held_out is not None
        self.engine.eval()
        mine: list[tuple[list[float], list[ScoredPair]]] = []
        groups = dealt(
            list(self._data.held_out),
            lambda comparison: comparison.width,
            group_size=self.plan.micro_batch_size,
            rank=self.peers.rank,
            processes=self.peers.count,
        )
        with torch.no_grad():
            for group in groups:
                tensors = self._comparison_collator([{"comparison": item} for item in group.items])
                on_device = {name: tensor.to(self.peers.device) for name, tensor in tensors.items()}
                losses, rewards = self._reward_loop.losses(on_device)
                if not group.is_filler:
                    mine.append((losses.tolist(), scored_pairs(group.items, rewards.tolist())))
        parts = [part for one in self.peers.gather(mine) for part in one]
        return [loss for losses, _ in parts for loss in losses], [pair for _, pairs in parts for pair in pairs]

    def _metrics(self) -> dict[str, float]:
        pairs: list[ScoredPair] = []
        if self._data.held_out is not None:
            _, pairs = self._held_out_results()  # also where an attempt resumed behind its last evaluation
            _refuse_constant(pairs)
        metrics = super()._metrics()
        metrics.pop("perplexity", None)  # the loss is of pairs, not of tokens
        if not pairs or not metrics:
            return metrics
        self._histogram = reward_histogram([pair.chosen for pair in pairs], [pair.rejected for pair in pairs])
        return metrics | preference_metrics(pairs)

    def _pieces(self) -> ReportPieces:
        return ReportPieces(data=self.start.data.report, samples=[], histogram=self._histogram)

    _histogram: dict[str, Any] | None = None


def _refuse_constant(pairs: Sequence[ScoredPair]) -> None:
    values = {value for pair in pairs for value in (pair.chosen, pair.rejected)}
    if len(values) == 1:
        raise JobFailure(
            FailureReason.REWARD_INVALID,
            f"The reward model gives every held-out answer the reward {values.pop():g}; it has learned nothing. Raise "
            "training.learningRate, or look at the preferences.",
        )


def scored_pairs(comparisons: Sequence[Comparison], rewards: Sequence[float]) -> list[ScoredPair]:
    """Every pair of the comparisons with its rewards; rewards: of all their answers in order."""
    scored, first = [], 0
    for comparison in comparisons:
        for (better, worse), strength in zip(comparison.pairs, comparison.strengths, strict=True):
            scored.append(
                ScoredPair(
                    rewards[first + better],
                    rewards[first + worse],
                    strength,
                    len(comparison.answers[better]),
                    len(comparison.answers[worse]),
                )
            )
        first += len(comparison.answers)
    return scored


REWARD_PARTS = StageParts(prepare_reward, build_reward_model, RewardRun)
