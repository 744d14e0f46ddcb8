"""The real command: progress over HTTP, a stop, another attempt, the same result ever after; and what a pod says."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alidade_crds.contract import EvaluationDocument, ExitCode, Failure, ProgressDocument, ResultDocument
from alidade_crds.packed import PackedResults
from alidade_eval.launch import conclude, exit_code, launch, summarize
from tests.eval.conftest import QUESTIONS, Evaluate, Run, write_lines
from tests.ports import free_port

LONGEST_S = 120
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the command on a document."""
    started: list[subprocess.Popen[bytes]] = []

    def run(document: EvaluationDocument, **over: str) -> "subprocess.Popen[bytes]":
        (tmp_path / "job.json").write_text(json.dumps(document.to_dict()))
        (tmp_path / "scratch").mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "ALIDADE_JOB": str(tmp_path / "job.json"),
            "ALIDADE_SCRATCH": str(tmp_path / "scratch"),
            "ALIDADE_TERMINATION_LOG": str(tmp_path / "termination"),
            "OMP_NUM_THREADS": "1",
            **over,
        }
        command = [sys.executable, "-m", "alidade_eval.main", "run"]
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def last_words(folder: Path) -> ResultDocument:
    return ResultDocument.model_validate_json((folder / "termination").read_text())


def get(address: str) -> bytes | None:
    """What is answered there; None while nobody answers."""
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            content: bytes = answer.read()
            return content
    except OSError:
        return None


@pytest.mark.slow
def test_an_evaluation_that_is_stopped_ends_as_one_that_was_not(
    evaluate: Evaluate, run_course: Run, start: Start, tmp_path: Path
) -> None:
    many = [{"input": f"{ask} {again}", "output": answer} for again in range(60) for ask, answer in QUESTIONS]
    data = write_lines(tmp_path / "many.jsonl", many)
    suites = [{"type": "generation", "dataset": f"file://{data}", "metrics": ["exact_match", "f1"], "temperature": 1.0}]
    port = free_port()
    stopped = start(evaluate(*suites), ALIDADE_PORT=str(port))
    told = _when_samples_are_there(stopped, port)
    assert told.total_steps == 2 * len(many)
    assert told.activity == "generation of untaught"
    assert b"alidade_evaluation_samples" in (get(f"http://127.0.0.1:{port}/metrics") or b"")
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(LONGEST_S) == ExitCode.TERMINATED
    assert last_words(tmp_path).outcome == "terminated"
    kept = _samples(tmp_path / "out")
    assert 0 < kept < 2 * len(many)

    again = start(evaluate(*suites))
    assert again.wait(LONGEST_S) == ExitCode.SUCCEEDED
    result = last_words(tmp_path)
    assert _samples(tmp_path / "out") == 2 * len(many)
    assert result.evaluation is not None
    assert result.report_uri == f"file://{tmp_path}/out/report.html"

    undisturbed = run_course(evaluate(*suites, output="undisturbed")).results
    assert result.evaluation.results() == PackedResults.of(undisturbed).results()
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000


def _when_samples_are_there(process: "subprocess.Popen[bytes]", port: int) -> ProgressDocument:
    deadline = time.monotonic() + LONGEST_S
    while time.monotonic() < deadline and process.poll() is None:
        answer = get(f"http://127.0.0.1:{port}/progress")
        if answer is not None and (told := ProgressDocument.model_validate_json(answer)).step:
            return told
        time.sleep(0.01)
    raise AssertionError(f"no sample was made; exit code {process.poll()}")


def _samples(output: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in (output / "samples").glob("*/*.jsonl"))


@pytest.mark.slow
def test_processes_of_one_pod_share_the_work_and_another_attempt_only_tells_the_result_again(
    evaluate: Evaluate, start: Start, tmp_path: Path
) -> None:
    document = evaluate({"type": "generation"}, {"type": "ranking"}, processesPerWorker=2)
    assert start(document).wait(LONGEST_S) == ExitCode.SUCCEEDED
    result = last_words(tmp_path)
    files = sorted(path.name for path in (tmp_path / "out" / "samples").glob("*/*.jsonl"))
    assert files == sorted(2 * [f"{model}~{shard}.jsonl" for model in ("taught", "untaught") for shard in (0, 1)])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert result.evaluation is not None
    assert len(results["results"]) == len(result.evaluation.results())
    (tmp_path / "termination").unlink()
    begun = (tmp_path / "out" / "results.json").stat().st_mtime_ns
    assert start(document).wait(LONGEST_S) == ExitCode.SUCCEEDED
    assert last_words(tmp_path) == result
    assert (tmp_path / "out" / "results.json").stat().st_mtime_ns == begun


def test_a_document_that_is_missing_is_said_in_the_last_words(tmp_path: Path) -> None:
    log = {"ALIDADE_TERMINATION_LOG": str(tmp_path / "termination")}
    assert launch(log) == ExitCode.FAILED
    assert launch({**log, "ALIDADE_JOB": str(tmp_path / "none.json")}) == ExitCode.FAILED
    failure = last_words(tmp_path).failure
    assert failure is not None
    assert "none.json cannot be read: No such file or directory." in failure.message


GOOD = ResultDocument(outcome="succeeded", report_uri="pvc://w/out/report.html")
STOPPED = ResultDocument(outcome="terminated")
TOLD = ResultDocument(
    outcome="failed", failure=Failure(reason="DataEmpty", message="There is no record.", retryable=False)
)


@pytest.mark.parametrize(
    ("codes", "outcomes", "stop_requested", "code", "words"),
    [
        ([0, 0], [GOOD, GOOD], False, 0, "Done: pvc://w/out/report.html"),
        ([0], [ResultDocument(outcome="succeeded")], False, 0, "This worker's part is done."),
        ([143, 1], [STOPPED, TOLD], False, 1, "Failed (DataEmpty, exit code 1): There is no record."),
        ([143, -9], [STOPPED, None], False, 75, "Failed (Killed, exit code 75; another attempt may succeed): A proc"),
        ([-11, 143], [None, STOPPED], False, 75, "Failed (Crashed, exit code 75; another attempt may succeed): A"),
        ([143, -15], [STOPPED, None], True, 143, "Stopped on request; the next attempt goes on"),
    ],
)
def test_a_pod_ends_as_its_processes_did(
    codes: list[int], outcomes: list[ResultDocument | None], stop_requested: bool, code: int, words: str
) -> None:
    result = conclude(codes, outcomes, stop_requested=stop_requested)
    assert exit_code(result) == code
    assert summarize(result, code).startswith(words)


def test_several_processes_need_an_output_that_they_can_share(evaluate: Evaluate, monkeypatch: Any) -> None:
    from alidade_engine.failures import JobFailure
    from alidade_eval.progress import Progress
    from alidade_eval.sharing import Share
    from alidade_eval.worker import _evaluate

    document = evaluate({"type": "generation"}, workers=2).model_copy(update={"output": "s3://bucket/out"})
    with pytest.raises(JobFailure, match=r"spec.output.uri is s3://bucket/out; 2 processes share their samples"):
        _evaluate(document, Share(0, 2), Progress(), lambda: False)
