"""Tiny jobs and processes to run them in.

A job runs in children forked from the test's process, which has torch and deepspeed loaded already: a run takes a
second instead of ten. tests/trainer/test_launcher.py starts real commands.
"""

import ctypes
import json
import multiprocessing
import os
import re
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from alidade_crds.blocks import ModelInit
from alidade_crds.contract import ResultDocument
from alidade_trainer.outcomes import Outcome, read_outcomes
from tests.ports import free_port
from tests.trainer.blocks import merged

# Questions with one-word answers: a model of 20,000 weights begins to learn them within a few steps.
WORDS = ["red", "green", "blue", "seven", "eleven", "Oslo", "Lima", "Bern", "tin", "gold", "fox", "owl"]
LONGEST_RUN_S = 60
PR_SET_PDEATHSIG = 1


@pytest.fixture(scope="session", autouse=True)
def single_thread() -> None:
    """Keeps torch to one thread: a pool of them does not survive a fork, and its first use in a child would hang."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with training and held-out records, and a tiny base model."""
    folder = tmp_path_factory.mktemp("workplace")
    for name, count in (("train", 48), ("heldout", 9)):
        records = [
            {"input": f"What is number {number} of {name} after {'so ' * (number % 7)}long?", "output": answer}
            for number in range(count)
            for answer in [f"{WORDS[number % len(WORDS)]} {WORDS[number * 5 % len(WORDS)]}"]
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    _write_base_model(folder / "base", folder / "train.jsonl")
    return folder


def _write_base_model(folder: Path, records: Path) -> None:
    import torch

    from alidade_engine.models import init_model, train_tokenizer

    texts = [text for line in records.read_text().splitlines() for text in json.loads(line).values()]
    tokenizer = train_tokenizer(texts, 300, model_max_length=128)
    torch.manual_seed(7)
    init = ModelInit(hidden_size=32, layers=2, heads=2, kv_heads=1, vocab_size=300, context_length=128)
    init_model(init, tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def make_job(workplace: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a job document; takes what differs from the usual one, and the name of its output folder."""

    def make(over: dict[str, Any] | None = None, *, output: str = "out") -> Path:
        job = {
            "version": "alidade.dev/job/v1",
            "owner": {"kind": "FineTuneJob", "namespace": "team", "name": "tiny", "uid": "0123"},
            "stage": "sft",
            "model": {"uri": f"file://{workplace}/base"},
            "dataset": {
                "uri": f"file://{workplace}/train.jsonl",
                "maxLength": 96,
                "packing": False,
                "validation": {"uri": f"file://{workplace}/heldout.jsonl"},
            },
            "training": {
                "maxSteps": 6,
                "learningRate": 0.01,
                "globalBatchSize": 8,
                "microBatchSize": 4,
                "precision": "fp32",
                "gradientCheckpointing": False,
                "evaluateEverySteps": 3,
                "seed": 3,
            },
            "deepspeed": {"zeroStage": 2},
            "checkpoint": {"everySteps": 2, "keep": 2},
            "output": f"file://{tmp_path / output}",
        }
        path = tmp_path / f"{output}.json"
        path.write_text(json.dumps(merged(job, over or {})))
        return path

    return make


@dataclass(frozen=True)
class Run:
    """What a run left."""

    output: Path
    outcomes: list[Outcome]
    exit_codes: list[int | None]

    @property
    def result(self) -> ResultDocument:
        """What the first process said."""
        return next(outcome.result for outcome in self.outcomes if outcome.rank == 0)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """metrics.jsonl without what depends on the clock."""
        timed = ("seconds", "tokens_per_second")
        lines = [json.loads(line) for line in (self.output / "metrics.jsonl").read_text().splitlines()]
        return [{name: value for name, value in line.items() if name not in timed} for line in lines]

    @property
    def losses(self) -> list[float]:
        """Training loss of each step."""
        return [line["loss"] for line in self.lines if "loss" in line]


METRICS_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "result-metrics.md"


@pytest.fixture
def documented() -> Callable[[dict[str, float]], None]:
    """Fails for a metric of a result that docs/reference/result-metrics.md does not explain."""
    known = set(re.findall(r"^\| `([\w.]+)`", METRICS_PAGE.read_text(), re.MULTILINE))

    def check(metrics: dict[str, float]) -> None:
        plain = {re.sub(r"^\d+-(raft|ppo|dpo)\.|AtStart$", "", name) for name in metrics}
        plain = {re.sub(r"^accuracyByStrength\..*", "accuracyByStrength.S", name) for name in plain}
        plain = {re.sub(r"^(train|eval)_loss\..*", r"\1_loss.DATASET", name) for name in plain}
        plain = {re.sub(r"^perplexityAt\d+$", "perplexityAtLENGTH", name) for name in plain}
        assert plain <= known, plain - known

    return check


def in_child(work: Callable[..., Any], *arguments: Any) -> Any:
    """The result of work, done in a forked process: once torch has run backward here, no fork could do so again."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=lambda: sender.send(work(*arguments)))
    child.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        child.join()


@pytest.fixture
def run_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Run]]:
    """Runs a job document in processes of its own; `prepare` is called in each of them first, with its rank."""
    import alidade_trainer.training  # noqa: F401  # loaded once here, inherited by every child

    fork = multiprocessing.get_context("fork")
    started: list[multiprocessing.process.BaseProcess] = []
    for name, value in {"ALIDADE_SCRATCH": tmp_path / "scratch", "OMP_NUM_THREADS": 1, "DS_ACCELERATOR": "cpu"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    monkeypatch.delenv("ALIDADE_PORT", raising=False)

    def run(job: Path, *, processes: int = 1, prepare: Callable[[int], None] | None = None) -> Run:
        run_folder = tmp_path / f"run-{len(started)}"
        run_folder.mkdir()
        port = free_port()
        children = [
            fork.Process(target=_work, args=(rank, processes, port, job, run_folder, prepare))
            for rank in range(processes)
        ]
        started.extend(children)
        for child in children:
            child.start()
        for child in children:
            child.join(LONGEST_RUN_S)
            if child.is_alive():
                child.kill()
                child.join()
        output = Path(json.loads(job.read_text())["output"].removeprefix("file://"))
        return Run(output, read_outcomes(run_folder), [child.exitcode for child in children])

    yield run
    for child in started:
        if child.is_alive():
            child.kill()
        child.join()


def _work(
    rank: int, processes: int, port: int, job: Path, run_folder: Path, prepare: Callable[[int], None] | None
) -> None:
    import torch

    from alidade_trainer.worker import main

    # After a fork torch makes its pool anew at the first call; the threads that load a model would race for it.
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ALIDADE_JOB": str(job),
        "ALIDADE_RUN_FOLDER": str(run_folder),
    }
    # A test run that is killed must not leave its children behind.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    warnings.simplefilter("ignore")  # as the launcher tells real training processes
    if prepare is not None:
        prepare(rank)
    os._exit(main())  # without the test runner's own endings


def kill_after_step(step: int, *, rank: int = 0) -> Callable[[int], None]:
    """For `prepare`: a process that dies as by a power cut when so many steps are recorded."""

    def prepare(own_rank: int) -> None:
        from alidade_trainer.training import TrainingRun

        if own_rank != rank:
            return
        record = TrainingRun._record

        def record_and_die(self: Any, metrics: Any) -> None:
            record(self, metrics)
            if metrics.step == step:
                os.kill(os.getpid(), signal.SIGKILL)

        TrainingRun._record = record_and_die  # type: ignore[method-assign]

    return prepare
