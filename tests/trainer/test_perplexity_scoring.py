"""Records filtered by perplexity in whole runs: scored by all processes, once for all attempts."""

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alidade_trainer.failures import JobFailure
from alidade_trainer.jobs import read_job
from alidade_trainer.starting import refuse_unknown
from tests.trainer.conftest import kill_after_step

Make = Callable[..., Path]
RECORDS = 48  # of the usual job, each of 40 tokens or more
MOST_IN_A_BATCH = 7
FILTERED = {"dataset": {"filters": {"perplexity": {"maximumQuantile": 0.75}}}, "training": {"maxSteps": 4}}


def die_after_a_batch_each(rank: int) -> None:
    """The first process dies as by a power cut when what all have scored in the first round is written."""
    from alidade_trainer import perplexity_scoring

    write = perplexity_scoring._write

    def write_and_die(*arguments: Any) -> None:
        write(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    perplexity_scoring.ROUND_S = 0.0
    perplexity_scoring.PLACES_AT_ONCE["cpu"] = 40 * MOST_IN_A_BATCH
    if rank == 0:
        perplexity_scoring._write = write_and_die


def score_nothing(_rank: int) -> None:
    from alidade_trainer import perplexity_scoring

    def refuse(*_: Any) -> None:
        raise AssertionError("a record is scored again")

    perplexity_scoring.batch_losses = refuse  # type: ignore[assignment]


def test_records_are_scored_once_by_all_processes_for_all_attempts(
    make_job: Make, run_job: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    job = make_job(FILTERED)
    assert run_job(job, processes=2, prepare=die_after_a_batch_each).exit_codes[0] == -signal.SIGKILL
    capfd.readouterr()
    assert run_job(job, prepare=kill_after_step(3)).exit_codes == [-signal.SIGKILL]
    [found] = re.findall(rf"Perplexity: (\d+) of {RECORDS} samples were scored by an earlier", capfd.readouterr().out)
    assert MOST_IN_A_BATCH < int(found) < RECORDS, "each of two processes has scored one"
    run = run_job(job, prepare=score_nothing)
    assert run.result.outcome == "succeeded", run.result.failure
    assert f"{RECORDS} of {RECORDS} samples were scored by an earlier attempt" in capfd.readouterr().out
    data = json.loads((run.output / "report.json").read_text())["data"]
    [source] = [source for source in data["sources"] if source["name"] == "train"]
    assert source["kept"] == data["train"]["samples"] == RECORDS * 3 // 4
    assert list(source["perplexity"].values()) == sorted(source["perplexity"].values())
    [said] = [warning for warning in run.result.warnings if "filters.perplexity.maximumQuantile 0.75" in warning]
    assert "12 of 48 records are left out" in said
    assert "perplexity of train" in (run.output / "report.html").read_text()


@pytest.mark.parametrize(
    "over",
    [
        {"model": {"uri": None, "init": {"hiddenSize": 16, "layers": 1, "heads": 1, "vocabSize": 300}}},
        {"context": {"length": 256, "scaling": "linear"}},
        {"stage": "reward"},
        {"vocabulary": {"extendWith": {"trainOnDataset": True, "size": 64}}},
    ],
)
def test_a_model_that_has_not_learned_as_it_is_cannot_be_asked(make_job: Make, over: dict[str, Any]) -> None:
    with pytest.raises(JobFailure, match=r"dataset.filters.perplexity is set; it asks a model that has learned"):
        refuse_unknown(read_job(make_job(FILTERED | over)))
