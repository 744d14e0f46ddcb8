"""The GPU that benchmarks run on, and what it could do at most."""

from dataclasses import dataclass

# TFLOPS of dense bf16 products with fp32 sums, from NVIDIA's data sheets, which print twice that for sparse ones.
# The first name that the device's has in it counts.
PEAKS = (
    ("B200", 2250.0),
    ("H200 NVL", 835.0),
    ("H200", 989.0),
    ("GH200", 989.0),
    ("H100 NVL", 835.0),
    ("H100 PCIe", 756.0),
    ("H100", 989.0),
    ("A100", 312.0),
    ("A10G", 70.0),
    ("A10", 125.0),
    ("L40S", 362.0),
    ("L4", 121.0),
)


@dataclass(frozen=True)
class Hardware:
    """name: as the driver has it, or the processor's. memory_gib: of the GPU. peak_tflops: None where unknown."""

    name: str
    on_gpu: bool
    memory_gib: float = 0.0
    peak_tflops: float | None = None
    torch: str = ""
    transformers: str = ""


def peak_tflops(name: str) -> float | None:
    """The peak of a device by its name; None for one that is not in the table."""
    words = f" {name.replace('-', ' ')} "
    return next((peak for known, peak in PEAKS if f" {known} " in words), None)


def find_hardware() -> Hardware:
    """This machine's first GPU, or its processor. It takes hold of the GPU: call it in a process that ends."""
    import torch
    import transformers

    from bench.servers import processor

    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    if not torch.cuda.is_available():
        return Hardware(processor(), on_gpu=False, **versions)
    found = torch.cuda.get_device_properties(0)
    return Hardware(found.name, True, found.total_memory / 2**30, peak_tflops(found.name), **versions)
