"""A training job as a TrainJob: the pods of a PyTorchJob, by Trainer's own models and rules; and how it is read."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kubeflow_trainer_api import models

from alidade_crds.blocks import Compute
from alidade_crds.status import ChildRef, JobStatus
from alidade_operator.api import FINE_TUNE_JOB, PYTORCH_JOB, REWARD_MODEL, TRAIN_JOB, TRAINING_RUNTIME
from alidade_operator.config import GangScheduling, NodePool, OperatorConfig
from alidade_operator.reconcile.backends import BACKENDS, backend_of, unused_kinds
from alidade_operator.reconcile.plan import Plan
from alidade_operator.resources.attempt import MOST_ATTEMPTS
from alidade_operator.resources.observation import pod_view
from alidade_operator.resources.trainjob import digest_of, train_job_view
from tests.operator.builders import (
    CONFIG,
    NOW,
    UID,
    condition,
    created,
    deleted,
    ended_pod,
    failure,
    job,
    observed,
    plan,
    pod,
    training_job,
)
from tests.operator.memory import MemoryCluster
from tests.operator.playedtrainer import pod_template
from tests.operator.security import restricted
from tests.operator.test_resources import CASES, SEEN
from tests.operator.trainermodels import is_within

WITH_TRAINJOBS = CONFIG.model_copy(update={"training_backend": "TrainJob"})
Body = dict[str, Any]


def launched(blocks: Body, config: OperatorConfig = WITH_TRAINJOBS, **seen: Any) -> tuple[Body, Body, Body]:
    """The TrainingRuntime, the ConfigMap and the TrainJob of a launch."""
    first = plan(job(**blocks), observed(**(SEEN | seen)), config=config)
    (runtime,) = (child.body for child in first.children)
    second = plan(job(**blocks), observed(**(SEEN | seen | {"runtime_digest": digest_of(runtime)})), config=config)
    config_map, train_job = (child.body for child in second.children)
    return runtime, config_map, train_job


@pytest.fixture(params=CASES)
def blocks(request: pytest.FixtureRequest) -> Body:
    """The blocks of each case that PyTorchJobs are tested with, too."""
    found: Body = CASES[request.param]
    return found


def test_the_pods_are_those_of_a_pytorchjob(blocks: Body) -> None:
    """But for their container's name and what Trainer adds; the restart policy stands in the template here."""
    runtime, config_map, train_job = launched(blocks)
    pytorch = plan(job(**blocks), observed(**SEEN))
    assert config_map == pytorch.children[0].body
    theirs = pytorch.children[1].body["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    ours = pod_template(runtime, train_job)
    assert ours["metadata"]["labels"].items() <= theirs["metadata"]["labels"].items()
    (container,) = ours["spec"].pop("containers")
    (wanted,) = (dict(one) for one in theirs["spec"]["containers"])
    wanted_spec = {name: value for name, value in theirs["spec"].items() if name != "containers"}
    assert ours["spec"] == wanted_spec | {"restartPolicy": "Never"}
    told = {one["name"]: one for one in container.pop("env")}
    assert told.items() >= {one["name"]: one for one in wanted.pop("env")}.items()
    assert told["PET_NNODES"]["value"] == str(blocks.get("compute", {}).get("workers", 1))
    ports = container.pop("ports")
    assert all(port in ports for port in wanted.pop("ports"))
    assert container == wanted | {"name": "node"}


def test_trainers_own_models_read_every_field(blocks: Body) -> None:
    """Nothing that is rendered gets lost on the way through its models: no field is misspelt or misplaced."""
    runtime, _, train_job = launched(blocks)
    for body, model in (
        (runtime, models.TrainerV1alpha1TrainingRuntime),
        (train_job, models.TrainerV1alpha1TrainJob),
    ):
        read = model.from_dict(body)
        assert read is not None
        assert is_within(body, read.to_dict())


def test_trainers_webhooks_would_accept_it(blocks: Body) -> None:
    runtime, _, train_job = launched(blocks)
    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert node["replicas"] == 1
    assert node["template"]["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    (container,) = node["template"]["spec"]["template"]["spec"]["containers"]
    assert container["name"] == "node"
    assert not [one["name"] for one in container["env"] if one["name"].startswith("PET_")]
    assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", train_job["metadata"]["name"])
    assert train_job["spec"]["runtimeRef"] == {
        "apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": runtime["metadata"]["name"],
    }  # fmt: skip


def test_one_failed_pod_ends_the_attempt_and_every_pod_is_restricted(blocks: Body) -> None:
    runtime, _, _ = launched(blocks)
    job_spec = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert "failurePolicy" not in runtime["spec"]["template"]["spec"], "a JobSet without one restarts nothing"
    assert (job_spec["backoffLimit"], job_spec["podReplacementPolicy"]) == (0, "Failed")
    assert job_spec["template"]["spec"]["restartPolicy"] == "Never"
    assert restricted(job_spec["template"]["spec"]) == []


def test_both_go_with_their_resource_and_are_found_by_its_labels(blocks: Body) -> None:
    runtime, _, train_job = launched(blocks)
    template = runtime["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    for body in (runtime, train_job):
        assert body["metadata"]["ownerReferences"][0]["uid"] == UID
        assert body["metadata"]["ownerReferences"][0]["controller"] is True
    for metadata in (runtime["metadata"], train_job["metadata"], template["metadata"]):
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "alidade"
        assert metadata["labels"]["app.kubernetes.io/instance"] == "demo"


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_job_is_held_back_for_its_queue_and_only_for_it(kind: str) -> None:
    config = CONFIG.model_copy(update={"training_backend": kind})
    for compute, suspended in (({"queue": "team-a"}, True), ({}, None)):
        first = plan(job(compute=compute), observed(), config=config)
        digest = digest_of(first.children[0].body)
        made = plan(job(compute=compute), observed(runtime_digest=digest), config=config)
        body = made.children[-1].body
        assert body["kind"] == kind
        assert body["spec"].get("runPolicy", body["spec"]).get("suspend") is suspended
        assert body["metadata"]["labels"].get("kueue.x-k8s.io/queue-name") == compute.get("queue")
        if suspended:
            assert f"Queue team-a has not admitted {kind} demo-1" in condition(made, "Suspended")[2]


def test_processes_are_counted_as_asked_for() -> None:
    for name, nodes, processes in (("tiny", 1, 1), ("two workers on the CPU", 2, 2), ("a node of GPUs", 4, 8)):
        _, _, train_job = launched(CASES[name])
        assert train_job["spec"]["trainer"] == {"numNodes": nodes, "numProcPerNode": processes}


@pytest.mark.parametrize(
    ("gang", "policy", "annotations"),
    [
        (
            GangScheduling(scheduler="volcano", queue="research"),
            {"volcano": {}},
            {"scheduling.volcano.sh/queue-name": "research"},
        ),
        (
            GangScheduling(scheduler="scheduler-plugins-scheduler", timeout_s=300),
            {"coscheduling": {"scheduleTimeoutSeconds": 300}},
            None,
        ),
    ],
)
def test_trainer_is_told_to_make_a_gang_of_all_workers(
    gang: GangScheduling, policy: Body, annotations: dict[str, str] | None
) -> None:
    config = OperatorConfig(training_backend="TrainJob", node_pools=[NodePool(name="local", gang_scheduling=gang)])
    runtime, _, train_job = launched({"compute": {"workers": 2, "priorityClassName": "high"}}, config)
    assert runtime["spec"]["podGroupPolicy"] == policy
    assert runtime["spec"]["template"].get("metadata", {}).get("annotations") == annotations
    spec = pod_template(runtime, train_job)["spec"]
    assert (spec["schedulerName"], spec["priorityClassName"]) == (gang.scheduler, "high")
    assert "podGroupPolicy" not in launched({})[0]["spec"]


# When it is made


def test_the_runtime_comes_first_and_again_only_when_it_would_be_another_one() -> None:
    made = plan(job(), observed(), config=WITH_TRAINJOBS)
    assert created(made) == ["TrainingRuntime/demo-0f8fad5b"]
    assert condition(made, "Launched") == (
        "False", "Waiting", "TrainingRuntime demo-0f8fad5b was made for TrainJob demo-1, which follows.",
    )  # fmt: skip
    assert made.look_again_s == 1.0
    assert made.status is not None
    assert made.status.phase == "Waiting"
    assert not made.notices
    digest = digest_of(made.children[0].body)
    second = plan(job(), observed(runtime_digest=digest), config=WITH_TRAINJOBS)
    assert created(second) == ["ConfigMap/demo-job", "TrainJob/demo-1"]
    changed = WITH_TRAINJOBS.model_copy(update={"trainer_image": "registry.example.com/trainer:2"})
    assert created(plan(job(), observed(runtime_digest=digest), config=changed)) == ["TrainingRuntime/demo-0f8fad5b"]


def test_a_later_attempt_has_the_same_runtime() -> None:
    first, _, _ = launched({})
    status = JobStatus(attempts=1, last_failure=_failed_once())
    later = plan(
        job(status=status), observed(document_exists=True), config=WITH_TRAINJOBS, now=NOW + timedelta(hours=1)
    )
    assert later.children[0].body == first


def _failed_once() -> Any:
    made = _failed(TRAIN_JOB.kind)
    assert made.status is not None
    return getattr(made.status, "last_failure")  # noqa: B009


def _failed(kind: str) -> Plan:
    """The plan of an attempt that has just failed, under TrainJobs."""
    pods = (ended_pod(exit_code=75, result=failure("WorkerLost", retryable=True)),)
    attempt = training_job(state="failed", kind=BACKENDS[kind].kind)
    status = JobStatus(attempts=1, job_ref=ChildRef(kind=kind, name="demo-1"))
    return plan(job(status=status), observed(jobs=(attempt,), pods=pods, document_exists=True), config=WITH_TRAINJOBS)


def test_what_runs_already_stays_what_it_is() -> None:
    """The configuration has changed since: the attempt is followed, suspended and retried, as what the new ones are."""
    old = training_job()
    assert old.kind is PYTORCH_JOB
    status = JobStatus(attempts=1, job_ref=ChildRef(kind="PyTorchJob", name="demo-1"))
    running = plan(job(status=status), observed(jobs=(old,), pods=(pod(),)), config=WITH_TRAINJOBS)
    assert created(running) == deleted(running) == []
    assert condition(running, "Launched") == ("True", "Running", "PyTorchJob demo-1 is running.")
    suspended = plan(job(status=status, suspend=True), observed(jobs=(old,)), config=WITH_TRAINJOBS)
    assert deleted(suspended) == ["PyTorchJob/demo-1"]
    retrying = _failed("PyTorchJob")
    assert condition(retrying, "Launched")[1] == "Retrying"
    assert retrying.status is not None
    due = plan(
        job(status=retrying.status),  # type: ignore[arg-type]
        observed(
            jobs=(training_job(state="failed"),),
            document_exists=True,
            runtime_digest=digest_of(launched({})[0]),
        ),
        config=WITH_TRAINJOBS,
        now=NOW + timedelta(minutes=1),
    )
    assert created(due) == ["TrainJob/demo-2"]


def test_a_pod_that_has_ended_is_waited_for_when_its_job_is_made_again() -> None:
    """Trainer takes a JobSet of that name for its own, and the pods go last."""
    leftover = ended_pod(exit_code=143, job_uid=None, name="demo-1-node-0-0-abcde")
    status = JobStatus(attempts=1, job_ref=ChildRef(kind="TrainJob", name="demo-1"))
    made = plan(job(status=status), observed(pods=(leftover,), document_exists=True), config=WITH_TRAINJOBS)
    assert created(made) == []
    assert condition(made, "Launched")[2] == (
        "Pod demo-1-node-0-0-abcde of an earlier launch is still there; waiting for it to go."
    )


def test_a_runs_alignment_is_a_trainjob_which_goes_when_the_run_is_changed() -> None:
    cluster = MemoryCluster(WITH_TRAINJOBS)
    cluster.apply()
    cluster.settle()
    cluster.train(cluster.of(FINE_TUNE_JOB, "sft")["metadata"]["name"])
    cluster.settle()
    cluster.train(cluster.of(REWARD_MODEL, "helpfulness")["metadata"]["name"])
    cluster.settle()
    cluster.clock(seconds=1)
    cluster.settle()
    name = cluster.of(TRAIN_JOB)["metadata"]["name"]
    assert re.fullmatch("demo-align-[0-9a-f]{8}-1", name)
    assert cluster.status()["jobRef"] == {"kind": "TrainJob", "name": name}
    cluster.apply(align=[{"raft": {"iterations": 3}}])
    deletions = [item for made in cluster.settle() for item in deleted(made)]
    assert deletions == [f"TrainJob/{name}"]
    cluster.clock(seconds=1)
    cluster.settle()
    assert cluster.of(TRAIN_JOB)["metadata"]["name"] != name
    assert cluster.names(PYTORCH_JOB) == []


# Which one it is


def test_the_pool_has_its_say_and_all_pools_together_tell_which_kinds_are_needed() -> None:
    pools = [NodePool(name="old", training_backend="PyTorchJob"), NodePool(name="new")]
    config = OperatorConfig(training_backend="TrainJob", node_pools=pools)
    assert backend_of(Compute(), config).kind is PYTORCH_JOB
    assert backend_of(Compute(node_pool="new"), config).kind is TRAIN_JOB
    assert unused_kinds(config) == ()
    assert unused_kinds(OperatorConfig()) == (TRAIN_JOB,)
    assert unused_kinds(WITH_TRAINJOBS) == (PYTORCH_JOB,)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("PyTorchJob", "The cluster has no PyTorchJob (kubeflow.org/v1). Install the Kubeflow training operator 1.9."),
        ("TrainJob", "The cluster has no TrainJob (trainer.kubeflow.org/v1alpha1). Install Kubeflow Trainer 2."),
    ],
)
def test_a_kind_that_is_missing_is_told_to_those_who_need_it(kind: str, message: str) -> None:
    config = CONFIG.model_copy(update={"training_backend": kind})
    refused = plan(job(), observed(missing_kinds=frozenset({kind})), config=config)
    assert condition(refused, "Accepted") == ("False", "TrainingOperatorMissing", message)
    others = plan(job(), observed(missing_kinds=frozenset(BACKENDS) - {kind}), config=config)
    assert condition(others, "Accepted")[0] == "True"


@pytest.mark.parametrize("workers", [1, 2, 11])
def test_the_longest_name_leaves_the_names_of_pods_within_63(workers: int) -> None:
    length = BACKENDS["TrainJob"].longest_name(workers=workers)
    name = f"{'a' * length}-{MOST_ATTEMPTS}-node-0-{workers - 1}-abcde"
    assert len(name) == 63
    too_long = plan(job("a" * (length + 1), compute={"workers": workers}, training={"globalBatchSize": workers}),
                    observed(), config=WITH_TRAINJOBS)  # fmt: skip
    assert condition(too_long, "Accepted")[1] == "NameTooLong"


# How it is read

CREATED = "2026-11-21T12:00:00Z"
LATER = "2026-11-21T13:00:00Z"


def read(
    *conditions: tuple[str, str], suspend: bool = False, nodes: dict[str, int] | None = None, **metadata: Any
) -> Any:
    """A TrainJob with conditions (type and status), as the operator sees it."""
    listed = [
        {"type": kind, "status": status, "message": f"is {kind}", "lastTransitionTime": LATER}
        for kind, status in conditions
    ]
    status = {"conditions": listed} | ({"jobsStatus": [{"name": "node", **nodes}]} if nodes else {})
    known = {"name": "demo-2", "uid": "j", "creationTimestamp": CREATED} | metadata
    view = train_job_view({"metadata": known, "spec": {"suspend": suspend}, "status": status}, owner_uid="u")
    assert view is not None
    return view


@pytest.mark.parametrize(
    ("conditions", "suspend", "nodes", "state"),
    [
        ((), False, None, "waiting"),
        ((), False, {"active": 1, "ready": 0}, "waiting"),
        ((), False, {"active": 1, "ready": 1}, "running"),
        ((("Suspended", "True"),), True, {"suspended": 1}, "suspended"),
        ((), True, None, "suspended"),
        ((("Suspended", "False"),), False, {"ready": 1}, "running"),
        ((("Complete", "True"),), False, {"ready": 1, "succeeded": 1}, "succeeded"),
        ((("Failed", "True"),), False, {"failed": 1}, "failed"),
        ((("Suspended", "False"), ("Failed", "True")), True, {"failed": 1}, "failed"),
    ],
)
def test_the_state_of_a_trainjob(
    conditions: tuple[tuple[str, str], ...], suspend: bool, nodes: dict[str, int] | None, state: str
) -> None:
    assert read(*conditions, suspend=suspend, nodes=nodes).state == state


def test_active_time_leaves_out_what_a_queue_held_it_back() -> None:
    created_at, later = datetime(2026, 11, 21, 12, tzinfo=UTC), datetime(2026, 11, 21, 13, tzinfo=UTC)
    assert read().active_since == created_at
    assert read(("Suspended", "True"), suspend=True).active_since is None
    assert read(("Suspended", "False")).active_since == later
    assert read(("Suspended", "True")).active_since is None, "Trainer has not seen yet that it was let in"


def test_the_end_of_a_trainjob_is_its_last_condition() -> None:
    ended = read(("Suspended", "False"), ("Failed", "True"), nodes={"failed": 1})
    assert (ended.message, ended.ended_at) == ("is Failed", datetime(2026, 11, 21, 13, tzinfo=UTC))
    assert ended.had_pods
    assert not read(("Failed", "True")).had_pods


def test_pods_of_an_older_trainjob_of_the_same_name_are_not_its() -> None:
    labels = {
        "jobset.sigs.k8s.io/jobset-name": "demo-2",
        "batch.kubernetes.io/job-name": "demo-2-node-0",
        "batch.kubernetes.io/job-completion-index": "0",
    }
    owner = [{"uid": "a Job", "controller": True}]
    metadata = {"name": "demo-2-node-0-0-abcde", "uid": "p", "labels": labels, "ownerReferences": owner}
    status = {"phase": "Running", "containerStatuses": [{"name": "node", "state": {"running": {"startedAt": LATER}}}]}
    own = pod_view({"metadata": metadata | {"creationTimestamp": LATER}, "status": status})
    assert (own.job_name, own.job_uid, own.is_master, own.ready_to_report) == ("demo-2", None, True, True)
    assert own.belongs_to(read(creationTimestamp=CREATED))
    assert not own.belongs_to(read(name="demo-3"))
    older = replace(own, created_at=own.created_at and own.created_at - timedelta(hours=2))
    assert not older.belongs_to(read(creationTimestamp=CREATED))


def test_the_runtime_is_of_the_kind_that_the_trainjob_names() -> None:
    assert TRAINING_RUNTIME.api_version == TRAIN_JOB.api_version == "trainer.kubeflow.org/v1alpha1"
