"""DeepSpeed: its configuration from the job, its engine around a model, and a whole state dict out of it.

ZeRO: Rajbhandari et al. 2020 (stages 1 to 3), Ren et al. 2021 (offload).
"""

import copyreg
import importlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import deepspeed
import deepspeed.ops
import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils import logger
from deepspeed.utils.tensor_fragment import fragment_address
from torch import Tensor, distributed, nn
from torch._C._distributed_c10d import HashStore

from alidade_crds.blocks import Offload, Precision, ZeroPlusPlus
from alidade_crds.contract import JobDocument
from alidade_crds.reasons import FailureReason
from alidade_trainer.failures import JobFailure
from alidade_trainer.plan import TrainingPlan

# What the job says elsewhere; saying it twice could only contradict.
RESERVED_KEYS = {
    "train_batch_size": "training.globalBatchSize",
    "train_micro_batch_size_per_gpu": "training.microBatchSize",
    "gradient_accumulation_steps": "training.globalBatchSize",
    "gradient_clipping": "training.maxGradNorm",
    "optimizer": "training.learningRate and training.weightDecay",
    "scheduler": "training.schedule",
    "bf16": "training.precision",
    "fp16": "training.precision",
}
ADAM_BETAS = (0.9, 0.95)  # of the GPT-3 and Llama papers; the second remembers fewer steps than Adam's 0.999
ADAM_EPSILON = 1e-8
COMPILER_SWITCH = "TORCHDYNAMO_DISABLE"
NEVER = 10**9
"""Steps between two of DeepSpeed's own reports."""
# Python before 3.11.4 writes an enumeration's member as a call of getattr, which no reader can allow.
copyreg.pickle(ZeroStageEnum, lambda stage: (ZeroStageEnum, (stage.value,)))
_OF_CHECKPOINTS: list[Any] = [LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address]
"""Classes of which DeepSpeed's checkpoints hold instances; none does more than keep numbers."""
PEER_TIMEOUT = timedelta(minutes=30)
"""How long processes wait for one another: while rank 0 writes a large model, the others do."""


def base_config(job: JobDocument, *, on_gpu: bool) -> dict[str, Any]:
    """What DeepSpeed has to know while a model is loaded: how its weights are spread, and in which format."""
    # Under bf16 DeepSpeed's stage 0 sums gradients in bf16 and learns measurably worse than stages 1 to 3, which keep
    # exact fp32 weights: stage 1 stands in, the same mathematics with less memory.
    is_bf16 = job.training.precision == Precision.BF16
    zero: dict[str, Any] = {
        "stage": max(job.deepspeed.zero_stage, 1) if is_bf16 else job.deepspeed.zero_stage,
        # Overlapping hides the network behind the backward pass; on a CPU both want the same cores.
        "overlap_comm": on_gpu,
        "contiguous_gradients": True,
    }
    if job.deepspeed.offload in (Offload.OPTIMIZER, Offload.ALL):
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": on_gpu}
    if job.deepspeed.offload == Offload.ALL:
        zero["offload_param"] = {"device": "cpu", "pin_memory": on_gpu}
    zero |= _zero_plus_plus(job.deepspeed.zero_plus_plus)
    return {"train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": is_bf16}, "zero_optimization": zero}


def _zero_plus_plus(plus: ZeroPlusPlus | None) -> dict[str, Any]:
    if plus is None:
        return {}
    return {
        "zero_quantized_weights": plus.quantized_weights,
        "zero_hpz_partition_size": plus.partition_size or 1,
        "zero_quantized_gradients": plus.quantized_gradients,
    }


def deepspeed_config(job: JobDocument, *, plan: TrainingPlan, on_gpu: bool) -> dict[str, Any]:
    """The configuration DeepSpeed gets, `deepspeed.config` of the job merged last.

    Raises JobFailure (ConfigInvalid) when that contradicts what the job says in fields of its own.
    """
    config = base_config(job, on_gpu=on_gpu) | {
        "train_micro_batch_size_per_gpu": plan.micro_batch_size,
        "gradient_accumulation_steps": plan.accumulation,
        "gradient_clipping": job.training.max_grad_norm,
        # torch's fused AdamW serves on the CPU as well and needs no compiler in the image.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": NEVER,
    }
    return merged(config, checked_raw_config(job))


def checked_raw_config(job: JobDocument) -> dict[str, Any]:
    """`deepspeed.config` of the job. Raises JobFailure when it, or the offload, contradicts other fields."""
    raw = job.deepspeed.config
    for key, field in RESERVED_KEYS.items():
        if key in raw:
            raise JobFailure(
                FailureReason.CONFIG_INVALID,
                f"deepspeed.config sets {key}, which {field} decides; remove it there and set the field.",
            )
    zero = raw.get("zero_optimization", {})
    if not isinstance(zero, dict) or zero.get("stage", job.deepspeed.zero_stage) != job.deepspeed.zero_stage:
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"deepspeed.config.zero_optimization contradicts deepspeed.zeroStage {job.deepspeed.zero_stage}; "
            "remove the stage there.",
        )
    if job.deepspeed.offload != Offload.NONE and job.deepspeed.zero_stage == 0:
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"deepspeed.offload is {job.deepspeed.offload}, deepspeed.zeroStage is 0; offloading needs a stage of 1 "
            "to 3.",
        )
    if job.deepspeed.offload == Offload.ALL and job.deepspeed.zero_stage != 3:
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"deepspeed.offload is all, deepspeed.zeroStage is {job.deepspeed.zero_stage}; weights can only be "
            "offloaded "
            "in stage 3. Set zeroStage 3, or offload optimizer.",
        )
    return raw


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The two as one, `over` winning; mappings are merged key by key."""
    result = dict(base)
    for key, value in over.items():
        before = result.get(key)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        result[key] = merged(before, value) if both else value  # type: ignore[arg-type]
    return result


def start_deepspeed(*, on_gpu: bool, processes: int) -> None:
    """Lets the processes meet; without this ZeRO-3 cannot spread a model's weights while they are loaded."""
    logger.setLevel(logging.ERROR)
    # DeepSpeed would compile an operator for inference in shared memory now, which takes a minute and a compiler.
    deepspeed.ops.__compatible_ops__ = {}
    _import_muon_without_compiling()
    backend = "nccl" if on_gpu else "gloo"
    if processes == 1:
        # No port is opened when there is nobody to meet.
        distributed.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    deepspeed.init_distributed(backend, timeout=PEER_TIMEOUT)


