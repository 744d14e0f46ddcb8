"""The Fits condition: the memory estimate against what the node pool, or the pod, offers."""

import math
import re
from dataclasses import dataclass, replace

from alidade_crds.blocks import AdapterType
from alidade_crds.jobs import FineTuneJobSpec, TrainingJobSpec
from alidade_crds.reasons import Reason
from alidade_operator.conditions import Truth
from alidade_operator.config import NodePool
from alidade_operator.fits import (
    GIB,
    Estimate,
    Remedy,
    Setup,
    estimate,
    largest_micro_batch,
    setup_of,
    smallest_remedy,
)
from alidade_operator.modelsizes import (
    ModelShape,
    parameters_in_name,
    parse_parameters,
    shape_of_init,
    shape_of_model,
    standard_shape,
)
from alidade_operator.resources.attempt import processes_per_worker
from alidade_operator.resources.observation import SourceView


@dataclass(frozen=True)
class Verdict:
    """The condition, and the micro batch that `auto` stands for where the estimate could tell."""

    status: Truth
    reason: Reason
    message: str
    micro_batch_size: int | None = None


def model_shape(spec: TrainingJobSpec, source: SourceView | None) -> ModelShape | None:
    """The shape of the model that training starts from, from the best that is known of it; None when nothing is."""
    if spec.model.init is not None:
        return shape_of_init(spec.model.init)
    if source is not None and source.model is not None:
        return _with_new_rows(spec, shape_of_model(source.model))
    if spec.model.parameters is not None:
        return _with_new_rows(spec, standard_shape(parse_parameters(spec.model.parameters)))
    parameters = parameters_in_name(spec.model.uri or "")
    return _with_new_rows(spec, standard_shape(parameters)) if parameters else None


def _with_new_rows(spec: TrainingJobSpec, shape: ModelShape) -> ModelShape:
    """The shape with the rows that a longer vocabulary gives embeddings and head, as far as their number is known."""
    vocabulary = spec.vocabulary if isinstance(spec, FineTuneJobSpec) else None
    rows = vocabulary.extend_with.size or 0 if vocabulary is not None else 0
    return replace(
        shape, vocab_size=shape.vocab_size + rows, parameters=shape.parameters + 2 * rows * shape.hidden_size
    )


def fit_verdict(spec: TrainingJobSpec, *, source: SourceView | None, pool: NodePool) -> Verdict:
    """Whether the job fits into the pool's GPUs, or into the pod's memory when it trains on the CPU."""
    shape = model_shape(spec, source)
    if shape is None:
        return Verdict(
            "Unknown",
            Reason.SIZE_UNKNOWN,
            "The size of the model is not known before it is loaded. Set spec.model.parameters (such as 7B) to have "
            "the memory checked before the launch.",
        )
    limit = memory_limit(spec, pool)
    if limit is None:
        where = f"pool {pool.name} states no gpuMemoryGiB" if spec.compute.gpus_per_worker else "no memory limit is set"
        return Verdict("Unknown", Reason.SIZE_UNKNOWN, f"There is nothing to compare the estimate with: {where}.")
    setup, fitting = _setup(spec, shape, limit)
    needed = estimate(shape, setup)
    if needed.total > limit:
        remedy = smallest_remedy(shape, setup, limit_bytes=limit)
        return Verdict(
            "False", Reason.EXCEEDS_MEMORY, f"{_demand(shape, setup, pool, limit)} {_advice(remedy, setup, needed)}"
        )
    return Verdict("True", Reason.WITHIN_MEMORY, _demand(shape, setup, pool, limit), fitting)


def memory_limit(spec: TrainingJobSpec, pool: NodePool) -> float | None:
    """Bytes that one process may use: a GPU's, or a share of the pod's; None when that is not stated."""
    if spec.compute.gpus_per_worker:
        return pool.gpu_memory_gib * GIB if pool.gpu_memory_gib is not None else None
    memory = spec.compute.memory or pool.memory
    return parse_quantity(memory) / processes_per_worker(spec.compute) if memory else None


def _setup(spec: TrainingJobSpec, shape: ModelShape, limit: float) -> tuple[Setup, int | None]:
    """The setup to estimate, and the micro batch chosen for `auto`.

    None when the spec names one, none fits, or the trainer finds one out better: on the CPU a larger one gains nothing,
    and on GPUs with whole weights of a language model it tries.
    """
    asked = spec.training.micro_batch_size
    if asked != "auto":
        return setup_of(spec, micro_batch_size=asked), None
    smallest = setup_of(spec, micro_batch_size=1)
    per_process = max(1, spec.training.global_batch_size // (spec.compute.workers * smallest.processes_per_worker))
    chosen = largest_micro_batch(shape, smallest, limit_bytes=limit, batch_per_process=per_process)
    tries = isinstance(spec, FineTuneJobSpec) and smallest.zero_stage < 3
    return replace(smallest, micro_batch_size=chosen or 1), chosen if smallest.on_gpu and not tries else None


def _demand(shape: ModelShape, setup: Setup, pool: NodePool, limit: float) -> str:
    needed = estimate(shape, setup)
    how = (
        "all weights" if setup.adapter == AdapterType.NONE else f"{_ADAPTER_NAMES[setup.adapter]} of rank {setup.rank}"
    )
    if setup.embeddings_only:
        how = "embeddings and head"
    where = "on each GPU" if setup.on_gpu else "in each process"
    has = f"pool {pool.name} has GPUs of {limit / GIB:.0f} GiB" if setup.on_gpu else f"{limit / GIB:.1f} GiB are set"
    return (
        f"Training {how} of {_size(shape.parameters)} parameters with micro batch {setup.micro_batch_size} needs about "
        f"{needed.total / GIB:.1f} GiB {where} ({needed}); {has}."
    )


_ADAPTER_NAMES = {AdapterType.LORA: "LoRA", AdapterType.QLORA: "QLoRA"}


def _advice(remedy: Remedy | None, setup: Setup, needed: Estimate) -> str:
    if remedy is not None:
        return str(remedy)
    if setup.on_gpu:
        return "No setting makes it fit; use a smaller model or larger GPUs."
    memory = math.ceil(needed.total * setup.processes_per_worker / GIB)
    return f"Set spec.compute.memory to at least {memory}Gi."


def _size(parameters: int) -> str:
    for unit, name in ((10**9, "B"), (10**6, "M")):
        if parameters >= unit:
            return f"{parameters / unit:.1f}{name}"
    return str(parameters)


_QUANTITY = re.compile(r"([0-9.]+)(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_FACTORS = {None: 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_FACTORS |= {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


def parse_quantity(text: str) -> float:
    """The number that a Kubernetes quantity stands for."""
    match = _QUANTITY.fullmatch(text)
    assert match is not None, "the type Quantity admits no other text"
    return float(match[1]) * _FACTORS[match[2]]
