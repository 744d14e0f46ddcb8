"""The command itself, with real processes: exit codes, termination messages, signals, progress, full disks."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alidade_crds.contract import ProgressDocument, ResultDocument
from tests.ports import free_port

MakeJob = Callable[..., Path]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def termination_log(tmp_path: Path) -> Path:
    path = tmp_path / "termination-log"
    path.touch()
    return path


@pytest.fixture
def start(tmp_path: Path, termination_log: Path) -> Iterator[Start]:
    """Starts `alidade-trainer run` for a job document, with further environment."""
    started: list[subprocess.Popen[str]] = []

    def run(job: Path, **environment: str) -> subprocess.Popen[str]:
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PET_", "ALIDADE_"))}
        process = subprocess.Popen(
            [sys.executable, "-m", "alidade_trainer.main", "run"],
            env=inherited
            | {
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "ALIDADE_JOB": str(job),
                "ALIDADE_SCRATCH": str(scratch),
                "ALIDADE_TERMINATION_LOG": str(termination_log),
                "OMP_NUM_THREADS": "1",
            }
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def message(termination_log: Path) -> ResultDocument:
    return ResultDocument.model_validate_json(termination_log.read_text())


def read_until(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """The first match in the process's output."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if match := re.search(pattern, line):
            return match
    raise AssertionError(f"{pattern} never came in:\n{''.join(seen)}")


@pytest.mark.slow
def test_a_job_runs_shows_its_progress_and_ends_with_code_0_and_a_result(
    make_job: MakeJob, start: Start, termination_log: Path
) -> None:
    process = start(make_job({"training": {"maxSteps": 40, "epochs": 99}}), ALIDADE_PORT="0")

    url = read_until(process, r"Progress: (http://127\.0\.0\.1:\d+)/progress")[1]
    first = ProgressDocument.model_validate_json(fetch(url + "/progress"))
    read_until(process, r"step 4/40 .* loss \d")
    later = ProgressDocument.model_validate_json(fetch(url + "/progress"))
    output, _ = process.communicate(timeout=120)

    assert first.state in ("starting", "loading")
    assert later.step >= 4
    assert later.total_steps == 40
    assert later.loss is not None
    assert process.returncode == 0, output
    result = message(termination_log)
    assert result.outcome == "succeeded"
    assert result.model is not None
    assert result.model.trainable_parameters > 1000
    assert "DeepSpeed" not in output
    assert "Warning" not in output


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.read().decode()


@pytest.mark.slow
def test_two_processes_save_a_checkpoint_and_end_with_143_when_asked_to_stop(
    make_job: MakeJob, start: Start, termination_log: Path, tmp_path: Path
) -> None:
    job = make_job(
        {
            "training": {"maxSteps": 100_000, "epochs": 10_000, "evaluateEverySteps": 1_000},
            "checkpoint": {"everySteps": 100_000},
        }
    )
    process = start(job, PET_NPROC_PER_NODE="2")

    read_until(process, r"step 1/60000 ")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 143, output
    result = message(termination_log)
    assert result.outcome == "terminated"
    assert result.step is not None
    assert result.step >= 1
    saved = tmp_path / "out" / "checkpoints" / f"step-{result.step}" / "complete.json"
    assert saved.is_file()


def test_a_pod_whose_peers_have_not_come_ends_at_once_when_asked_to_stop(
    make_job: MakeJob, start: Start, termination_log: Path
) -> None:
    process = start(
        make_job(),
        PET_NNODES="2",
        PET_NPROC_PER_NODE="1",
        PET_MASTER_ADDR="127.0.0.1",
        PET_MASTER_PORT=str(free_port()),
    )

    while not catches(process.pid, signal.SIGTERM):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)

    assert process.returncode == 143, output
    assert message(termination_log).outcome == "terminated"


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) >> (number - 1) & 1)


def test_a_job_that_is_not_valid_ends_with_1_and_the_field(
    make_job: MakeJob, start: Start, termination_log: Path
) -> None:
    process = start(make_job({"training": {"learningRate": "fast"}}))
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 1
    failure = message(termination_log).failure
    assert failure is not None
    assert (failure.reason, failure.retryable) == ("ConfigInvalid", False)
    assert "training.learningRate" in failure.message
    assert "(found 'fast')" in failure.message
    assert "Traceback" not in output


def test_without_a_job_the_command_says_which_variable_is_missing(start: Start, termination_log: Path) -> None:
    process = start(Path(""), ALIDADE_JOB="")
    process.communicate(timeout=120)

    assert process.returncode == 1
    assert "ALIDADE_JOB is not set" in termination_log.read_text()


@pytest.mark.slow
def test_a_training_process_that_is_killed_is_a_retryable_failure(
    make_job: MakeJob, start: Start, termination_log: Path
) -> None:
    process = start(make_job({"training": {"maxSteps": 100_000, "epochs": 10_000, "evaluateEverySteps": 1_000}}))

    read_until(process, r"step 1/60000 ")
    os.kill(only_child(process.pid), signal.SIGKILL)
    process.communicate(timeout=120)

    assert process.returncode == 75
    failure = message(termination_log).failure
    assert failure is not None
    assert (failure.reason, failure.retryable) == ("Killed", True)


def only_child(pid: int) -> int:
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for two checkpoints of the tiny model, not for more."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1300k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a file system can be mounted by root alone")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_a_final_failure_that_keeps_the_checkpoints_before(
    make_job: MakeJob, run_job: Callable[..., Any], tiny_disk: Path
) -> None:
    over = {"output": f"file://{tiny_disk}/out", "checkpoint": {"everySteps": 1, "keep": 100}}

    run = run_job(make_job(over | {"training": {"maxSteps": 50, "epochs": 99}}))

    failure = run.result.failure
    assert failure is not None
    assert (failure.reason, failure.retryable) == ("DiskFull", False), failure.message
    assert "checkpoint.keep" in failure.message
    names = sorted(path.name for path in (tiny_disk / "out" / "checkpoints").iterdir())
    assert "step-1" in names
    assert not [name for name in names if name.startswith(".")]
    assert json.loads((tiny_disk / "out" / "checkpoints" / "step-1" / "state.json").read_text())["step"] == 1


def test_the_launcher_loads_no_large_library() -> None:
    names = "torch transformers deepspeed numpy prometheus_client"
    probe = f"import sys, alidade_trainer.launcher; print([name for name in {names.split()} if name in sys.modules])"

    found = subprocess.run(
        [sys.executable, "-c", probe],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert found.stdout.strip() == "[]"
