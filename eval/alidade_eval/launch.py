"""Starts the processes of one pod, watches over them, and says in the end how it went.

It loads neither torch nor any other large library: it must be there when memory is short.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from alidade_crds.contract import (
    JOB_ENV,
    SCRATCH_ENV,
    TERMINATION_LOG_ENV,
    WORKER_INDEX_ENV,
    ExitCode,
    Failure,
    ResultDocument,
)
from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure
from alidade_eval.documents import read_document
from alidade_eval.faults import MEMORY_ADVICE, failure_of
from alidade_eval.places import OUTCOME_ENV, PROCESS_ENV

POLL_S = 0.1
DEFAULTS = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONWARNINGS": "ignore",  # of libraries about one another; ours are raised or said
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def launch(environ: Mapping[str, str]) -> int:
    """Runs this pod's part of the evaluation that ALIDADE_JOB names, to its end.

    Returns the exit code (alidade_crds.contract.ExitCode); the termination log has the result in every case.
    """
    try:
        if not environ.get(JOB_ENV):
            raise JobFailure(
                FailureReason.CONFIG_INVALID, f"{JOB_ENV} is not set; it must name the evaluation document's file."
            )
        document = read_document(Path(environ[JOB_ENV]))
        result = _supervise(environ, document.workers, document.processes_per_worker)
    except JobFailure as failure:
        result = ResultDocument(outcome="failed", failure=failure_of(failure))
    code = exit_code(result)
    _write_termination_message(environ, result)
    print(summarize(result, code), file=sys.stderr if code == ExitCode.FAILED else sys.stdout, flush=True)
    return code


def exit_code(result: ResultDocument) -> int:
    """The container's exit code."""
    if result.failure is not None:
        return ExitCode.RETRY if result.failure.retryable else ExitCode.FAILED
    return ExitCode.TERMINATED if result.outcome == "terminated" else ExitCode.SUCCEEDED


def summarize(result: ResultDocument, code: int) -> str:
    """The result in one line of the log."""
    if result.failure is not None:
        again = "; another attempt may succeed" if result.failure.retryable else ""
        return f"Failed ({result.failure.reason}, exit code {code}{again}): {result.failure.message}"
    if result.outcome == "terminated":
        return "Stopped on request; the next attempt goes on from the samples there are."
    return f"Done: {result.report_uri}" if result.report_uri else "This worker's part is done."


def _supervise(environ: Mapping[str, str], workers: int, processes: int) -> ResultDocument:
    with tempfile.TemporaryDirectory(prefix="alidade-eval-", dir=environ.get(SCRATCH_ENV) or None) as folder:
        outcomes = [Path(folder) / f"outcome-{number}.json" for number in range(processes)]
        environments = [_environment(environ, workers, processes, number, path) for number, path in enumerate(outcomes)]
        command = [sys.executable, "-m", "alidade_eval.worker"]
        running = [subprocess.Popen(command, env=environment) for environment in environments]
        stopped = _forward_signals(running)
        codes = _wait(running)
        return conclude(codes, [_read(path) for path in outcomes], stop_requested=bool(stopped))


def _environment(
    environ: Mapping[str, str], workers: int, processes: int, number: int, outcome: Path
) -> dict[str, str]:
    environment = {**DEFAULTS, **environ, PROCESS_ENV: str(number), OUTCOME_ENV: str(outcome)}
    on_loopback = environ.get("POD_IP", "").startswith("127.")
    # Pods of the local cluster share this machine's cores.
    sharing = processes * (workers if on_loopback else 1)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // sharing)))
    if processes > 1:
        devices = environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        named = devices[number] if len(devices) == processes else str(number)
        environment["CUDA_VISIBLE_DEVICES"] = named
    environment.setdefault(WORKER_INDEX_ENV, "0")
    return environment


def _forward_signals(running: Sequence["subprocess.Popen[bytes]"]) -> list[int]:
    """Lets SIGTERM and SIGINT reach the processes; the list is not empty once one has come."""
    came: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    return came


def _wait(running: Sequence["subprocess.Popen[bytes]"]) -> list[int]:
    """Exit codes in order; when one process fails, the others are asked to stop."""
    while any(process.poll() is None for process in running):
        if any(process.poll() not in (None, ExitCode.SUCCEEDED) for process in running):
            for process in running:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            return [process.wait() for process in running]
        time.sleep(POLL_S)
    return [process.wait() for process in running]


def _read(path: Path) -> ResultDocument | None:
    return ResultDocument.model_validate_json(path.read_text()) if path.is_file() else None


def conclude(
    codes: Sequence[int], outcomes: Sequence[ResultDocument | None], *, stop_requested: bool
) -> ResultDocument:
    """The result of a pod from its processes': a failure that was told wins, then a death, then the first's result."""
    told = [one for one in outcomes if one is not None and one.outcome == "failed"]
    if told:
        return told[0]
    died = [code for code, one in zip(codes, outcomes, strict=True) if one is None]
    if died and not stop_requested:
        return ResultDocument(outcome="failed", failure=_death(died[0]))
    if stop_requested or any(one is not None and one.outcome == "terminated" for one in outcomes):
        return ResultDocument(outcome="terminated")
    first = outcomes[0]
    assert first is not None, "none has died"
    return first


def _death(code: int) -> Failure:
    if code == -signal.SIGKILL:
        message = (
            "A process was killed from outside (SIGKILL); the next attempt goes on from the samples there are. If it "
            f"happens again, memory may be short: {MEMORY_ADVICE}"
        )
        return Failure(reason=FailureReason.KILLED, message=message, retryable=True)
    ended = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    message = f"A process ended {ended} without saying why; its log may tell."
    return Failure(reason=FailureReason.CRASHED, message=message, retryable=True)


def _write_termination_message(environ: Mapping[str, str], result: ResultDocument) -> None:
    """Puts the result where Kubernetes reads a container's last words; nothing happens without a path."""
    path = environ.get(TERMINATION_LOG_ENV)
    if not path:
        return
    # The file is a mount of the kubelet's: it is written in place, never replaced.
    with Path(path).open("w") as file:
        file.write(result.to_termination_message())
        file.flush()
        os.fsync(file.fileno())
