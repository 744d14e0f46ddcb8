"""Starts the training processes of one pod, watches over them, and says in the end how it went.

It loads neither torch nor any other large library: it must be there when memory is short, and it must not keep the
training processes waiting.
"""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from alidade_crds.contract import (
    JOB_ENV,
    POD_IP_ENV,
    SCRATCH_ENV,
    TERMINATION_LOG_ENV,
    ExitCode,
    ResultDocument,
    Stage,
)
from alidade_crds.reasons import FailureReason
from alidade_trainer.jobs import JobError, read_job
from alidade_trainer.outcomes import (
    RUN_FOLDER_ENV,
    conclude,
    count_memory_kills,
    failed,
    read_outcomes,
    write_termination_message,
)
from alidade_trainer.topology import Topology, TopologyError, count_cores, count_gpus, read_topology

STOP_FILE = "stop"
"""In the run folder: asks the training processes to save a checkpoint at the next step boundary and to end."""
MEETING_FILE = "meeting"
"""In the run folder: is there until the pods of the job have met, which takes as long as one of them has no node."""

WORKER_MODULE = "alidade_trainer.worker"
ELASTIC_MODULE = "alidade_trainer.elastic"


def launch(environ: Mapping[str, str]) -> int:
    """Runs the job that ALIDADE_JOB names, to its end.

    Returns the exit code (alidade_crds.contract.ExitCode); the termination log has the result in every case.
    """
    termination_log = Path(environ[TERMINATION_LOG_ENV]) if environ.get(TERMINATION_LOG_ENV) else None
    try:
        job = read_job(_job_path(environ))
        topology = read_topology(environ, gpus=count_gpus(environ))
    except (JobError, TopologyError) as error:
        result, code = failed(FailureReason.CONFIG_INVALID, str(error), retryable=False)
    else:
        result, code = _supervise(environ, topology, job.stage)
    write_termination_message(termination_log, result)
    print(summarize(result, code), file=sys.stderr if code == ExitCode.FAILED else sys.stdout, flush=True)
    return code


def summarize(result: ResultDocument, exit_code: int) -> str:
    """The result in one line of the log."""
    if result.failure is not None:
        again = "; another attempt may succeed" if result.failure.retryable else ""
        return f"Failed ({result.failure.reason}, exit code {exit_code}{again}): {result.failure.message}"
    if result.outcome == "terminated":
        return f"Stopped on request at step {result.step or 0}; the next attempt goes on from the newest checkpoint."
    return f"Done: {result.model.uri}" if result.model else "Done."


def _job_path(environ: Mapping[str, str]) -> Path:
    path = environ.get(JOB_ENV)
    if not path:
        raise JobError(f"{JOB_ENV} is not set; it must name the job document's file.")
    return Path(path)


def _supervise(environ: Mapping[str, str], topology: Topology, stage: Stage) -> tuple[ResultDocument, int]:
    scratch = environ.get(SCRATCH_ENV)
    with tempfile.TemporaryDirectory(prefix="alidade-run-", dir=scratch or None) as folder:
        run_folder = Path(folder)
        kills_before = count_memory_kills()
        if not topology.is_single_process:
            (run_folder / MEETING_FILE).touch()
        with subprocess.Popen(_command(topology), env=training_environment(environ, topology, run_folder)) as process:
            stopped = _stop_on_signals(process, run_folder)
            returncode = process.wait()
        return conclude(
            read_outcomes(run_folder),
            exit_code=returncode if returncode <= 128 else 128 - returncode,
            out_of_memory=count_memory_kills() > kills_before,
            stop_requested=stopped.exists(),
            stage=stage,
        )


def _stop_on_signals(process: subprocess.Popen[bytes], run_folder: Path) -> Path:
    """Lets SIGTERM and SIGINT ask the training processes to stop; answers the file that says so.

    A file, not a signal, carries the wish: torch elastic would turn a signal into a kill after its own time limit.
    Before the pods have met nobody would see the file, and nothing is lost.
    """
    stop = run_folder / STOP_FILE

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.touch()
        if (run_folder / MEETING_FILE).exists():
            process.kill()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    return stop


def _command(topology: Topology) -> list[str]:
    if topology.is_single_process:
        return [sys.executable, "-m", WORKER_MODULE]
    return [sys.executable, "-m", ELASTIC_MODULE, str(topology.processes)]


def training_environment(environ: Mapping[str, str], topology: Topology, run_folder: Path) -> dict[str, str]:
    """The environment of the training processes: what the pod has, and what keeps libraries quiet and within bounds."""
    environment = dict(environ)
    environment[RUN_FOLDER_ENV] = str(run_folder)
    on_loopback = environ.get(POD_IP_ENV, "").startswith("127.")
    defaults = {
        "OMP_NUM_THREADS": str(max(1, count_cores() // _neighbours(topology, share_machine=on_loopback))),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",  # of libraries about one another; ours are raised or said
        "TOKENIZERS_PARALLELISM": "true",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # The next attempt asks again; this one holds GPUs.
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
        # DeepSpeed says at every start which accelerator it did not find; failures are raised, not logged.
        "DS_LOG_LEVEL": "error",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
    if count_gpus(environ) == 0:
        defaults["DS_ACCELERATOR"] = "cpu"
    if topology.nodes == "1" or on_loopback:
        # Without it gloo looks up this machine's name, which need not resolve.
        defaults["GLOO_SOCKET_IFNAME"] = "lo"
    for name, value in defaults.items():
        environment.setdefault(name, value)
    if topology.is_single_process:
        environment |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    return environment


def _neighbours(topology: Topology, *, share_machine: bool) -> int:
    """Training processes of the job that share this pod's cores: those of all its pods where these share a machine."""
    pods = int(topology.nodes.rpartition(":")[2]) if share_machine else 1
    return pods * topology.processes
