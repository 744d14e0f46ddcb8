"""How many sequences fit into one forward and backward pass: an estimate for training.microBatchSize auto."""

from dataclasses import dataclass
from pathlib import Path

import torch

SAFETY = 0.6
"""Share of the free memory that is planned with: kernels, fragmentation and communication need the rest."""
# Beyond so many tokens a pass gets no faster: a CPU's caches, or a GPU's units, are full long before.
ENOUGH_TOKENS_CPU = 4096
ENOUGH_TOKENS_GPU = 65536


@dataclass(frozen=True)
class ModelShape:
    """What the size of activations depends on."""

    hidden_size: int
    layers: int
    vocab_size: int
    bytes_per_number: int
    recomputed_layers: int
    """Layers whose activations are computed again in the backward pass."""
    keeps_inputs: bool = True
    """Whether the inputs of those stay on the device."""


def bytes_per_sequence(shape: ModelShape, tokens: int) -> float:
    """Activations of one sequence of so many tokens at their peak.

    A layer keeps 34 bytes per token and unit of width in 16 bits (Korthikanti et al. 2022, equation 1, without the
    attention matrix, which fused attention never holds); of those that are computed again it is one layer's, and of
    each its input alone. Logits are there in the model's format, in fp32, and as their gradient.
    """
    layer = 17.0 * shape.bytes_per_number * tokens * shape.hidden_size
    kept = layer * (shape.layers - shape.recomputed_layers)
    if shape.recomputed_layers:
        inputs = shape.recomputed_layers * tokens * shape.hidden_size * shape.bytes_per_number
        kept += layer + (inputs if shape.keeps_inputs else 0.0)
    logits = tokens * shape.vocab_size * (shape.bytes_per_number + 8.0)
    return kept + logits


def fitting_sequences(shape: ModelShape, tokens: int, *, free_bytes: float, on_gpu: bool) -> float:
    """Sequences of so many tokens that one pass can and should take."""
    by_memory = SAFETY * free_bytes / bytes_per_sequence(shape, tokens)
    return max(1.0, min(by_memory, enough_sequences(tokens, on_gpu=on_gpu)))


def enough_sequences(tokens: int, *, on_gpu: bool) -> float:
    """Sequences of so many tokens beyond which a pass gets no faster."""
    return (ENOUGH_TOKENS_GPU if on_gpu else ENOUGH_TOKENS_CPU) / tokens


def state_bytes(*, trainable: int, bytes_per_number: int, stage: int, processes: int) -> float:
    """Gradients and optimizer states that training will add to a process, beside the weights that are loaded already.

    AdamW keeps an fp32 copy and two moments, 12 bytes for each trained weight; ZeRO divides those among the processes
    from stage 1, gradients from stage 2, and weights from stage 3 (Rajbhandari et al. 2020, section 5).
    """
    gradients = trainable * bytes_per_number / (processes if stage >= 2 else 1)
    optimizer = trainable * 12.0 / (processes if stage >= 1 else 1)
    return gradients + optimizer


def free_bytes(device: torch.device, *, local_processes: int, cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Memory that this process may still take: of its GPU, or its share of what the pod has left."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    free = _available_on_machine()
    limit, used = cgroup / "memory.max", cgroup / "memory.current"
    if limit.is_file() and used.is_file() and limit.read_text().strip().isdigit():
        free = min(free, float(limit.read_text()) - float(used.read_text()))
    return max(free, 0.0) / local_processes


def _available_on_machine() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return float(line.split()[1]) * 1024
    return 0.0
