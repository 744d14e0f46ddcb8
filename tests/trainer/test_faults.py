"""From exceptions, as libraries really raise them, to failures with advice."""

import errno

import pytest

from alidade_crds.reasons import FailureReason
from alidade_trainer.failures import JobFailure
from alidade_trainer.faults import failure_of


@pytest.mark.parametrize(
    ("error", "reason", "retryable", "advice"),
    [
        (JobFailure(FailureReason.DATA_EMPTY, "no records"), "DataEmpty", False, "no records"),
        (OSError(errno.ENOSPC, "No space left on device", "/out/x"), "DiskFull", False, "checkpoint.keep"),
        (
            RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/1"),
            "DiskFull",
            False,
            "output.uri",
        ),
        (Exception("I/O error: No space left on device (os error 28)"), "DiskFull", False, "output.uri"),
        (OSError(errno.EROFS, "Read-only file system", "/out"), "VolumeReadOnly", False, "output.uri"),
        (MemoryError(), "OutOfMemory", False, "training.microBatchSize"),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.15 GiB"),
            "OutOfMemory",
            False,
            "adapter.type lora",
        ),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"),
            "OutOfMemory",
            False,
            "training.gradientCheckpointing",
        ),
        (
            RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4711"),
            "WorkerLost",
            True,
            "newest checkpoint",
        ),
        (KeyError("weights"), "Crashed", True, "KeyError: 'weights'"),
    ],
)
def test_each_kind_of_error_has_its_reason_and_says_what_to_do(
    error: BaseException, reason: str, retryable: bool, advice: str
) -> None:
    failure = failure_of(error)

    assert (failure.reason, failure.retryable) == (reason, retryable)
    assert advice in failure.message
    assert "Traceback" not in failure.message
