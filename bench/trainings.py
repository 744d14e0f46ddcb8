"""What benchmarks of training share: job documents, an environment for the trainer beside which they run, a meter."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".bench"
TRL_PYTHON = WORK / "trl/bin/python"
TRL = "trl==1.16.*"
PACKAGES = os.pathsep.join(str(ROOT / folder) for folder in ("crds", "engine", "trainer"))
"""Where Python finds the platform in TRL's environment."""
QUIET = {
    "OMP_NUM_THREADS": "1",
    "DS_ACCELERATOR": "cpu",
    "DS_LOG_LEVEL": "error",
    "PYTHONWARNINGS": "ignore",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "GLOO_SOCKET_IFNAME": "lo",
}
"""Environment of every process here: one thread, no network, no chatter."""


def trl_environment() -> None:
    """The environment with TRL, once."""
    if TRL_PYTHON.is_file():
        return
    WORK.mkdir(exist_ok=True)
    (WORK / ".gitignore").write_text("*\n")
    subprocess.run([sys.executable, "-m", "venv", str(WORK / "trl")], check=True)
    packages = ["torch", "pydantic", "peft", TRL]
    pip = [str(TRL_PYTHON), "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, *packages], check=True)


def job_document(stage: str, output: Path) -> dict[str, Any]:
    """The blocks that every job here has; model, data and training are for the caller to add."""
    return {
        "version": "alidade.dev/job/v1",
        "owner": {"kind": "FineTuneJob", "namespace": "bench", "name": "training", "uid": "0"},
        "stage": stage,
        "deepspeed": {"zeroStage": 0},
        "checkpoint": {"everySteps": 100_000, "keep": 1},
        "output": f"file://{output}",
    }


def training_block(*, learning_rate: float, batch: int, seed: int) -> dict[str, Any]:
    """Optimisation without anything that the two trainers could do differently."""
    return {
        "learningRate": learning_rate,
        "schedule": "constant",
        "warmupRatio": 0,
        "weightDecay": 0,
        "globalBatchSize": batch,
        "microBatchSize": batch,
        "precision": "fp32",
        "gradientCheckpointing": False,
        "seed": seed,
    }


def worker_environment(job: Path, run_folder: Path) -> dict[str, str]:
    """What a single training process is told."""
    return {
        "ALIDADE_JOB": str(job),
        "ALIDADE_RUN_FOLDER": str(run_folder),
        "ALIDADE_SCRATCH": str(run_folder),
        **{name: "0" for name in ("RANK", "LOCAL_RANK")},
        **{name: "1" for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")},
    }


@contextmanager
def new_run_folder() -> Iterator[Path]:
    """What a launcher would share with its training processes."""
    with tempfile.TemporaryDirectory(prefix="alidade-bench-") as folder:
        yield Path(folder)


def run(command: Sequence[str], environment: dict[str, str]) -> str:
    """The output of a command; RuntimeError with the end of its errors when it fails."""
    whole = {**os.environ, **QUIET, **environment}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=whole)
    if done.returncode:
        said = (done.stdout + done.stderr)[-3000:]
        raise RuntimeError(f"{' '.join(command)[:200]} ended with {done.returncode}: {said}")
    return done.stdout


@dataclass
class Meter:
    """Seconds within `measured`, and memory before the first time and at most."""

    processor_s: float = 0.0
    clock_s: float = 0.0
    before_kib: int = 0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Counts what happens within."""
        self.before_kib = self.before_kib or _status_kib("VmRSS")
        clock, processor = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.processor_s += time.process_time() - processor
            self.clock_s += time.perf_counter() - clock

    def numbers(self) -> dict[str, float]:
        """As a run's result has them."""
        peak = _status_kib("VmHWM")
        return {
            "processorSeconds": self.processor_s,
            "seconds": self.clock_s,
            "peakMiB": peak / 1024,
            "trainingMiB": (peak - self.before_kib) / 1024,
        }


def _status_kib(name: str) -> int:
    # Not getrusage's ru_maxrss, in which a process begins with what its parent held.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
