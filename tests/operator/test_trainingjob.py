"""Rules about a FineTuneJob from its launch to its end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from alidade_crds.contract import ProgressDocument, ResultDocument
from alidade_crds.status import ChildRef, FailureInfo, JobStatus
from alidade_operator.api import FINE_TUNE_JOB
from alidade_operator.reconcile.plan import Plan, ProgressTarget, TrainingJob
from alidade_operator.resources.observation import Observed, PodView, QueueView
from tests.operator.builders import (
    CONFIG,
    NOW,
    after,
    condition,
    created,
    deleted,
    ended_pod,
    failure,
    job,
    observed,
    plan,
    pod,
    success,
    training_job,
)


def launched(**blocks: Any) -> TrainingJob:
    """A FineTuneJob whose first attempt has been launched."""
    fresh = job(**blocks)
    return after(fresh, plan(fresh, observed()))


def seen(*jobs: Any, pods: tuple[Any, ...] = (), **values: Any) -> Observed:
    """PyTorchJobs and pods of a job whose document is there."""
    return observed(jobs=jobs, pods=pods, document_exists=True, **values)


def progress(step: int, **values: Any) -> ProgressDocument:
    """A progress document."""
    return ProgressDocument(state="training", step=step, total_steps=40, epoch=0.5, loss=2.0, updated_at=NOW, **values)


def test_a_new_job_gets_its_document_and_its_first_attempt_in_one_go() -> None:
    made = plan(job(), observed())
    assert created(made) == ["ConfigMap/demo-job", "PyTorchJob/demo-1"]
    assert made.status is not None
    assert made.status.attempts == 1
    assert made.status.phase == "Starting"
    assert made.status.job_ref == ChildRef(kind="PyTorchJob", name="demo-1")
    assert [item.type for item in made.status.conditions] == [
        "Accepted", "Fits", "Launched", "Succeeded", "Failed", "Suspended", "Reconciling",
    ]  # fmt: skip
    assert condition(made, "Launched") == ("True", "JobCreated", "PyTorchJob demo-1 was created.")
    assert [notice.reason for notice in made.notices] == ["JobCreated"]
    assert [(item.action, item.why) for item in made.decisions] == [("launch", "demo-1: the spec is accepted")]


def test_a_job_that_is_being_deleted_is_left_to_the_garbage_collector() -> None:
    assert plan(replace(job(), terminating=True), observed()) == Plan()


def test_a_launched_job_changes_nothing_until_something_happens() -> None:
    assert plan(launched(), seen(training_job(state="waiting"))) == Plan()


def test_a_document_that_is_deleted_before_a_pod_has_read_it_is_made_again() -> None:
    pods = (pod(phase="Pending", started_at=None, ip=None, ready_to_report=False),)
    waiting = observed(jobs=(training_job(state="waiting"),), pods=pods)
    first, again = plan(job(), observed()), plan(launched(), waiting)
    assert again.children == first.children[:1]
    assert created(again) == ["ConfigMap/demo-job"]
    assert created(plan(launched(), replace(waiting, document_foreign=True))) == []
    assert created(plan(launched(), observed(jobs=(training_job(),), pods=(pod(),)))) == [], "it has been read"


def test_a_running_job_is_asked_for_progress_and_says_that_it_runs() -> None:
    made = plan(launched(), seen(training_job(), pods=(pod(),)))
    assert condition(made, "Launched") == ("True", "Running", "PyTorchJob demo-1 is running.")
    assert made.progress == ProgressTarget("pod-1-None", "10.0.0.7")
    assert made.status is not None
    assert made.status.started_at == NOW - timedelta(minutes=1)
    assert made.status.phase == "Running"


def test_the_dates_of_conditions_change_only_when_their_status_flips() -> None:
    later = NOW + timedelta(hours=1)
    running = plan(launched(), seen(training_job(), pods=(pod(),)), now=later)
    assert running.status is not None
    dates = {item.type: item.last_transition_time for item in running.status.conditions}
    assert dates == dict.fromkeys(dates, NOW), "Launched was True before"
    resource = after(launched(), running)
    ended = plan(resource, seen(training_job(state="succeeded"), pods=(ended_pod(result=success()),)), now=later)
    assert ended.status is not None
    changed = {item.type for item in ended.status.conditions if item.last_transition_time == later}
    assert changed == {"Succeeded"}


def test_conditions_follow_the_generation_that_was_looked_at() -> None:
    resource = replace(launched(), generation=7)
    made = plan(resource, seen(training_job(state="waiting")))
    assert made.status is not None
    assert made.status.observed_generation == 7
    assert {item.observed_generation for item in made.status.conditions} == {7}


def test_pods_that_cannot_run_are_explained() -> None:
    trouble = "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    waiting = pod(phase="Pending", message=trouble, ip=None, ready_to_report=False, started_at=None)
    made = plan(launched(), seen(training_job(state="waiting"), pods=(waiting,)))
    assert condition(made, "Launched") == (
        "True",
        "PodsPending",
        f"PyTorchJob demo-1 has pods that cannot run. Pod demo-1-master-0: {trouble}",
    )
    assert made.status is not None
    assert made.status.phase == "Pending"
    assert [notice.type for notice in made.notices] == ["Warning"]


ELASTIC = {"compute": {"workers": 4}, "training": {"globalBatchSize": 8}, "elastic": {"minWorkers": 1}}
"""Four workers, of which two or one may go on."""


def with_room_for(count: int, attempt: int = 1) -> tuple[PodView, ...]:
    """The pods of four workers, of which so many have found a node."""
    pods = (pod(attempt), *(pod(attempt, worker=index) for index in range(3)))
    waiting = {"phase": "Pending", "node": None, "ip": None, "ready_to_report": False, "started_at": None}
    return tuple(one if index < count else replace(one, **waiting) for index, one in enumerate(pods))


def elastic(**status: Any) -> TrainingJob:
    return replace(job(**ELASTIC), status=launched().status.model_copy(update=status))


@pytest.mark.parametrize(("room", "workers"), [(3, 2), (2, 2), (1, 1), (0, None), (4, None)])
def test_fewer_workers_go_on_where_there_is_no_room_for_all(room: int, workers: int | None) -> None:
    seen_then = seen(training_job(), pods=with_room_for(room))

    patient = plan(elastic(), seen_then, now=NOW + timedelta(seconds=230))
    over = plan(elastic(), seen_then, now=NOW + timedelta(seconds=240))  # the attempt was a minute old

    assert deleted(patient) == []
    assert (patient.look_again_s == pytest.approx(10)) == (workers is not None)
    assert deleted(over) == (["PyTorchJob/demo-1"] if workers else [])
    if workers:
        assert over.status is not None
        assert over.status.workers == workers
        assert condition(over, "Launched")[1:] == (
            "FewerWorkers",
            f"PyTorchJob demo-1 has no room for all of its 4 workers and goes on with {workers} (spec.elastic). The "
            "next attempt tries all again.",
        )
        assert [(notice.type, notice.reason) for notice in over.notices] == [("Warning", "FewerWorkers")]


def test_a_job_whose_master_runs_says_what_its_workers_wait_for_and_until_when() -> None:
    full = "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    pods = tuple(one if one.node else replace(one, message=full) for one in with_room_for(3))
    made = plan(elastic(), seen(training_job(), pods=pods))
    assert condition(made, "Launched") == (
        "True",
        "PodsPending",
        f"PyTorchJob demo-1 has pods that cannot run. Pod demo-1-worker-2: {full} Without room by "
        "2026-11-21T12:04:00Z 2 of 4 workers go on (spec.elastic).",
    )
    assert made.progress is not None, "its master can be asked"


def test_the_attempt_of_fewer_workers_is_the_same_attempt_and_the_next_one_tries_all() -> None:
    relaunched = plan(elastic(workers=2), seen())
    assert created(relaunched)[-1] == "PyTorchJob/demo-1"
    specs = relaunched.children[-1].body["spec"]["pytorchReplicaSpecs"]
    assert specs["Worker"]["replicas"] == 1  # beside the master

    whole = seen(training_job(), pods=with_room_for(2)[:2])
    running = plan(elastic(workers=2), whole, now=NOW + timedelta(hours=1))
    assert deleted(running) == []
    assert condition(running, "Launched") == (
        "True",
        "Running",
        "PyTorchJob demo-1 is running with 2 of 4 workers (spec.elastic).",
    )

    lost = seen(
        training_job(state="failed"), pods=(ended_pod(exit_code=75, result=failure("WorkerLost", retryable=True)),)
    )
    ended = plan(elastic(workers=2), lost)
    assert ended.status is not None
    assert ended.status.workers is None


def test_without_elastic_an_attempt_waits_for_all_its_workers() -> None:
    resource = replace(job(**(ELASTIC | {"elastic": None})), status=launched().status)
    made = plan(resource, seen(training_job(), pods=with_room_for(3)), now=NOW + timedelta(hours=1))
    assert deleted(made) == []


def test_a_missing_image_is_explained_with_where_to_set_it() -> None:
    waiting = pod(phase="Pending", message="ImagePullBackOff: no such image", image_missing=True, ready_to_report=False)
    made = plan(launched(), seen(training_job(state="waiting"), pods=(waiting,)))
    assert condition(made, "Launched")[2] == (
        "PyTorchJob demo-1 has pods that cannot run. Pod demo-1-master-0: ImagePullBackOff: no such image. "
        "Check spec.compute.image, or the operator's trainerImage and imagePullSecrets."
    )


def test_progress_is_written_when_it_is_new_and_old_progress_is_old_enough() -> None:
    running = seen(training_job(), pods=(pod(),))
    resource = after(launched(), plan(launched(), running))
    first = plan(resource, replace(running, progress=progress(1, eta_s=61)))
    assert first.status is not None
    assert first.status.progress is not None
    assert (first.status.progress.step, first.status.progress.eta) == (1, "1m")
    assert not first.decisions, "progress is no decision"
    assert not first.notices
    resource = after(resource, first)

    assert plan(resource, replace(running, progress=progress(1, eta_s=61)), now=NOW + timedelta(hours=1)).status is None
    soon = plan(resource, replace(running, progress=progress(2)), now=NOW + timedelta(seconds=2))
    assert soon.status is None
    assert soon.look_again_s == CONFIG.status_interval_s - 2
    later = plan(resource, replace(running, progress=progress(2)), now=NOW + timedelta(seconds=5))
    assert later.status is not None
    assert later.status.progress is not None
    assert later.status.progress.step == 2


def test_a_rewind_is_told_once_and_at_once() -> None:
    running = seen(training_job(), pods=(pod(),))
    resource = after(launched(), plan(launched(), running))
    resource = after(resource, plan(resource, replace(running, progress=progress(57))))
    document = progress(50, rewinds=1, last_rewind="The loss of step 57 is nan.")
    soon = plan(resource, replace(running, progress=document), now=NOW + timedelta(seconds=1))
    assert [(one.type, one.reason, one.message) for one in soon.notices] == [
        ("Warning", "LossSpike", "The loss of step 57 is nan.")
    ]
    assert soon.status is not None
    assert soon.status.progress is not None
    assert (soon.status.progress.step, soon.status.progress.rewinds) == (50, 1)
    resource = after(resource, soon)
    later = progress(51, rewinds=1, last_rewind="The loss of step 57 is nan.")
    assert not plan(resource, replace(running, progress=later), now=NOW + timedelta(minutes=1)).notices


def test_a_tracker_that_is_away_is_told_once_and_at_once_and_again_when_it_goes_again() -> None:
    running = seen(training_job(), pods=(pod(),))
    resource = after(launched(), plan(launched(), running))
    told = []
    for step, warning in enumerate((None, "MLflow is away.", "MLflow is away.", None, "It is away again."), start=1):
        document = progress(step, tracking_warning=warning)
        found = plan(resource, replace(running, progress=document), now=NOW + timedelta(minutes=step))
        told.append([(one.type, one.reason, one.message) for one in found.notices])
        assert found.status is not None
        assert found.status.progress is not None
        assert found.status.progress.tracking_warning == warning
        resource = after(resource, found)
    away, again = (("Warning", "TrackingFailed", said) for said in ("MLflow is away.", "It is away again."))
    assert told == [[], [away], [], [], [again]]


def test_numbers_that_are_none_are_left_out_of_progress() -> None:
    running = seen(training_job(), pods=(pod(),), progress=progress(1).model_copy(update={"loss": float("nan")}))
    made = plan(launched(), running)
    assert made.status is not None
    assert made.status.progress is not None
    assert made.status.progress.loss is None


def test_a_job_that_succeeded_reports_its_model_and_is_not_launched_again() -> None:
    document = success(
        metrics={"train_loss": 0.5, "epochs": 3.33333, "tokens": 217344.0, "broken": float("inf")},
        report_uri="pvc://w/r.html",
        warnings=["2 records"],
    )
    made = plan(launched(), seen(training_job(state="succeeded"), pods=(ended_pod(result=document),)))
    assert made.status is not None
    assert made.status.phase == "Succeeded"
    assert made.status.model == document.model
    assert made.status.metrics == {"train_loss": 0.5, "epochs": 3.333, "tokens": 217344.0}
    assert made.status.report_uri == "pvc://w/r.html"
    assert made.status.finished_at == NOW
    assert made.status.progress is not None
    last = made.status.progress
    assert (last.step, last.total_steps, last.epoch, last.loss) == (40, 40, 3.3333, 0.5)
    assert condition(made, "Succeeded")[:2] == ("True", "Completed")
    assert {notice.reason for notice in made.notices} == {"Completed"}
    assert {notice.reason for notice in made.remarks} == {"TrainingWarning"}

    resource = after(launched(), made)
    assert plan(resource, observed()) == Plan(), "even when its PyTorchJob has been deleted"
    assert plan(replace(resource, spec=None), observed()) == Plan()


def test_a_job_whose_pods_have_not_told_their_end_is_looked_at_again() -> None:
    made = plan(launched(), seen(training_job(state="succeeded"), pods=(pod(),)))
    assert made.look_again_s == 1.0
    assert made.status is None or made.status.phase == "Running"
    assert not made.children


def test_a_lost_result_is_asked_for_by_another_attempt() -> None:
    made = plan(launched(), seen(training_job(state="succeeded")), now=NOW + timedelta(minutes=1))
    assert made.status is not None
    assert made.status.phase == "Retrying"
    assert made.status.last_failure is not None
    assert made.status.last_failure.reason == "ResultLost"


def test_a_retryable_failure_is_tried_again_after_a_delay() -> None:
    lost = ended_pod(exit_code=75, result=failure("WorkerLost", retryable=True, message="Rank 1 is gone."))
    running = seen(training_job(state="failed"), pods=(lost,))
    made = plan(launched(), running)
    assert created(made) == []
    assert made.status is not None
    assert made.status.phase == "Retrying"
    assert made.status.last_failure == FailureInfo(
        attempt=1, reason="WorkerLost", message="Rank 1 is gone.", exit_code=75, at=NOW
    )
    assert condition(made, "Launched") == (
        "False",
        "Retrying",
        "Attempt 1 of 4 failed (WorkerLost): Rank 1 is gone. Attempt 2 starts at 2026-11-21T12:00:10Z.",
    )
    assert made.look_again_s == 10
    resource = after(launched(), made)
    assert plan(resource, running, now=NOW + timedelta(seconds=9)).children == ()
    again = plan(resource, running, now=NOW + timedelta(seconds=10))
    assert created(again) == ["PyTorchJob/demo-2"], "the document is the first attempt's"
    assert again.status is not None
    assert again.status.attempts == 2
    assert deleted(again) == [], "the newest failed one stays for its logs"


def test_a_failure_is_written_down_before_the_next_attempt_even_when_its_delay_is_long_over() -> None:
    lost = ended_pod(exit_code=137)
    running = seen(training_job(state="failed"), pods=(lost,))
    much_later = NOW + timedelta(hours=3)
    made = plan(launched(), running, now=much_later)
    assert created(made) == []
    assert made.look_again_s == 0
    assert created(plan(after(launched(), made), running, now=much_later)) == ["PyTorchJob/demo-2"]


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 10), (2, 20), (3, 40), (5, 160), (6, 300), (60, 300)])
def test_the_delay_doubles_up_to_five_minutes(attempt: int, seconds: float) -> None:
    info = FailureInfo(attempt=attempt, reason="Killed", message="", at=NOW)
    resource = job(backoffLimit=100, status=JobStatus(attempts=attempt, last_failure=info))
    early = plan(resource, seen(training_job(attempt, state="failed")), now=NOW + timedelta(seconds=seconds - 0.01))
    assert created(early) == []
    due = plan(resource, seen(training_job(attempt, state="failed")), now=NOW + timedelta(seconds=seconds))
    assert created(due) == [f"PyTorchJob/demo-{attempt + 1}"]


def test_only_the_newest_failed_attempt_stays() -> None:
    info = FailureInfo(attempt=3, reason="Killed", message="", at=NOW)
    resource = job(status=JobStatus(attempts=3, last_failure=info))
    killed = ended_pod(3, exit_code=137)
    jobs = tuple(training_job(number, state="failed") for number in (1, 2, 3))
    made = plan(resource, seen(*jobs, pods=(killed,)), now=NOW + timedelta(minutes=10))
    assert created(made) == ["PyTorchJob/demo-4"]
    assert deleted(made) == ["PyTorchJob/demo-1", "PyTorchJob/demo-2"]


def test_a_failure_that_the_user_must_mend_is_final() -> None:
    broken = ended_pod(exit_code=1, result=failure())
    made = plan(launched(), seen(training_job(state="failed"), pods=(broken,)))
    assert condition(made, "Failed") == ("True", "DataMalformed", "Line 2 is broken.")
    assert condition(made, "Succeeded") == ("False", "DataMalformed", "Line 2 is broken.")
    assert made.status is not None
    assert made.status.phase == "Failed"
    assert made.status.attempts == 1
    assert plan(after(launched(), made), observed()) == Plan()


def test_the_backoff_limit_ends_the_attempts() -> None:
    resource = launched(backoffLimit=1)
    resource = replace(resource, status=resource.status.model_copy(update={"attempts": 2}))
    killed = seen(training_job(1, state="failed"), training_job(2, state="failed"), pods=(ended_pod(2, exit_code=137),))
    assert condition(plan(resource, killed), "Failed") == (
        "True",
        "BackoffLimitExceeded",
        "All 2 attempts failed (spec.backoffLimit is 1); the last with Killed: "
        "Pod demo-2-master-0 was killed (SIGKILL).",
    )


def test_a_job_without_retries_fails_with_its_first_attempt() -> None:
    made = plan(launched(backoffLimit=0), seen(training_job(state="failed"), pods=(ended_pod(exit_code=137),)))
    assert condition(made, "Failed")[2].startswith("The only attempt failed (spec.backoffLimit is 0); the last with ")


def test_a_training_job_deleted_by_hand_is_launched_again_as_the_same_attempt() -> None:
    made = plan(launched(), seen())
    assert created(made) == ["PyTorchJob/demo-1"]
    assert made.status is None or made.status.attempts == 1
    assert made.decisions[0].why == "demo-1: attempt 1 has not ended, and its PyTorchJob is gone"


def test_a_document_deleted_by_hand_comes_back_with_the_next_launch() -> None:
    assert created(plan(launched(), observed())) == ["ConfigMap/demo-job", "PyTorchJob/demo-1"]


def test_the_newest_child_counts_when_the_status_lags_behind() -> None:
    resource = launched()
    made = plan(resource, seen(training_job(1, state="failed"), training_job(2, state="waiting")))
    assert created(made) == []
    assert made.status is not None
    assert made.status.attempts == 2
    assert made.status.job_ref == ChildRef(kind="PyTorchJob", name="demo-2")


def test_the_status_counts_when_the_child_is_gone() -> None:
    resource = job(status=JobStatus(attempts=3))
    assert created(plan(resource, observed(document_exists=True))) == ["PyTorchJob/demo-3"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"jobs": (training_job(owned=False),)},
            "PyTorchJob demo-1 belongs to an older resource, or to something else",
        ),
        ({"jobs": (training_job(terminating=True),)}, "PyTorchJob demo-1 is being deleted"),
        (
            {"document_foreign": True},
            "ConfigMap demo-job belongs to an older resource, or to something else; waiting for it to go.",
        ),
        ({"pods": (pod(),)}, "Pod demo-1-master-0 of an earlier launch is still running"),
    ],
)
def test_nothing_is_launched_beside_what_an_older_resource_left(values: dict[str, Any], sentence: str) -> None:
    made = plan(job(), observed(**values))
    assert created(made) == []
    assert sentence in condition(made, "Launched")[2]
    assert made.look_again_s is not None


def test_a_pod_on_a_node_that_is_gone_is_not_waited_for_without_end() -> None:
    lost = pod(deletion_deadline=NOW, phase="Running")
    assert created(plan(job(), observed(pods=(lost,)), now=NOW + timedelta(seconds=60))) == []
    assert created(plan(job(), observed(pods=(lost,)), now=NOW + timedelta(seconds=61))) != []


def test_a_suspended_job_gives_its_pods_back_and_resumes_as_the_same_attempt() -> None:
    resource = launched(suspend=True)
    stopped = plan(resource, seen(training_job(), pods=(pod(),)))
    assert deleted(stopped) == ["PyTorchJob/demo-1"]
    assert condition(stopped, "Suspended")[:2] == ("True", "SuspendedByUser")
    assert stopped.status is not None
    assert stopped.status.phase == "Suspended"
    assert stopped.status.active_seconds == 60

    resource = after(resource, stopped)
    going = plan(resource, seen(training_job(terminating=True), pods=(pod(),)))
    assert created(going) == []
    resource = after(resource, going)
    quiet = plan(resource, seen())
    assert created(quiet) == []
    assert quiet.look_again_s is None
    resumed_job = replace(after(resource, quiet), spec=launched().spec)
    still_ending = plan(resumed_job, seen(pods=(pod(),)))
    assert created(still_ending) == [], "its pod is saving a checkpoint"
    resumed = plan(resumed_job, seen())
    assert created(resumed) == ["PyTorchJob/demo-1"]
    assert condition(resumed, "Suspended")[:2] == ("False", "NotSuspended")
    assert resumed.status is not None
    assert resumed.status.last_failure is None


def test_a_job_created_suspended_is_checked_but_not_launched() -> None:
    made = plan(job(suspend=True), observed())
    assert created(made) == []
    assert condition(made, "Accepted")[0] == "True"
    assert condition(made, "Suspended")[0] == "True"


def test_a_job_that_ended_while_it_was_being_suspended_has_ended() -> None:
    made = plan(launched(suspend=True), seen(training_job(state="succeeded"), pods=(ended_pod(result=success()),)))
    assert condition(made, "Succeeded")[0] == "True"


def test_a_queue_that_has_not_admitted_the_job_suspends_it() -> None:
    queued = plan(job(compute={"queue": "team-a"}), observed())
    body = queued.children[1].body
    assert body["spec"]["runPolicy"]["suspend"] is True
    assert body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert condition(queued, "Suspended")[:2] == ("True", "SuspendedByQueue")
    resource = after(job(compute={"queue": "team-a"}), queued)
    waiting = training_job(state="suspended", active_since=None)
    assert queued.status is not None
    assert queued.status.phase == "Queued"
    assert plan(resource, seen(waiting)) == Plan(look_again_s=3)
    words = QueueView("WaitingForQuota", "insufficient quota for gpu in flavor a100.")
    said = plan(resource, seen(waiting, queue=words))
    assert condition(said, "Suspended") == (
        "True",
        "SuspendedByQueue",
        "Queue team-a has not admitted PyTorchJob demo-1: insufficient quota for gpu in flavor a100 (WaitingForQuota).",
    )
    assert said.look_again_s == 3
    much_later = plan(after(resource, said), seen(waiting), now=NOW + timedelta(hours=1))
    assert much_later.look_again_s == 60
    admitted = plan(resource, seen(training_job(state="waiting")))
    assert condition(admitted, "Suspended")[:2] == ("False", "NotSuspended")


def test_a_job_whose_quota_was_taken_back_waits_and_keeps_its_attempts() -> None:
    resource = launched(compute={"queue": "team-a"})
    evicted = training_job(state="suspended", active_since=None)
    made = plan(resource, seen(evicted, pods=(ended_pod(exit_code=143),), queue=QueueView("Preempted", "for team-b")))
    assert (created(made), deleted(made)) == ([], [])
    assert made.status is not None
    assert (made.status.phase, made.status.attempts, made.status.last_failure) == ("Queued", 1, None)
    assert condition(made, "Suspended")[2] == "Queue team-a has not admitted PyTorchJob demo-1: for team-b (Preempted)."
    back = plan(after(resource, made), seen(training_job(), pods=(pod(),)))
    assert (created(back), deleted(back)) == ([], [])
    assert condition(back, "Launched")[1] == "Running"


def interrupted(attempt: int = 1) -> PodView:
    """A pod that had saved its work when its node went."""
    stopped = ResultDocument(outcome="terminated", step=20)
    return ended_pod(attempt, exit_code=143, result=stopped, disruption="PreemptionByScheduler: for a system pod")


def test_an_interruption_is_tried_again_and_not_counted() -> None:
    resource = launched(backoffLimit=0)
    for attempt in range(1, 6):
        failed = seen(training_job(attempt, state="failed"), pods=(interrupted(attempt),))
        made = plan(resource, failed)
        assert made.status is not None
        assert (made.status.phase, made.status.interruptions) == ("Retrying", attempt)
        assert made.status.last_failure is not None
        assert (made.status.last_failure.reason, made.status.last_failure.interrupted) == ("Interrupted", True)
        assert condition(made, "Launched")[2] == (
            f"Attempt {attempt} was interrupted: Pod demo-{attempt}-master-0 was taken away (PreemptionByScheduler: "
            f"for a system pod); its work was saved at step 20. Attempt {attempt + 1} starts at 2026-11-21T12:00:10Z."
        )
        assert made.look_again_s == 10, "it waits no longer for having happened often"
        resource = after(resource, made)
        again = plan(resource, failed, now=NOW + timedelta(seconds=10))
        assert created(again) == [f"PyTorchJob/demo-{attempt + 1}"]
        resource = after(resource, again)
    killed = seen(training_job(6, state="failed"), pods=(ended_pod(6, exit_code=137),))
    assert condition(plan(resource, killed), "Failed") == (
        "True",
        "BackoffLimitExceeded",
        "The only attempt failed (spec.backoffLimit is 0); the last with Killed: "
        "Pod demo-6-master-0 was killed (SIGKILL).",
    )


def test_interruptions_leave_the_count_of_failures_as_it_is() -> None:
    resource = launched(backoffLimit=2)
    known = resource.status.model_copy(update={"attempts": 4, "interruptions": 2})
    killed = seen(training_job(4, state="failed"), pods=(ended_pod(4, exit_code=137),))
    made = plan(replace(resource, status=known), killed)
    assert made.status is not None
    assert made.status.interruptions == 2
    assert condition(made, "Launched")[2].startswith("Attempt 4 of 5 failed (Killed)")
    assert made.look_again_s == 20, "the second failure"


def test_what_a_pod_said_before_it_was_gone_explains_the_end_of_its_peers() -> None:
    resource = launched(compute={"workers": 2}, backoffLimit=0)
    going = pod(worker=0, disruption="DeletionByTaintManager: no execute")
    told = plan(resource, seen(training_job(), pods=(pod(), going)))
    assert condition(told, "Launched") == (
        "True", "Interrupted", "Pod demo-1-worker-0 is taken away (DeletionByTaintManager: no execute).",
    )  # fmt: skip
    assert [notice.reason for notice in told.notices] == ["Interrupted"]
    resource = after(resource, told)
    gone = plan(resource, seen(training_job(), pods=(pod(),)))
    assert gone.status is None, "it is not whole again"
    echo = ended_pod(exit_code=75, result=failure("WorkerLost", retryable=True, message="Rank 1 is gone."))
    made = plan(resource, seen(training_job(state="failed"), pods=(echo,)))
    assert made.status is not None
    assert (made.status.phase, made.status.interruptions) == ("Retrying", 1)
    assert made.status.last_failure is not None
    assert made.status.last_failure.message == (
        "Pod demo-1-worker-0 is taken away (DeletionByTaintManager: no execute). Then: Rank 1 is gone."
    )


def test_a_job_that_is_whole_again_runs_as_before() -> None:
    resource = launched()
    told = plan(resource, seen(training_job(), pods=(pod(disruption="EvictionByEvictionAPI: drained"),)))
    resource = after(resource, told)
    whole = plan(resource, seen(training_job(), pods=(pod(),)))
    assert condition(whole, "Launched")[1] == "Running"
    resource = replace(after(resource, whole), spec=launched(backoffLimit=0).spec)
    killed = seen(training_job(state="failed"), pods=(ended_pod(exit_code=137),))
    assert condition(plan(resource, killed), "Failed")[1] == "BackoffLimitExceeded"


def test_a_deadline_stops_the_job() -> None:
    resource = launched(activeDeadlineSeconds=90)
    early = plan(resource, seen(training_job(), pods=(pod(),)))
    assert early.look_again_s == 30
    made = plan(resource, seen(training_job(), pods=(pod(),)), now=NOW + timedelta(seconds=30))
    assert deleted(made) == ["PyTorchJob/demo-1"]
    assert condition(made, "Failed") == (
        "True",
        "DeadlineExceeded",
        "The job was active for 90 s; spec.activeDeadlineSeconds is 90. Raise it and apply anew.",
    )


def test_suspended_time_does_not_count_against_the_deadline() -> None:
    resource = job(activeDeadlineSeconds=90, status=JobStatus(attempts=1, active_seconds=60))
    made = plan(resource, seen(), now=NOW + timedelta(days=1))
    assert created(made) == ["PyTorchJob/demo-1"]
    assert made.children[0].body["metadata"]["annotations"]["alidade.dev/active-seconds-before"] == "60.000"
    spent = job(activeDeadlineSeconds=90, status=JobStatus(attempts=1, active_seconds=90))
    assert condition(plan(spent, seen()), "Failed")[1] == "DeadlineExceeded"


def test_a_finished_resource_is_deleted_when_its_time_has_come() -> None:
    resource = launched(ttlSecondsAfterFinished=60)
    ended = plan(resource, seen(training_job(state="succeeded"), pods=(ended_pod(result=success()),)))
    resource = after(resource, ended)
    waiting = plan(resource, seen(training_job(state="succeeded")), now=NOW + timedelta(seconds=20))
    assert waiting.look_again_s == 40
    due = plan(resource, seen(training_job(state="succeeded")), now=NOW + timedelta(seconds=60))
    assert [(item.kind, item.name, item.uid) for item in due.deletions] == [(FINE_TUNE_JOB, "demo", resource.uid)]


def test_what_still_runs_of_a_finished_job_is_stopped() -> None:
    broken = plan(launched(), seen(training_job(state="failed"), pods=(ended_pod(exit_code=1, result=failure()),)))
    made = plan(after(launched(), broken), seen(training_job(), training_job(2, state="failed")))
    assert deleted(made) == ["PyTorchJob/demo-1"]


def test_two_attempts_never_run_side_by_side() -> None:
    resource = job(status=JobStatus(attempts=2))
    made = plan(resource, seen(training_job(1), training_job(2), pods=(pod(1), pod(2))))
    assert deleted(made) == ["PyTorchJob/demo-1"]


def test_gpu_hours_and_cost_add_up_over_attempts() -> None:
    compute = {"nodePool": "a100-80gb", "workers": 2, "gpusPerWorker": 8}
    resource = launched(compute=compute)
    pods = tuple(
        ended_pod(2, worker=worker, exit_code=137, started_at=NOW - timedelta(hours=1)) for worker in (None, 0)
    )
    second = training_job(2, state="failed", gpu_hours_before=4.0)
    made = plan(resource, seen(second, pods=pods))
    assert made.status is not None
    assert made.status.gpu_hours == 4.0 + 2 * 8 * 1.0
    assert made.status.cost == "50.00 USD"
    resource = after(resource, made)
    third = plan(resource, seen(second, pods=pods), now=NOW + timedelta(hours=1))
    assert third.children[0].body["metadata"]["annotations"]["alidade.dev/gpu-hours-before"] == "20.000000"


def test_running_gpu_time_is_counted_in_whole_minutes() -> None:
    compute = {"nodePool": "a100-80gb", "gpusPerWorker": 1}
    running = seen(training_job(), pods=(pod(),))
    resource = after(launched(compute=compute), plan(launched(compute=compute), running))
    assert resource.status.gpu_hours == pytest.approx(1 / 60, abs=1e-4)
    assert plan(resource, running, now=NOW + timedelta(seconds=59)).status is None
    later = plan(resource, running, now=NOW + timedelta(seconds=60))
    assert later.status is not None
    assert later.status.gpu_hours == pytest.approx(2 / 60, abs=1e-4)


def test_a_job_that_cannot_fit_is_not_launched() -> None:
    compute = {"nodePool": "a100-80gb", "gpusPerWorker": 1}
    made = plan(job(model={"uri": "hf://meta-llama/Llama-2-7b-hf"}, compute=compute), observed())
    assert created(made) == []
    assert condition(made, "Fits")[:2] == ("False", "ExceedsMemory")
    assert condition(made, "Accepted")[0] == "True"
    assert made.status is not None
    assert made.status.phase == "Waiting"


def test_a_job_of_unknown_size_is_launched_all_the_same() -> None:
    made = plan(job(model={"uri": "hf://org/mystery"}), observed())
    assert condition(made, "Fits")[:2] == ("Unknown", "SizeUnknown")
    assert created(made) != []
