"""The micro batch by trial: the largest whose forward and backward pass fits into the GPU's memory.

A trial is this process's own, before the processes share anything: one that runs out of memory leaves no other waiting.
"""

import gc
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from alidade_trainer.loss import summed_loss

BUFFERS_BYTES = 2 * 2**30
"""DeepSpeed's buckets, two of 5·10⁸ numbers of 16 bits, which are there in training and not yet in a trial."""


def can_probe(device: torch.device, *, zero_stage: int) -> bool:
    """Whether a trial tells anything: a CPU's memory ends by a kill, and weights of stage 3 are not whole anywhere."""
    return device.type == "cuda" and zero_stage < 3


def largest_fitting(guess: int, most: int, fits: Callable[[int], bool]) -> int:
    """The largest of guess times or over a power of two that fits, up to most; 1 where nothing larger does."""
    size = guess
    while size > 1 and not fits(size):
        size //= 2
    if size < guess:
        return size
    while size * 2 <= most and fits(size * 2):
        size *= 2
    return size


def pass_fits(
    model: nn.Module, batch: Mapping[str, Tensor], device: torch.device, *, selects_positions: bool, reserved: float
) -> bool:
    """Whether memory suffices for one pass over the batch beside so many reserved bytes.

    The model is moved to the device. Gradients are dropped as they come: what training keeps of them is in reserved.
    """
    if any(weight.device != device for weight in model.parameters()):  # a base in 4 bits is there, and cannot be moved
        model.to(device)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    hooks = [one.register_post_accumulate_grad_hook(_drop_gradient) for one in trained]  # type: ignore[no-untyped-call]
    model.train()
    try:
        ballast = torch.empty(int(reserved), dtype=torch.uint8, device=device)
        tensors = {name: tensor.to(device) for name, tensor in batch.items()}
        loss = summed_loss(model, tensors, selects_positions=selects_positions)
        loss.backward()  # type: ignore[no-untyped-call]
        del ballast, loss
    except RuntimeError as error:
        # cuBLAS asks for its workspace by itself, and says so in words of its own.
        if not isinstance(error, torch.OutOfMemoryError) and "CUBLAS_STATUS_ALLOC_FAILED" not in str(error):
            raise
        return False
    finally:
        for hook in hooks:
            hook.remove()
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return True


def _drop_gradient(weight: Tensor) -> None:
    weight.grad = None
