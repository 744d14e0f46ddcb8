"""The Fits condition of an Evaluation: the largest model that is in memory at once against a GPU, or the pod."""

from alidade_crds.blocks import Model, Precision
from alidade_crds.evaluation import EvaluationSpec
from alidade_crds.reasons import Reason
from alidade_operator.config import NodePool
from alidade_operator.fits import FIXED_CPU_BYTES, FIXED_GPU_BYTES, GIB
from alidade_operator.modelsizes import parameters_in_name, parse_parameters
from alidade_operator.reconcile.fit import Verdict, parse_quantity
from alidade_operator.resources.attempt import processes_per_worker
from alidade_operator.resources.observation import Observed

_BYTES = {Precision.BF16: 2, Precision.FP32: 4}
CACHE_SHARE = 0.2
"""What keys, values and activations of a batch take beside the weights, as a share of these; a rule of thumb."""


def evaluation_verdict(spec: EvaluationSpec, observed: Observed, pool: NodePool) -> Verdict:
    """Whether every model fits; one process holds one model at a time, a reward model never beside it."""
    models = [(one.name, one.model) for one in spec.models]
    models += [(f"the reward of {suite.title}", suite.reward_model) for suite in spec.suites if suite.reward_model]
    if not models:
        return Verdict("True", Reason.WITHIN_MEMORY, "The endpoint holds the model; nothing is loaded here.")
    sizes = [(_parameters(model, observed), name) for name, model in models]
    known = [(size, name) for size, name in sizes if size is not None]
    if len(known) < len(sizes):
        unknown = next(name for size, name in sizes if size is None)
        return Verdict(
            "Unknown",
            Reason.SIZE_UNKNOWN,
            f"The size of {unknown} is not known before it is loaded. Set its model.parameters (such as 7B) to have "
            "the memory checked before the launch.",
        )
    on_gpu = spec.compute.gpus_per_worker > 0
    precision = spec.precision or (Precision.BF16 if on_gpu else Precision.FP32)
    size, name = max(known)
    needed = size * _BYTES[precision] * (1 + CACHE_SHARE) + (FIXED_GPU_BYTES if on_gpu else FIXED_CPU_BYTES)
    limit = _limit(spec, pool)
    told = f"{name} with {_size(size)} parameters in {precision} needs about {needed / GIB:.1f} GiB"
    if limit is None:
        where = f"pool {pool.name} states no gpuMemoryGiB" if on_gpu else "no memory limit is set"
        return Verdict("Unknown", Reason.SIZE_UNKNOWN, f"{told}, and there is nothing to compare that with: {where}.")
    has = f"GPUs of {limit / GIB:.0f} GiB" if on_gpu else f"{limit / GIB:.1f} GiB for each process"
    if needed > limit:
        advice = (
            "Name a pool with larger GPUs, or set precision: bf16."
            if on_gpu
            else f"Set spec.compute.memory to at least {needed * processes_per_worker(spec.compute) / GIB:.0f}Gi."
        )
        return Verdict("False", Reason.EXCEEDS_MEMORY, f"{told}; there are {has}. {advice}")
    return Verdict("True", Reason.WITHIN_MEMORY, f"{told}; there are {has}.")


def _limit(spec: EvaluationSpec, pool: NodePool) -> float | None:
    if spec.compute.gpus_per_worker:
        return pool.gpu_memory_gib * GIB if pool.gpu_memory_gib is not None else None
    memory = spec.compute.memory or pool.memory
    return parse_quantity(memory) / processes_per_worker(spec.compute) if memory else None


def _parameters(model: Model, observed: Observed) -> int | None:
    source = observed.sources.get((model.from_.kind, model.from_.name)) if model.from_ is not None else None
    if source is not None and source.model is not None:
        return source.model.parameters
    if model.parameters is not None:
        return parse_parameters(model.parameters)
    return parameters_in_name(model.uri or "")


def _size(parameters: int) -> str:
    for unit, name in ((10**9, "B"), (10**6, "M")):
        if parameters >= unit:
            return f"{parameters / unit:.1f}{name}"
    return str(parameters)
