"""The memory that a training job needs on each GPU, estimated before anything is launched.

Weights, gradients and optimizer states after ZeRO (Rajbhandari et al. 2020, table 1): with Adam in mixed precision 2, 2
and 12 bytes per weight, 16 in all, divided among the processes as the stage says. Activations after Korthikanti et al.
2022 ("Reducing Activation Recomputation in Large Transformer Models"), equation 1 without the 5·a·s/h of attention
scores, which scaled-dot-product attention does not keep: 34·s·b·h bytes a block in 16 bit; with gradient checkpointing
2·s·b·h a block and one whole block that is being computed again. PPO with all weights trains a critic of the policy's
size beside it and holds the start model: 16 bytes a weight for each of the two, 2 for the third.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from alidade_crds.blocks import AdapterType, Offload, Precision, VocabularyTraining
from alidade_crds.jobs import FineTuneJobSpec, TrainingJobSpec
from alidade_operator.jobspecs import AlignmentJobSpec
from alidade_operator.modelsizes import ModelShape
from alidade_operator.resources.attempt import processes_per_worker

GIB = 2**30

# CUDA context and cuBLAS workspace (about 0.5 GiB each process), NCCL's buffers, DeepSpeed's flat buckets (2 × 5e8
# elements at their largest are reused from what is free), and what the caching allocator loses to fragments.
FIXED_GPU_BYTES = 2.0 * GIB
# Interpreter, PyTorch and DeepSpeed of a process that trains on the CPU: 0.44 GB were measured, and 0.23 GB for the
# launcher beside it (PyTorch 2.13, DeepSpeed 0.19, a model of 22 thousand weights).
FIXED_CPU_BYTES = 0.7 * GIB

SAMPLING_SLOTS = 64
"""Sequences that the trainer draws at once on each process."""
VLLM_CACHE_BYTES = 8.0 * GIB
"""Most that vLLM's cache of keys and values takes beside a policy under training."""
_ACTIVATION_BYTES = 34  # per token and unit of width in a block, 16 bit (Korthikanti et al., equation 1)
_CHECKPOINT_BYTES = 2  # per token and unit of width: the block's input is all that is kept
_LOGIT_BYTES = 8  # per token and vocabulary entry: float32 logits, and their gradient
_SCORED_AT_ONCE, _MOST_SCORED_BYTES = 8192, 2.0 * GIB  # tokens whose logits the trainer holds at once, and the most
_QUANTIZED_BYTES = 4.127 / 8  # per weight in NF4 with double quantization (Dettmers et al. 2023, section 3)
_ADAM_STATES = 8  # float32 momentum and variance
_MASTER_WEIGHT = 4  # float32 copy of a 16 bit weight


@dataclass(frozen=True)
class Setup:
    """All that the memory of a job depends on beside the model's shape."""

    processes: int
    processes_per_worker: int
    micro_batch_size: int
    max_length: int
    zero_stage: int
    offload: Offload
    precision: Precision
    gradient_checkpointing: bool
    adapter: AdapterType
    rank: int
    train_embeddings: bool
    on_gpu: bool
    may_quantize: bool = False
    """Whether the base may be held in 4 bits: not by an alignment, which samples from it."""
    embeddings_only: bool = False
    """Whether embeddings and output head alone are trained (vocabulary.train)."""
    checkpoint_every_layers: int = 1
    """Of so many blocks, one has its activations computed again."""
    offload_activations: bool = False
    """Whether the inputs of those blocks wait in the host's memory."""
    partition_size: int | None = None
    """Processes that share one more copy of the weights (ZeRO++)."""
    has_critic: bool = False
    """Whether a critic of the model's own size is trained beside it (PPO with all weights)."""
    has_reference: bool = False
    """Whether a frozen copy of the start model is held, for the divergence from it."""
    judges: tuple[int, ...] = ()
    """Weights of each reward model that is held, frozen and whole on every process."""
    samples: int = 0
    """Sequences that are drawn at once, each with its keys and values."""
    samples_with_vllm: bool = False
    """Whether vLLM draws them, from weights and a cache of its own."""
    scores_records: bool = False
    """Whether records are filtered by perplexity, for which every process holds the start model whole."""

    @property
    def workers(self) -> int:
        """Pods."""
        return self.processes // self.processes_per_worker


