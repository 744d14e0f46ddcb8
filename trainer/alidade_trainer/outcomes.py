"""From what happened in training processes to one result document and one exit code."""

import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alidade_crds.contract import ExitCode, Failure, ResultDocument, Stage
from alidade_crds.reasons import FailureReason

RUN_FOLDER_ENV = "ALIDADE_RUN_FOLDER"
"""Folder that a launcher shares with its training processes."""

_LESS = (
    "set training.gradientCheckpointing, deepspeed.zeroStage 3 or deepspeed.offload, train with adapter.type lora, or "
    "give the pods more memory."
)


def memory_advice(stage: Stage | None) -> str:
    """What a job of that stage can do with less memory; None: a job that could not be read."""
    if stage is Stage.ALIGN:
        return (
            "Make generation.maxNewTokens, ppo.rolloutBatchSize or raft.promptsPerIteration, or "
            f"training.microBatchSize smaller, {_LESS}"
        )
    return f"Make training.microBatchSize or dataset.maxLength smaller, {_LESS}"


@dataclass(frozen=True)
class Outcome:
    """How one training process ended, by its own account."""

    rank: int
    at: float
    """Seconds since the epoch."""
    result: ResultDocument


def write_outcome(folder: Path, rank: int, result: ResultDocument) -> None:
    """Leaves the outcome of a training process for its launcher."""
    document = {"rank": rank, "at": time.time(), "result": result.to_dict()}
    path = folder / f"outcome-{rank}.json"
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(document))
    partial.rename(path)


def read_outcomes(folder: Path) -> list[Outcome]:
    """The outcomes that training processes have left, in order of rank."""
    documents = [json.loads(path.read_text()) for path in sorted(folder.glob("outcome-*.json"))]
    return [
        Outcome(document["rank"], document["at"], ResultDocument.model_validate(document["result"]))
        for document in documents
    ]


def conclude(
    outcomes: Sequence[Outcome],
    *,
    exit_code: int,
    out_of_memory: bool = False,
    stop_requested: bool = False,
    stage: Stage | None = None,
) -> tuple[ResultDocument, int]:
    """The result of a pod and its exit code.

    outcomes: what its training processes said. exit_code: of the process that ran or watched over them, negative for a
    signal. out_of_memory: whether the kernel killed a process of this container for want of memory. stage: of the job,
    for advice.
    A failure wins over success; among failures the one that is a cause, not a lost peer, and came first.
    """
    failures = [outcome for outcome in outcomes if outcome.result.outcome == "failed"]
    if out_of_memory and exit_code != 0:
        return failed(FailureReason.OUT_OF_MEMORY, _out_of_memory_message(stage), retryable=False)
    causes = [outcome for outcome in failures if _reason(outcome) != FailureReason.WORKER_LOST]
    terminated = [outcome for outcome in outcomes if outcome.result.outcome == "terminated"]
    if causes:
        return _ended(min(causes, key=lambda outcome: outcome.at).result)
    if terminated:
        return terminated[0].result, ExitCode.TERMINATED
    if failures:
        return _ended(min(failures, key=lambda outcome: outcome.at).result)
    if exit_code == 0 and outcomes:
        return outcomes[0].result, ExitCode.SUCCEEDED
    if stop_requested:
        return ResultDocument(outcome="terminated", step=0), ExitCode.TERMINATED
    return _died(exit_code, stage)


def failed(reason: FailureReason, message: str, *, retryable: bool) -> tuple[ResultDocument, int]:
    """A failure as a result document and an exit code."""
    failure = Failure(reason=reason, message=message[:3000], retryable=retryable)
    return _ended(ResultDocument(outcome="failed", failure=failure))


def _ended(result: ResultDocument) -> tuple[ResultDocument, int]:
    assert result.failure is not None
    return result, ExitCode.RETRY if result.failure.retryable else ExitCode.FAILED


def _reason(outcome: Outcome) -> str | None:
    return outcome.result.failure.reason if outcome.result.failure else None


def _died(exit_code: int, stage: Stage | None) -> tuple[ResultDocument, int]:
    if exit_code == -signal.SIGKILL:
        return failed(
            FailureReason.KILLED,
            "A training process was killed from outside (SIGKILL); the next attempt goes on from the newest "
            "checkpoint. "
            f"If it happens again, memory may be short: {memory_advice(stage)}",
            retryable=True,
        )
    ended = f"by signal {signal.Signals(-exit_code).name}" if exit_code < 0 else f"with exit code {exit_code}"
    return failed(
        FailureReason.CRASHED,
        f"A training process ended {ended} without saying why; its log may tell. The next attempt goes on from the "
        "newest checkpoint.",
        retryable=True,
    )


def _out_of_memory_message(stage: Stage | None) -> str:
    return f"The kernel killed a training process because the pod's memory limit was reached. {memory_advice(stage)}"


def count_memory_kills(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Processes of this container that the kernel has killed for want of memory so far (cgroup v2)."""
    events = cgroup / "memory.events"
    if not events.is_file():
        return 0
    counts = dict(line.split() for line in events.read_text().splitlines())
    return int(counts.get("oom_kill", 0))


def write_termination_message(path: Path | None, result: ResultDocument) -> None:
    """Puts the result where Kubernetes reads a container's last words; nothing happens without a path."""
    if path is None:
        return
    # The file is a mount of the kubelet's: it is written in place, never replaced.
    with path.open("w") as file:
        file.write(result.to_termination_message())
        file.flush()
        os.fsync(file.fileno())
