"""How a model computes: which attention, whose kernels, compiled or not, and what it keeps for the backward pass."""

import importlib.util
import math
import os
import shutil
from collections.abc import Callable
from typing import Any

import deepspeed
from transformers import PreTrainedModel
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available, is_liger_kernel_available

from alidade_crds.blocks import Attention, Kernels, Precision, Training, ZeroPlusPlus
from alidade_crds.contract import JobDocument, Stage
from alidade_crds.reasons import FailureReason
from alidade_trainer.failures import JobFailure

COMPILERS = ("c++", "g++", "clang++")
COMPILE_BACKEND = "inductor"
# Cross-entropy is ours (alidade_trainer.loss): it is summed over learned positions, and divided by those of the step.
LIGER = {"cross_entropy": False, "fused_linear_cross_entropy": False}
_FLASH: dict[Attention, tuple[Callable[[], bool], str]] = {
    Attention.FLASH_ATTENTION_2: (is_flash_attn_2_available, "flash-attn"),
    Attention.FLASH_ATTENTION_3: (is_flash_attn_3_available, "flash-attn-3"),
}


def refuse_unavailable(job: JobDocument, *, on_gpu: bool, processes: int) -> None:
    """Raises JobFailure (ConfigInvalid) for what this device, this image, or so many processes cannot do."""
    training, stage = job.training, job.deepspeed.zero_stage
    plus = job.deepspeed.zero_plus_plus or ZeroPlusPlus()
    flash_is_there, flash_package = _FLASH.get(training.attention, (lambda: True, ""))
    quantizes = plus.quantized_weights or plus.quantized_gradients
    is_liger = training.kernels is Kernels.LIGER
    of_gpus = "this process has no GPU. Set compute.gpusPerWorker, or remove it"
    refusals: list[tuple[object, str, object, str]] = [
        (flash_package and not on_gpu, "training.attention", training.attention, f"{of_gpus}: sdpa serves on CPUs"),
        (
            flash_package and training.precision != Precision.BF16,
            "training.attention",
            training.attention,
            "it computes in 16 bits only; set training.precision bf16",
        ),
        (
            not flash_is_there(),
            "training.attention",
            training.attention,
            f"the image lacks the package {flash_package}; set compute.image to one that has it, or take sdpa",
        ),
        (is_liger and not on_gpu, "training.kernels", "liger", of_gpus),
        (
            is_liger and not is_liger_kernel_available(),
            "training.kernels",
            "liger",
            "the image lacks the package liger-kernel; set compute.image to one that has it, or take torch",
        ),
        (training.offload_activations and not on_gpu, "training.offloadActivations", "true", of_gpus),
        (quantizes and not on_gpu, "deepspeed.zeroPlusPlus", "quantizing", of_gpus),
        (
            quantizes and not _has_quantizer(),
            "deepspeed.zeroPlusPlus",
            "quantizing",
            "the image has neither DeepSpeed's quantizer built in nor a CUDA toolkit to build it; use the release's "
            "trainer image for GPUs",
        ),
        (
            job.deepspeed.zero_plus_plus is not None and stage != 3,
            "deepspeed.zeroPlusPlus",
            "set",
            f"deepspeed.zeroStage is {stage}; it is about weights that are spread, which stage 3 does",
        ),
        (
            processes % (plus.partition_size or 1) != 0,
            "deepspeed.zeroPlusPlus.partitionSize",
            plus.partition_size,
            f"it must divide the {processes} training processes; take the GPUs of a node",
        ),
        (
            training.compile and stage == 3,
            "training.compile",
            "true",
            "stage 3 fetches each weight between two operations; use deepspeed.zeroStage 0 to 2",
        ),
        (
            training.compile and not _has_compiler(),
            "training.compile",
            "true",
            f"the image has no C++ compiler (none of {', '.join(COMPILERS)}, nor CXX); set compute.image to one that "
            "has, or remove it",
        ),
        (
            job.stage is Stage.ALIGN and (training.compile or is_liger or job.deepspeed.zero_plus_plus is not None),
            "training.compile, training.kernels or deepspeed.zeroPlusPlus",
            "set",
            "an alignment draws its answers from the weights themselves; remove it",
        ),
    ]
    for refused, field, found, advice in refusals:
        if refused:
            raise JobFailure(FailureReason.CONFIG_INVALID, f"{field} is {found}; {advice}.")


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), *COMPILERS) if name)


def _has_quantizer() -> bool:
    from torch.utils import cpp_extension  # a second of every start, which others need not wait for

    built_in = importlib.util.find_spec("deepspeed.ops.quantizer.quantizer_op") is not None
    return built_in or cpp_extension.CUDA_HOME is not None


def attention_option(training: Training) -> dict[str, Any]:
    """The option of `from_pretrained` and `from_config` that chooses the attention."""
    return {} if training.attention is Attention.AUTO else {"attn_implementation": str(training.attention)}


def keep_few_activations(model: PreTrainedModel, training: Training) -> None:
    """Lets blocks compute their activations again in the backward pass, as the job says."""
    if training.gradient_checkpointing:
        model.activation_checkpointing_enable(
            {"use_reentrant": False},
            every_n_layers=training.checkpoint_every_layers,
            offload=training.offload_activations,
        )


def recomputed_layers(training: Training, layers: int) -> int:
    """Blocks, of so many, whose activations are computed again in the backward pass."""
    return math.ceil(layers / training.checkpoint_every_layers) if training.gradient_checkpointing else 0


def fuse(model: PreTrainedModel, training: Training) -> None:
    """Puts liger's kernels into the model where the job asks for them.

    Raises JobFailure (ConfigInvalid) for a family that liger has none for; by itself it would leave that as it is.
    """
    if training.kernels is not Kernels.LIGER:
        return
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN
    from transformers.integrations.liger import apply_liger_kernel

    family = model.config.model_type
    if family not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        known = ", ".join(sorted(MODEL_TYPE_TO_APPLY_LIGER_FN))
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"training.kernels is liger, and the model's type is {family}, for which it has no kernels (it has them "
            f"for {known}). Use torch.",
        )
    apply_liger_kernel(model, LIGER)


def compile_engine(engine: deepspeed.DeepSpeedEngine, training: Training) -> None:
    """Lets torch.compile fuse the model's operations where the job asks for it; it happens in the first passes."""
    if training.compile:
        engine.compile(backend=COMPILE_BACKEND)
