"""One result and one exit code from what happened in several processes."""

from pathlib import Path
from typing import Literal

import pytest

from alidade_crds.contract import TERMINATION_MESSAGE_LIMIT, Failure, ResultDocument, Stage
from alidade_trainer.faults import failure_of
from alidade_trainer.outcomes import (
    Outcome,
    conclude,
    count_memory_kills,
    read_outcomes,
    write_outcome,
    write_termination_message,
)


def ended(
    rank: int,
    outcome: Literal["succeeded", "failed", "terminated"],
    reason: str = "",
    *,
    retryable: bool = False,
    at: float = 0.0,
) -> Outcome:
    failure = Failure(reason=reason, message="why", retryable=retryable) if reason else None
    return Outcome(rank, at, ResultDocument(outcome=outcome, failure=failure, step=rank))


SUCCESS = ended(0, "succeeded")
LOST = ended(0, "failed", "WorkerLost", retryable=True, at=1.0)
FULL = ended(1, "failed", "DiskFull", at=2.0)
CRASH = ended(2, "failed", "Crashed", retryable=True, at=3.0)


@pytest.mark.parametrize(
    ("outcomes", "exit_code", "expected"),
    [
        ([SUCCESS], 0, ("succeeded", None, 0)),
        ([SUCCESS, ended(1, "succeeded")], 0, ("succeeded", None, 0)),
        ([LOST, FULL], 1, ("failed", "DiskFull", 1)),  # the cause, though it was noticed later
        ([LOST, CRASH, FULL], 1, ("failed", "DiskFull", 1)),  # of two causes the first
        ([LOST], 1, ("failed", "WorkerLost", 75)),
        ([SUCCESS, CRASH], 1, ("failed", "Crashed", 75)),
        ([ended(0, "terminated"), LOST], 1, ("terminated", None, 143)),
        ([ended(0, "terminated"), ended(1, "terminated")], 0, ("terminated", None, 143)),
        ([], -9, ("failed", "Killed", 75)),
        ([], -11, ("failed", "Crashed", 75)),
        ([], 3, ("failed", "Crashed", 75)),
    ],
)
def test_a_cause_wins_over_its_consequences_and_a_failure_over_success(
    outcomes: list[Outcome], exit_code: int, expected: tuple[str, str | None, int]
) -> None:
    result, code = conclude(outcomes, exit_code=exit_code)

    assert (result.outcome, result.failure.reason if result.failure else None, code) == expected


def test_a_kill_for_want_of_memory_is_final_and_names_the_knobs() -> None:
    result, code = conclude([], exit_code=-9, out_of_memory=True)

    assert code == 1
    assert result.failure is not None
    assert result.failure.reason == "OutOfMemory"
    for knob in ("microBatchSize", "gradientCheckpointing", "zeroStage", "offload", "lora"):
        assert knob in result.failure.message


def test_an_alignment_that_runs_out_of_memory_names_its_own_knobs() -> None:
    killed, _ = conclude([], exit_code=-9, out_of_memory=True, stage=Stage.ALIGN)
    raised = failure_of(MemoryError(), Stage.ALIGN)

    assert killed.failure is not None
    for message in (killed.failure.message, raised.message):
        for knob in (
            "generation.maxNewTokens",
            "ppo.rolloutBatchSize",
            "raft.promptsPerIteration",
            "training.microBatchSize",
            "adapter.type lora",
            "deepspeed.zeroStage 3",
        ):
            assert knob in message
        assert "dataset.maxLength" not in message


def test_a_kill_of_some_other_process_does_not_undo_success() -> None:
    assert conclude([SUCCESS], exit_code=0, out_of_memory=True)[1] == 0


def test_a_process_that_dies_while_it_is_asked_to_stop_has_stopped() -> None:
    result, code = conclude([], exit_code=-15, stop_requested=True)

    assert (result.outcome, result.step, code) == ("terminated", 0, 143)


def test_outcomes_are_read_back_in_order_of_rank(tmp_path: Path) -> None:
    write_outcome(tmp_path, 1, FULL.result)
    write_outcome(tmp_path, 0, LOST.result)

    found = read_outcomes(tmp_path)

    assert [outcome.rank for outcome in found] == [0, 1]
    assert [outcome.result for outcome in found] == [LOST.result, FULL.result]


def test_the_termination_message_is_written_in_place_and_within_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    path.write_text("older and longer " * 1000)
    inode = path.stat().st_ino

    write_termination_message(path, ResultDocument(outcome="succeeded", warnings=["long " * 2000]))

    assert path.stat().st_ino == inode
    assert len(path.read_bytes()) <= TERMINATION_MESSAGE_LIMIT
    assert ResultDocument.model_validate_json(path.read_text()).outcome == "succeeded"


def test_kills_for_want_of_memory_are_read_from_the_cgroup(tmp_path: Path) -> None:
    assert count_memory_kills(tmp_path) == 0

    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\n")

    assert count_memory_kills(tmp_path) == 2