def _import_muon_without_compiling() -> None:
    """Loads DeepSpeed's Muon optimizer, which it looks for in every run, without torch's compiler.

    The module marks functions for compilation when it is loaded, which loads the compiler: seconds of every start.
    """
    before = os.environ.get(COMPILER_SWITCH)
    os.environ[COMPILER_SWITCH] = "1"
    try:
        importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")
    finally:
        if before is None:
            del os.environ[COMPILER_SWITCH]
        else:
            os.environ[COMPILER_SWITCH] = before


def build_engine(
    model: nn.Module, job: JobDocument, config: Mapping[str, Any], *, epsilon: float = ADAM_EPSILON
) -> deepspeed.DeepSpeedEngine:
    """The model under DeepSpeed with AdamW over its trainable weights. Every process calls it."""
    optimizer = torch.optim.AdamW(
        weight_groups(model, job.training.weight_decay),
        lr=job.training.learning_rate,
        betas=ADAM_BETAS,
        eps=epsilon,
        fused=True,
    )
    engine, _, _, _ = deepspeed.initialize(model=model, optimizer=optimizer, config=dict(config))
    return engine


def weight_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """AdamW's groups: matrices decay, biases and norms do not (as GPT-2 and Llama were trained)."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            # Under ZeRO-3 a weight's own shape is that of its local part.
            dimensions = len(getattr(parameter, "ds_shape", parameter.shape))
            (decayed if dimensions >= 2 else others).append(parameter)
    groups = [(decayed, weight_decay), (others, 0.0)]
    return [{"params": parameters, "weight_decay": decay} for parameters, decay in groups if parameters]


def take_step(engine: deepspeed.DeepSpeedEngine, learning_rate: float) -> float:
    """Clips, updates the weights and clears the gradients. Returns the gradient's norm before clipping."""
    for group in engine.optimizer.param_groups:
        group["lr"] = learning_rate
    # Without ZeRO the engine does not tell the norm, but has summed the gradients over the processes by now.
    norm = None if engine.zero_optimization() else _gradient_norm(engine)
    engine.step()
    return float(engine.get_global_grad_norm() if norm is None else norm)


def _gradient_norm(engine: deepspeed.DeepSpeedEngine) -> Tensor:
    return nn.utils.get_total_norm(
        parameter.grad for parameter in engine.module.parameters() if parameter.grad is not None
    )


def weight_size(parameter: nn.Parameter) -> int:
    """Numbers in a weight, also when ZeRO-3 has spread it over the processes, or bitsandbytes put it into 4 bits."""
    quantized = getattr(parameter, "quant_state", None)
    return quantized.shape.numel() if quantized is not None else int(getattr(parameter, "ds_numel", parameter.numel()))


def gathered_state(model: nn.Module, *, trainable_only: bool, keep: bool) -> dict[str, Tensor]:
    """The whole weights in RAM, by name. Every process calls it; those with keep=False get an empty dictionary.

    One weight is gathered at a time, so that a model larger than one device passes through.
    """
    state: dict[str, Tensor] = {}
    gathered: dict[int, Tensor] = {}  # a weight with two names, such as tied embeddings, stays one tensor
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if trainable_only and not parameter.requires_grad:
            continue
        if id(parameter) not in gathered:
            with whole_parameters([parameter]):
                gathered[id(parameter)] = parameter.detach().to("cpu", copy=True) if keep else parameter.new_empty(0)
        if keep:
            state[name] = gathered[id(parameter)]
    if keep and not trainable_only:
        persistent = model.state_dict().keys()
        state |= {name: buffer.detach().cpu() for name, buffer in model.named_buffers() if name in persistent}
    return state


_FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


@contextmanager
def tensors_only() -> Iterator[None]:
    """Within it torch.load builds tensors and plain values alone, whatever it is asked for.

    DeepSpeed's checkpoints are pickles, which it loads with weights_only=False: that would run what is in them, and
    they lie on a volume that others may write to.
    """
    before = os.environ.get(_FORCED)
    os.environ[_FORCED] = "1"
    try:
        with torch.serialization.safe_globals(_OF_CHECKPOINTS):
            yield
    finally:
        if before is None:
            del os.environ[_FORCED]
        else:
            os.environ[_FORCED] = before


@contextmanager
def whole_parameters(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Within it, weights that ZeRO-3 spread over the processes are whole on each; others are as they were."""
    spread = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    with deepspeed.zero.GatheredParameters(spread, enabled=bool(spread)):
        yield
