"""Folders made into GGUF files in a process of its own.

What that takes, torch first of all, is several times what a server of a small model needs, and is given back when the
process ends.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure


def convert_model(folder: Path, target: Path, type_: str) -> None:
    """Writes a model's folder as a GGUF file of a type. Raises JobFailure, as `write_gguf`."""
    _elsewhere(_write_model, folder, target, type_)


def convert_adapter(folder: Path, base: Path, target: Path) -> None:
    """Writes a LoRA adapter of a base model as a GGUF file. Raises JobFailure, as `write_adapter`."""
    _elsewhere(_write_adapter, folder, base, target)


def _elsewhere(work: Callable[..., None], folder: Path, *arguments: object) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            pool.submit(work, folder, *arguments).result()
        except BrokenProcessPool as error:
            raise JobFailure(
                FailureReason.MODEL_INVALID,
                f"The conversion of {folder} was ended from outside, most likely for want of memory. Raise the "
                "memory limit, or serve a .gguf file, which needs no conversion.",
            ) from error


def _write_model(folder: Path, target: Path, type_: str) -> None:
    from alidade_engine.gguf.writing import write_gguf

    write_gguf(folder, target, type_)


def _write_adapter(folder: Path, base: Path, target: Path) -> None:
    from alidade_engine.gguf.adapters import write_adapter

    write_adapter(folder, base, target)
