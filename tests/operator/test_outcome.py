"""How an ended attempt is read: (job, pods) -> reason, message, whether another attempt follows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from alidade_crds.contract import ResultDocument
from alidade_operator.reconcile.outcome import AttemptFailure, Undecided, outcome
from alidade_operator.resources.observation import PodView
from tests.operator.builders import NOW, ended_pod, failure, pod, success, training_job

EARLIER = NOW - timedelta(seconds=5)
TAINTED = "DeletionByTaintManager: Taint manager: deleting due to NoExecute taint"
STOPPED = ResultDocument(outcome="terminated", step=40)
LOST = failure("WorkerLost", retryable=True, message="Rank 1 is gone.")


ADVICE = "lower spec.training.microBatchSize"


def has_model(result: ResultDocument) -> bool:
    """What a training job is for."""
    return result.model is not None


def read(*pods: PodView, state: str = "failed", **values: Any) -> Any:
    """The outcome, long after the end."""
    return outcome(
        training_job(state=state, **values),
        pods,
        now=NOW + timedelta(minutes=5),
        has_result=has_model,
        saves_memory=ADVICE,
    )


@pytest.mark.parametrize(
    ("pods", "reason", "message", "retryable", "exit_code"),
    [
        ((ended_pod(exit_code=1, result=failure()),), "DataMalformed", "Line 2 is broken.", False, 1),
        (
            (ended_pod(exit_code=75, result=failure("DiskFull", retryable=True, message="No space.")),),
            "DiskFull",
            "No space.",
            True,
            75,
        ),
        ((ended_pod(exit_code=137),), "Killed", "Pod demo-1-master-0 was killed (SIGKILL).", True, 137),
        (
            (ended_pod(exit_code=143),),
            "Interrupted",
            "Pod demo-1-master-0 was stopped from outside (SIGTERM); the newest checkpoint counts.",
            True,
            143,
        ),
        (
            (ended_pod(exit_code=143, result=STOPPED),),
            "Interrupted",
            "Pod demo-1-master-0 was stopped from outside (SIGTERM); its work was saved at step 40.",
            True,
            143,
        ),
        (
            (ended_pod(exit_code=143, result=STOPPED.model_copy(update={"step": 0})),),
            "Interrupted",
            "Pod demo-1-master-0 was stopped from outside (SIGTERM); it had not begun to train, and the newest "
            "checkpoint counts.",
            True,
            143,
        ),
        (
            (ended_pod(exit_code=137, disruption=TAINTED),),
            "Interrupted",
            f"Pod demo-1-master-0 was taken away ({TAINTED}); its grace period was too short to save its work, and the "
            "newest checkpoint counts.",
            True,
            137,
        ),
        (
            (pod(phase="Failed", reason="NodeLost", disruption="DeletionByPodGC: the node is gone"),),
            "Interrupted",
            "Pod demo-1-master-0 was taken away (DeletionByPodGC: the node is gone).",
            True,
            None,
        ),
        (
            (ended_pod(exit_code=137, reason_text="OOMKilled"),),
            "OutOfMemory",
            "Pod demo-1-master-0 used more memory than its limit and was killed. "
            "Raise spec.compute.memory, or lower spec.training.microBatchSize.",
            True,
            137,
        ),
        (
            (ended_pod(exit_code=2),),
            "Crashed",
            "Pod demo-1-master-0 ended with exit code 2 and no message; see `kubectl logs demo-1-master-0`.",
            True,
            2,
        ),
        (
            (ended_pod(exit_code=1, message_text="Traceback ..."),),
            "Crashed",
            "Pod demo-1-master-0 ended with exit code 1 and no message; see `kubectl logs demo-1-master-0`.",
            True,
            1,
        ),
        (
            (pod(phase="Failed", reason="Evicted", message="Evicted: The node was low on memory."),),
            "Evicted",
            "Pod demo-1-master-0 was lost: Evicted: The node was low on memory.",
            True,
            None,
        ),
        (
            (pod(phase="Failed", reason="NodeLost"),),
            "WorkerLost",
            "Pod demo-1-master-0 was lost: NodeLost",
            True,
            None,
        ),
        ((), "Interrupted", "Its pods were taken away from outside: no message", True, None),
    ],
)
def test_a_failed_attempt_is_explained(
    pods: tuple[PodView, ...], reason: str, message: str, retryable: bool, exit_code: int | None
) -> None:
    found = read(*pods)
    assert isinstance(found, AttemptFailure)
    assert (found.reason, found.message, found.retryable, found.exit_code) == (reason, message, retryable, exit_code)


def test_a_job_that_never_had_a_pod_has_lost_none() -> None:
    found = read(had_pods=False)
    assert (found.reason, found.interrupted) == ("WorkerLost", False)
    assert found.message == "The training job failed and left no word why: no message"


@pytest.mark.parametrize(
    ("pods", "interrupted"),
    [
        ((ended_pod(exit_code=143),), True),
        ((ended_pod(exit_code=75, result=LOST, disruption=TAINTED),), True),
        # Peers that lost the pod end before it has saved its work.
        (
            (
                ended_pod(exit_code=75, result=LOST, finished_at=EARLIER),
                ended_pod(worker=0, exit_code=137, disruption=TAINTED),
            ),
            True,
        ),
        # Who used up the memory of a node is evicted by its kubelet, and that is the job's own doing.
        ((ended_pod(exit_code=143, reason="Evicted"),), False),
        ((ended_pod(exit_code=137),), False),
        ((ended_pod(exit_code=137, reason_text="OOMKilled", disruption=TAINTED),), False),
        ((ended_pod(exit_code=1, result=failure(), disruption=TAINTED),), False),
        # Once one has failed the training operator stops the others: their SIGTERM is an echo.
        ((ended_pod(exit_code=2, finished_at=EARLIER), ended_pod(worker=0, exit_code=143)), False),
    ],
)
def test_only_what_was_taken_away_from_outside_is_an_interruption(pods: tuple[PodView, ...], interrupted: bool) -> None:
    found = read(*pods)
    assert isinstance(found, AttemptFailure)
    assert found.interrupted is interrupted
    assert (found.reason == "Interrupted") is interrupted


def test_what_the_user_must_mend_explains_the_failures_around_it() -> None:
    echo = ended_pod(worker=0, exit_code=137, finished_at=EARLIER)
    assert read(echo, ended_pod(exit_code=1, result=failure())).reason == "DataMalformed"


def test_the_first_failure_is_the_cause_and_the_others_its_echo() -> None:
    first = ended_pod(worker=0, exit_code=137, finished_at=EARLIER)
    echo = ended_pod(exit_code=75, result=failure("WorkerLost", retryable=True, message="Rank 1 is gone."))
    assert read(echo, first).reason == "Killed"
    assert read(echo, first).at == EARLIER


def test_a_worker_that_ended_well_is_no_failure() -> None:
    assert read(ended_pod(worker=0), ended_pod(exit_code=137)).reason == "Killed"


def test_a_success_needs_its_result() -> None:
    assert read(ended_pod(result=success()), state="succeeded") == success()
    for pods in ((), (ended_pod(message_text="{}"),), (ended_pod(result=success(model=None)),)):
        lost = read(*pods, state="succeeded")
        assert isinstance(lost, AttemptFailure)
        assert (lost.reason, lost.retryable) == ("ResultLost", True)


def test_a_result_of_another_version_is_not_guessed_at() -> None:
    text = success().to_termination_message().replace("result/v1", "result/v9")
    assert read(ended_pod(message_text=text), state="succeeded").reason == "ResultLost"


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_the_end_of_the_job_waits_a_while_for_the_end_of_its_pods(state: str) -> None:
    ended = training_job(state=state)
    assert isinstance(
        outcome(ended, (pod(),), now=NOW + timedelta(seconds=19), has_result=has_model, saves_memory=ADVICE), Undecided
    )
    assert isinstance(
        outcome(ended, (pod(),), now=NOW + timedelta(seconds=20), has_result=has_model, saves_memory=ADVICE),
        AttemptFailure,
    )


def test_a_metric_that_is_no_number_does_not_lose_the_result() -> None:
    found = read(ended_pod(result=success(metrics={"loss": float("nan"), "steps": 3.0})), state="succeeded")
    assert found.metrics["steps"] == 3.0
