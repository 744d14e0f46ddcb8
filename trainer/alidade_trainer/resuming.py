"""A training taken up from a checkpoint, by as many processes as wrote it or by another number of them."""

import io
import shutil
import time
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from copy import deepcopy
from pathlib import Path

import deepspeed
from deepspeed.checkpoint import ds_to_universal

from alidade_crds.blocks import AdapterType
from alidade_crds.contract import JobDocument
from alidade_crds.reasons import FailureReason
from alidade_trainer.checkpoints import Checkpoint, CheckpointStore
from alidade_trainer.failures import JobFailure
from alidade_trainer.jobs import fingerprint
from alidade_trainer.peers import Peers
from alidade_trainer.results import another_job
from alidade_trainer.zero import tensors_only

ENGINE_TAG = "engine"
UNIVERSAL_PREFIX = ".universal-"
POLL_S = 0.05
"""How often processes ask the first one whether it is done: a conversion may take longer than they would wait."""


def checkpoint_to_resume(store: CheckpointStore, job: JobDocument, data_digest: str) -> Checkpoint | None:
    """The newest complete checkpoint of this very training. Raises JobFailure when it is another's."""
    checkpoint = store.newest()
    if checkpoint is None:
        return None
    state = checkpoint.state
    if state.fingerprint != fingerprint(job) or state.data_digest != data_digest:
        raise JobFailure(FailureReason.CONFIG_INVALID, another_job(job, state.job, "checkpoints"))
    return checkpoint


def load_engine(engine: deepspeed.DeepSpeedEngine, checkpoint: Checkpoint, job: JobDocument, peers: Peers) -> None:
    """Weights and optimizer states of the checkpoint into the engine. Every process calls it.

    ZeRO cuts its files for the number of processes that write them. Another number reads them as a universal checkpoint
    (Lian et al. 2024): each weight whole, of which every process takes its new part. It lies beside the checkpoint for
    as long as it is read.
    """
    with tensors_only():
        _load_engine(engine, checkpoint, job, peers)


def _load_engine(engine: deepspeed.DeepSpeedEngine, checkpoint: Checkpoint, job: JobDocument, peers: Peers) -> None:
    if checkpoint.state.processes == peers.count or engine.zero_optimization_stage() == 0:
        _load(engine, checkpoint.folder, job)
        return
    universal = checkpoint.folder.with_name(UNIVERSAL_PREFIX + checkpoint.folder.name)
    try:
        _with_patience(peers, checkpoint.folder / ENGINE_TAG, universal / ENGINE_TAG)
        with _reads_universal(engine):
            _load(engine, universal, job)
        peers.wait()
    finally:
        if peers.is_first:
            shutil.rmtree(universal, ignore_errors=True)


def _load(engine: deepspeed.DeepSpeedEngine, folder: Path, job: JobDocument) -> None:
    engine.load_checkpoint(
        str(folder),
        tag=ENGINE_TAG,
        load_module_strict=job.adapter.type == AdapterType.NONE,
        load_lr_scheduler_states=False,
    )


def _with_patience(peers: Peers, source: Path, target: Path) -> None:
    """Converts in the first process, while all others wait for however long it takes."""
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(_convert, source, target) if peers.is_first else None
        while not peers.from_first(work is None or work.done()):
            time.sleep(POLL_S)
        error = peers.from_first(work.exception() if work is not None else None)
    if error is not None:
        raise error


def _convert(source: Path, target: Path) -> None:
    """Writes a universal checkpoint of DeepSpeed's files in source."""
    shutil.rmtree(target.parent, ignore_errors=True)
    target.mkdir(parents=True)
    options = Namespace(
        input_folder=str(source),
        output_folder=str(target),
        # In this process: a fork would take over its threads and its GPU.
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        ds_to_universal.main(options)


@contextmanager
def _reads_universal(engine: deepspeed.DeepSpeedEngine) -> Iterator[None]:
    """Within it, the engine takes checkpoints for universal ones.

    What DeepSpeed 0.19 gets wrong under ZeRO-3 is put right: all groups of weights have the settings of the first, and
    so biases its weight decay; and all have one counter of Adam's steps, which each of them moves on.
    """
    decays = [group["weight_decay"] for group in engine.optimizer.param_groups]
    engine._config.load_universal_checkpoint = True
    try:
        yield
    finally:
        engine._config.load_universal_checkpoint = False
    for group, decay in zip(engine.optimizer.param_groups, decays, strict=True):
        group["weight_decay"] = decay
    for state in engine.optimizer.optimizer.state.values():
        state["step"] = deepcopy(state["step"])