@dataclass(frozen=True)
class Estimate:
    """Bytes on one GPU, or in one process on the CPU, by what they are for."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    fixed: float
    frozen: float = 0.0
    """Models that are held and not trained: the reference and the reward models."""
    sampling: float = 0.0
    """Keys and values of the sequences that are drawn at once."""
    scoring: float = 0.0
    """The start model that tells the perplexity of records, with its logits; gone before training begins."""

    @property
    def total(self) -> float:
        """All of them, in bytes."""
        held = self.weights + self.optimizer + self.frozen + self.fixed
        # An alignment samples and trains in turn: what one needs is free when the other does.
        training = held + max(self.gradients + self.activations + self.logits, self.sampling)
        return max(training, self.scoring + self.fixed)

    def __str__(self) -> str:
        parts = (
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("activations", self.activations),
            ("logits", self.logits),
            ("reference and reward models", self.frozen),
            ("sampling", self.sampling),
            ("fixed", self.fixed),
            ("before training, scoring of records", self.scoring),
        )
        of_some = ("reference and reward models", "sampling", "before training, scoring of records")
        return ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts if size or name not in of_some)


def setup_of(spec: TrainingJobSpec, *, micro_batch_size: int) -> Setup:
    """What a spec says about memory, with the micro batch given."""
    per_worker = processes_per_worker(spec.compute)
    fields: dict[str, Any] = {"max_length": spec.dataset.max_length}
    if isinstance(spec, AlignmentJobSpec):
        fields |= _alignment(spec)
    vocabulary = spec.vocabulary if isinstance(spec, FineTuneJobSpec) else None
    if isinstance(spec, FineTuneJobSpec):
        fields["scores_records"] = spec.dataset.perplexity is not None
    if spec.deepspeed.zero_plus_plus is not None:
        fields["partition_size"] = spec.deepspeed.zero_plus_plus.partition_size
    if vocabulary is not None:
        fields["embeddings_only"] = vocabulary.train == VocabularyTraining.EMBEDDINGS
    # What fits with the fewest fits with all: ZeRO divides by more then.
    workers = spec.elastic.min_workers if spec.elastic is not None else spec.compute.workers
    return Setup(
        processes=per_worker * workers,
        processes_per_worker=per_worker,
        micro_batch_size=micro_batch_size,
        zero_stage=spec.deepspeed.zero_stage,
        offload=spec.deepspeed.offload,
        precision=spec.training.precision,
        gradient_checkpointing=spec.training.gradient_checkpointing,
        checkpoint_every_layers=spec.training.checkpoint_every_layers,
        offload_activations=spec.training.offload_activations,
        adapter=spec.adapter.type,
        rank=spec.adapter.rank,
        train_embeddings=spec.adapter.train_embeddings or vocabulary is not None,
        on_gpu=spec.compute.gpus_per_worker > 0,
        may_quantize=not isinstance(spec, AlignmentJobSpec),
        **fields,
    )


def _alignment(spec: AlignmentJobSpec) -> dict[str, Any]:
    """What an alignment holds beside the model that it trains."""
    steps, all_weights = spec.alignment.steps, spec.adapter.type == AdapterType.NONE
    charged = any(step.ppo is not None or (step.raft is not None and step.raft.kl_coefficient > 0) for step in steps)
    return {
        "max_length": spec.dataset.max_length + spec.alignment.generation.max_new_tokens,
        "has_critic": all_weights and any(step.ppo is not None for step in steps),
        "has_reference": all_weights and (charged or spec.alignment.guardrails.kl_ceiling is not None),
        "judges": tuple(spec.judges),
        "samples_with_vllm": spec.alignment.generation.engine == "vllm",
        "samples": SAMPLING_SLOTS if any(step.dpo is None for step in steps) else 0,
    }


def trainable_parameters(shape: ModelShape, setup: Setup) -> int:
    """Weights that are trained: all, embeddings and head, or low-rank additions to every linear layer of the blocks
    (Hu et al. 2021)."""
    if setup.embeddings_only:
        return 2 * shape.vocab_size * shape.hidden_size
    if setup.adapter == AdapterType.NONE:
        return shape.parameters
    hidden, kv_size = shape.hidden_size, shape.hidden_size * shape.kv_share
    inputs_and_outputs = 2 * (2 * hidden) + 2 * (hidden + kv_size) + 3 * (hidden + shape.intermediate_size)
    additions = round(shape.layers * setup.rank * inputs_and_outputs)
    embeddings = 2 * shape.vocab_size * hidden if setup.train_embeddings else 0
    return additions + embeddings


def estimate(shape: ModelShape, setup: Setup) -> Estimate:
    """Bytes that the job needs on each GPU (or in each process on the CPU)."""
    item = 2 if setup.precision == Precision.BF16 else 4
    trained = trainable_parameters(shape, setup)
    per_weight = _ADAM_STATES + (_MASTER_WEIGHT if setup.precision == Precision.BF16 else 0)
    on_host = setup.offload != Offload.NONE and setup.on_gpu
    copies = 2 if setup.has_critic else 1
    additions = trained if setup.adapter != AdapterType.NONE else 0
    weights = copies * (_base_weights(shape, setup, item) + item * additions)
    trained *= copies
    if setup.zero_stage == 3:
        # The layer in use and the one fetched ahead are whole on every GPU.
        gathered = min(weights, 2 * item * (shape.parameters / shape.layers))
        resident = 0.0 if setup.offload == Offload.ALL and setup.on_gpu else weights / setup.processes
        second_copy = weights / setup.partition_size if setup.partition_size else 0.0
        weights = min(weights, resident + gathered) + second_copy
    return Estimate(
        weights=weights,
        gradients=item * trained / (setup.processes if setup.zero_stage >= 2 else 1),
        optimizer=0.0 if on_host else per_weight * trained / (setup.processes if setup.zero_stage >= 1 else 1),
        activations=copies * _activations(shape, setup, item),
        logits=float(_LOGIT_BYTES * shape.vocab_size * setup.micro_batch_size * setup.max_length),
        fixed=FIXED_GPU_BYTES if setup.on_gpu else FIXED_CPU_BYTES,
        frozen=_frozen(shape, setup, item),
        sampling=_sampling(shape, setup, item),
        scoring=_scoring(shape, setup, item),
    )


def _base_weights(shape: ModelShape, setup: Setup, item: int) -> float:
    """Bytes of the weights themselves. QLoRA leaves embeddings and head whole, and dequantizes a matrix while it is
    used."""
    if setup.adapter != AdapterType.QLORA:
        return float(item * shape.parameters)
    whole = min(shape.parameters, 2 * shape.vocab_size * shape.hidden_size)
    return item * (whole + shape.hidden_size * shape.intermediate_size) + _QUANTIZED_BYTES * (shape.parameters - whole)


def _frozen(shape: ModelShape, setup: Setup, item: int) -> float:
    """The reference is divided as the weights are; reward models are whole on every process."""
    divided = setup.processes if setup.zero_stage == 3 else 1
    reference = item * shape.parameters / divided if setup.has_reference else 0.0
    return reference + item * sum(setup.judges)


def _sampling(shape: ModelShape, setup: Setup, item: int) -> float:
    """Keys and values of every sequence in the making, and under stage 3 the policy's gathered weights.

    vLLM holds the weights once more, and a cache for many more sequences; it gives both back while training goes on.
    """
    if not setup.samples:
        return 0.0
    width = shape.hidden_size * shape.kv_share
    gathered = item * shape.parameters if setup.zero_stage == 3 else 0.0
    if setup.samples_with_vllm:
        return gathered + item * shape.parameters + VLLM_CACHE_BYTES
    return gathered + 2.0 * item * shape.layers * width * setup.max_length * setup.samples


def _scoring(shape: ModelShape, setup: Setup, item: int) -> float:
    """The start model, whole whatever the stage is, and the logits of a forward pass."""
    if not setup.scores_records:
        return 0.0
    logits = _LOGIT_BYTES * shape.vocab_size * max(_SCORED_AT_ONCE, setup.max_length)
    return _base_weights(shape, setup, item) + min(logits, _MOST_SCORED_BYTES)


def _activations(shape: ModelShape, setup: Setup, item: int) -> float:
    unit = setup.micro_batch_size * setup.max_length * shape.hidden_size * (item / 2)
    if setup.gradient_checkpointing:
        recomputed = math.ceil(shape.layers / setup.checkpoint_every_layers)
        inputs = 0 if setup.offload_activations else _CHECKPOINT_BYTES * recomputed
        return unit * (inputs + _ACTIVATION_BYTES * (shape.layers - recomputed + 1))
    return unit * _ACTIVATION_BYTES * shape.layers


def largest_micro_batch(shape: ModelShape, setup: Setup, *, limit_bytes: float, batch_per_process: int) -> int | None:
    """The largest power of two that divides the batch of a process and fits; None when not even 1 does."""
    best = None
    size = 1
    while size <= batch_per_process and batch_per_process % size == 0:
        if estimate(shape, replace(setup, micro_batch_size=size)).total > limit_bytes:
            break
        best, size = size, size * 2
    return best


@dataclass(frozen=True)
class Change:
    """Fields with other values, and the setup that they make."""

    fields: dict[str, str]
    setup: Setup


@dataclass(frozen=True)
class Remedy:
    """A change of the spec after which the job would fit."""

    fields: dict[str, str]
    total: float

    def __str__(self) -> str:
        changes = [f"{field} to {value}" for field, value in self.fields.items()]
        return f"Set {' and '.join(changes)} (about {self.total / GIB:.1f} GiB)."


def smallest_remedy(shape: ModelShape, setup: Setup, *, limit_bytes: float) -> Remedy | None:
    """The smallest change that fits: each kind of change alone, the cheapest first, then one on top of the other."""
    for step in _STEPS:
        for change in step(setup):
            total = estimate(shape, change.setup).total
            if total <= limit_bytes:
                return Remedy(change.fields, total)
    made: dict[str, str] = {}
    for step in _STEPS:
        for change in step(setup):
            setup, made = change.setup, made | change.fields
            total = estimate(shape, setup).total
            if total <= limit_bytes:
                return Remedy(made, total)
    return None


def _smaller_micro_batch(setup: Setup) -> Iterator[Change]:
    size = setup.micro_batch_size // 2
    while size >= 1:
        yield Change({"spec.training.microBatchSize": str(size)}, replace(setup, micro_batch_size=size))
        size //= 2


def _checkpointing(setup: Setup) -> Iterator[Change]:
    changed = replace(setup, gradient_checkpointing=True, checkpoint_every_layers=1)
    if not setup.gradient_checkpointing:
        yield Change({"spec.training.gradientCheckpointing": "true"}, changed)
    elif setup.checkpoint_every_layers > 1:
        yield Change({"spec.training.checkpointEveryLayers": "1"}, changed)


def _higher_stage(setup: Setup) -> Iterator[Change]:
    if setup.processes > 1:
        for stage in range(setup.zero_stage + 1, 3 if setup.adapter == AdapterType.QLORA else 4):
            yield Change({"spec.deepspeed.zeroStage": str(stage)}, replace(setup, zero_stage=stage))


def _lora(setup: Setup) -> Iterator[Change]:
    if setup.adapter == AdapterType.NONE and not setup.embeddings_only:
        changed = replace(setup, adapter=AdapterType.LORA)
        yield Change({"spec.adapter.type": "lora"}, changed)


def _qlora(setup: Setup) -> Iterator[Change]:
    if setup.adapter != AdapterType.QLORA and setup.may_quantize and setup.zero_stage <= 2:
        changed = replace(setup, adapter=AdapterType.QLORA, train_embeddings=False)
        yield Change({"spec.adapter.type": "qlora"}, changed)


def _offload(setup: Setup) -> Iterator[Change]:
    if not setup.on_gpu or setup.offload == Offload.ALL:
        return
    if setup.offload == Offload.NONE and setup.zero_stage >= 1:
        yield Change({"spec.deepspeed.offload": "optimizer"}, replace(setup, offload=Offload.OPTIMIZER))
    if setup.adapter == AdapterType.QLORA:
        return
    changed = replace(setup, zero_stage=3, offload=Offload.ALL)
    yield Change(_stage_3(setup) | {"spec.deepspeed.offload": "all"}, changed)


def _more_workers(setup: Setup) -> Iterator[Change]:
    workers = setup.workers * 2
    while setup.on_gpu and setup.adapter != AdapterType.QLORA and workers <= _MOST_WORKERS:
        changed = replace(setup, zero_stage=3, processes=workers * setup.processes_per_worker)
        yield Change(_stage_3(setup) | {"spec.compute.workers": str(workers)}, changed)
        workers *= 2


def _no_scoring(setup: Setup) -> Iterator[Change]:
    if setup.scores_records:
        yield Change({"spec.dataset.filters.perplexity": "null"}, replace(setup, scores_records=False))


def _stage_3(setup: Setup) -> dict[str, str]:
    return {} if setup.zero_stage == 3 else {"spec.deepspeed.zeroStage": "3"}


# A proposal of more would not be a small change any more.
_MOST_WORKERS = 64
_STEPS = (_smaller_micro_batch, _checkpointing, _higher_stage, _lora, _qlora, _offload, _more_workers, _no_scoring)
