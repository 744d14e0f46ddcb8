"""A PyTorchJob's plan is what training-operator 1.9 would do."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from alidade_local.controllers.plan import Plan
from alidade_local.controllers.pytorchjob import plan_pytorchjob
from alidade_local.controllers.pytorchjob_pods import build_pod, build_service, environment
from alidade_local.resources import PODS, SERVICES

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
Doc = dict[str, Any]


def job(*, workers: int = 1, policy: str = "Never", master: bool = True, status: Doc | None = None, **spec: Any) -> Doc:
    template = {
        "metadata": {"labels": {"team": "a"}},
        "spec": {
            "containers": [{"name": "pytorch", "image": "i", "env": [{"name": "RANK", "value": "9"}]}, {"name": "side"}]
        },
    }
    replicas: Doc = {}
    if master:
        replicas["Master"] = {"replicas": 1, "restartPolicy": policy, "template": copy.deepcopy(template)}
    if workers:
        replicas["Worker"] = {"replicas": workers, "restartPolicy": policy, "template": copy.deepcopy(template)}
    return {
        "metadata": {"name": "j", "namespace": "n", "uid": "job-uid"},
        "spec": {"pytorchReplicaSpecs": replicas, **spec},
        "status": status or {},
    }


def made(plan: Plan) -> list[str]:
    return [f"{resource.kind} {document['metadata']['name']}" for resource, document in plan.create]


def removed(plan: Plan) -> list[str]:
    return [f"{resource.kind} {document['metadata']['name']}" for resource, document in plan.delete]


def plan_for(found: Doc, pods: list[Doc] | None = None, services: list[Doc] | None = None, now: datetime = NOW) -> Plan:
    return plan_pytorchjob(found, pods or [], services or [], now, choose_port=lambda _: 20001)


def pod(owner: Doc, replica_type: str, index: int, phase: str, *, code: int | None = None, **status: Any) -> Doc:
    document = build_pod(owner, replica_type, index, 20001)
    document["status"] = {"phase": phase, **status}
    if code is not None:
        terminated = {"state": {"terminated": {"exitCode": code}}, "name": "pytorch"}
        document["status"]["containerStatuses"] = [terminated]
    return document


def services_of(owner: Doc) -> list[Doc]:
    return [build_service(owner, kind, 0, 20001) for kind in owner["spec"]["pytorchReplicaSpecs"]]


def deleting(document: Doc) -> Doc:
    document["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    return document


def conditions(plan: Plan) -> dict[str, tuple[str, str]]:
    assert plan.status is not None
    return {entry["type"]: (entry["status"], entry["reason"]) for entry in plan.status["conditions"]}


def message(plan: Plan, condition_type: str) -> str:
    assert plan.status is not None
    return next(entry["message"] for entry in plan.status["conditions"] if entry["type"] == condition_type)


def env_of(document: Doc) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in document["spec"]["containers"][0]["env"]}


def test_a_new_job_gets_a_service_and_a_pod_for_each_replica_services_first() -> None:
    plan = plan_for(job(workers=2))
    names = ["j-worker-0", "j-worker-1", "j-master-0"]
    assert sorted(made(plan)) == sorted([f"Service {name}" for name in names] + [f"Pod {name}" for name in names])
    kinds = [resource.kind for resource, _ in plan.create]
    assert kinds == sorted(kinds, reverse=True)
    assert conditions(plan) == {"Created": ("True", "PyTorchJobCreated")}
    assert plan.status is not None
    assert plan.status["startTime"] == "2026-01-02T03:04:05Z"


def test_pods_carry_the_labels_and_the_owner_of_the_training_operator() -> None:
    master = build_pod(job(), "Master", 0, 20001)["metadata"]
    prefix = "training.kubeflow.org"
    assert master["labels"] == {
        "team": "a",
        f"{prefix}/operator-name": "pytorchjob-controller",
        f"{prefix}/job-name": "j",
        f"{prefix}/replica-type": "master",
        f"{prefix}/replica-index": "0",
        f"{prefix}/job-role": "master",
    }
    assert f"{prefix}/job-role" not in build_pod(job(), "Worker", 0, 20001)["metadata"]["labels"]
    assert f"{prefix}/job-role" in build_pod(job(master=False), "Worker", 0, 20001)["metadata"]["labels"]
    assert master["ownerReferences"][0]["uid"] == "job-uid"
    assert master["ownerReferences"][0]["controller"] is True


def test_workers_are_told_where_the_master_is_and_who_they_are() -> None:
    found = env_of(build_pod(job(workers=2, nprocPerNode="4"), "Worker", 1, 20001))
    assert found == {
        "PYTHONUNBUFFERED": "1",
        "MASTER_ADDR": "j-master-0", "PET_MASTER_ADDR": "j-master-0",
        "MASTER_PORT": "20001", "PET_MASTER_PORT": "20001",
        "WORLD_SIZE": "12", "RANK": "2", "PET_NODE_RANK": "2",
        "PET_NPROC_PER_NODE": "4", "PET_NNODES": "3",
    }  # fmt: skip


def test_a_declared_port_counts_and_processes_in_words_count_as_one() -> None:
    found = job(nprocPerNode="auto")
    ports = [{"name": "pytorchjob-port", "containerPort": 7777}]
    found["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["ports"] = ports
    values = {entry["name"]: entry["value"] for entry in environment(found, "Worker", 0, 20001)}
    assert (values["MASTER_PORT"], values["WORLD_SIZE"], values["PET_NPROC_PER_NODE"]) == ("7777", "2", "auto")
    assert build_service(found, "Master", 0, 20001)["spec"]["ports"][0]["port"] == 7777
    assert build_service(found, "Worker", 0, 20001)["spec"]["ports"][0]["port"] == 20001


def test_an_elastic_job_meets_at_its_first_worker() -> None:
    elastic = {
        "minReplicas": 1, "maxReplicas": 3, "maxRestarts": 5, "rdzvId": "r", "standalone": True,
        "rdzvConf": [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}],
    }  # fmt: skip
    found = env_of(build_pod(job(master=False, workers=2, elasticPolicy=elastic), "Worker", 0, 20001))
    assert found == {
        "RANK": "9", "PYTHONUNBUFFERED": "1", "PET_NPROC_PER_NODE": "auto", "PET_RDZV_ENDPOINT": "j-worker-0:20001",
        "PET_RDZV_BACKEND": "c10d", "PET_NNODES": "1:3", "PET_MAX_RESTARTS": "5", "PET_RDZV_ID": "r",
        "PET_RDZV_CONF": "a=1,b=2", "PET_STANDALONE": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("policy", "pod_policy"),
    [("ExitCode", "Never"), ("OnFailure", "OnFailure"), ("Always", "Always"), ("Never", "Never")],
)
def test_the_pods_restart_policy_follows_the_replicas(policy: str, pod_policy: str) -> None:
    assert build_pod(job(policy=policy), "Master", 0, 1)["spec"]["restartPolicy"] == pod_policy


def test_a_job_runs_when_its_master_runs() -> None:
    found = job()
    plan = plan_for(found, [pod(found, "Master", 0, "Running"), pod(found, "Worker", 0, "Pending")], services_of(found))
    assert conditions(plan)["Running"] == ("True", "PyTorchJobRunning")
    assert plan.status is not None
    assert plan.status["replicaStatuses"]["Master"]["active"] == 1
    assert "active" not in plan.status["replicaStatuses"]["Worker"]
    assert (plan.create, plan.delete) == ([], [])


def test_a_job_has_succeeded_when_its_master_has_although_workers_run() -> None:
    found = job()
    running = plan_for(found, [pod(found, "Master", 0, "Running")], services_of(found)).status
    found = job(status=running)
    pods = [pod(found, "Master", 0, "Succeeded", code=0), pod(found, "Worker", 0, "Running")]
    plan = plan_for(found, pods, services_of(found))
    assert conditions(plan) == {
        "Created": ("True", "PyTorchJobCreated"),
        "Running": ("False", "PyTorchJobRunning"),
        "Succeeded": ("True", "PyTorchJobSucceeded"),
    }
    assert plan.status is not None
    assert plan.status["completionTime"] == "2026-01-02T03:04:05Z"
    assert [event.reason for event in plan.events] == ["PyTorchJobSucceeded"]


def test_without_a_master_all_workers_must_succeed() -> None:
    found = job(master=False, workers=2)
    one = [pod(found, "Worker", 0, "Succeeded"), pod(found, "Worker", 1, "Running")]
    both = [pod(found, "Worker", 0, "Succeeded"), pod(found, "Worker", 1, "Succeeded")]
    assert "Succeeded" not in conditions(plan_for(found, one))
    assert conditions(plan_for(found, both))["Succeeded"][0] == "True"


def test_a_failed_replica_that_is_never_restarted_fails_the_job() -> None:
    found = job()
    pods = [pod(found, "Master", 0, "Running"), pod(found, "Worker", 0, "Failed", code=1)]
    plan = plan_for(found, pods, services_of(found))
    assert conditions(plan)["Failed"] == ("True", "PyTorchJobFailed")
    assert message(plan, "Failed") == "PyTorchJob j is failed because 1 Worker replica(s) failed."
    assert plan.delete == []
    assert "Pod: n.j-worker-0 exited with code 1" in [event.message for event in plan.events]


@pytest.mark.parametrize(
    ("policy", "code", "condition", "deleted"),
    [
        ("ExitCode", 1, "Failed", []),
        ("ExitCode", 127, "Failed", []),
        ("ExitCode", 128, "Restarting", ["Pod j-worker-0"]),
        ("ExitCode", 143, "Restarting", ["Pod j-worker-0"]),
        ("ExitCode", None, "Restarting", ["Pod j-worker-0"]),
        ("OnFailure", 1, "Restarting", ["Pod j-worker-0"]),
    ],
)
def test_the_exit_code_decides_whether_a_replica_is_made_anew(
    policy: str, code: int | None, condition: str, deleted: list[str]
) -> None:
    found = job(policy=policy)
    pods = [pod(found, "Master", 0, "Pending"), pod(found, "Worker", 0, "Failed", code=code)]
    plan = plan_for(found, pods, services_of(found))
    assert removed(plan) == deleted
    assert conditions(plan)[condition] == ("True", f"PyTorchJob{condition}")


def test_a_deleted_replica_is_made_anew_only_when_it_is_gone() -> None:
    found = job(policy="OnFailure")
    leaving = deleting(pod(found, "Worker", 0, "Failed", code=1))
    assert made(plan_for(found, [pod(found, "Master", 0, "Running"), leaving], services_of(found))) == []
    assert made(plan_for(found, [pod(found, "Master", 0, "Running")], services_of(found))) == ["Pod j-worker-0"]


def test_running_and_restarting_replace_each_other() -> None:
    found = job(policy="ExitCode")
    running = plan_for(found, [pod(found, "Master", 0, "Running")], services_of(found)).status
    found["status"] = running
    pods = [pod(found, "Master", 0, "Pending"), pod(found, "Worker", 0, "Failed", code=137)]
    restarting = plan_for(found, pods, services_of(found))
    assert "Running" not in conditions(restarting)
    found["status"] = restarting.status
    again = plan_for(found, [pod(found, "Master", 0, "Running")], services_of(found))
    assert "Restarting" not in conditions(again)
    assert conditions(again)["Running"][0] == "True"


def test_surplus_replicas_go() -> None:
    found = job(workers=1)
    pods = [pod(found, "Master", 0, "Running"), pod(found, "Worker", 0, "Running"), pod(found, "Worker", 1, "Running")]
    services = [*services_of(found), build_service(found, "Worker", 1, 20001)]
    assert removed(plan_for(found, pods, services)) == ["Pod j-worker-1", "Service j-worker-1"]


def test_a_suspended_job_loses_its_pods_and_services_and_gets_them_back() -> None:
    found = job(runPolicy={"suspend": True})
    found["status"] = plan_for(job(), [pod(found, "Master", 0, "Running")]).status
    suspended = plan_for(found, [pod(found, "Master", 0, "Running")], services_of(found))
    assert removed(suspended) == ["Pod j-master-0", "Service j-master-0", "Service j-worker-0"]
    assert conditions(suspended)["Suspended"] == ("True", "PyTorchJobSuspended")
    assert conditions(suspended)["Running"] == ("False", "PyTorchJobSuspended")

    found["spec"]["runPolicy"] = {"suspend": False}
    found["status"] = suspended.status
    waiting = plan_for(found, [deleting(pod(found, "Master", 0, "Running"))])
    assert made(waiting) == []
    assert "Failed" not in conditions(waiting)
    resumed = plan_for(found, now=NOW + timedelta(minutes=1))
    assert len(made(resumed)) == 4
    assert conditions(resumed)["Suspended"] == ("False", "PyTorchJobResumed")
    assert resumed.status is not None
    assert resumed.status["startTime"] == "2026-01-02T03:05:05Z"


def finished(condition: str = "Succeeded") -> Doc:
    return {
        "conditions": [{"type": condition, "status": "True", "reason": "r", "message": ""}],
        "completionTime": "2026-01-02T03:04:05Z",
        "replicaStatuses": {"Worker": {"active": 1}},
    }


@pytest.mark.parametrize(
    ("policy", "deleted"),
    [
        ("None", []),
        ("Running", ["Pod j-worker-0", "Service j-worker-0"]),
        ("All", ["Pod j-master-0", "Pod j-worker-0", "Service j-master-0", "Service j-worker-0"]),
    ],
)
def test_the_clean_pod_policy_says_which_pods_of_a_finished_job_go(policy: str, deleted: list[str]) -> None:
    found = job(runPolicy={"cleanPodPolicy": policy}, status=finished())
    pods = [pod(found, "Master", 0, "Succeeded"), pod(found, "Worker", 0, "Running")]
    plan = plan_for(found, pods, services_of(found))
    assert removed(plan) == deleted
    assert plan.status is not None
    assert plan.status["replicaStatuses"]["Worker"] == {"succeeded": 1}


def test_a_service_whose_pod_has_gone_before_it_goes_too() -> None:
    found = job(runPolicy={"cleanPodPolicy": "All"}, status=finished())
    assert removed(plan_for(found, [], services_of(found))) == ["Service j-master-0", "Service j-worker-0"]


@pytest.mark.parametrize(
    ("after_s", "deleted", "again"), [(0, False, 60.0), (59, False, 1.0), (60, True, None), (99, True, None)]
)
def test_a_finished_job_is_deleted_after_its_time_to_live(after_s: int, deleted: bool, again: float | None) -> None:
    found = job(runPolicy={"ttlSecondsAfterFinished": 60}, status=finished("Failed"))
    plan = plan_for(found, now=NOW + timedelta(seconds=after_s))
    assert (plan.delete_self, plan.again_after_s) == (deleted, again)


def test_a_job_that_is_active_too_long_fails_and_loses_its_pods() -> None:
    found = job(runPolicy={"activeDeadlineSeconds": 10}, status={"startTime": "2026-01-02T03:04:05Z"})
    pods = [pod(found, "Master", 0, "Running")]
    early = plan_for(found, pods, services_of(found), now=NOW + timedelta(seconds=4))
    assert (early.again_after_s, removed(early)) == (6.0, [])
    late = plan_for(found, pods, services_of(found), now=NOW + timedelta(seconds=10))
    assert removed(late) == ["Pod j-master-0", "Service j-master-0", "Service j-worker-0"]
    assert message(late, "Failed") == "Job j has failed because it was active longer than specified deadline"


@pytest.mark.parametrize(("restarts", "failed"), [(1, False), (2, True)])
def test_restarts_in_place_count_against_the_backoff_limit(restarts: int, failed: bool) -> None:
    found = job(policy="OnFailure", runPolicy={"backoffLimit": 2})
    containers = [{"name": "pytorch", "restartCount": restarts, "state": {}}]
    pods = [pod(found, "Master", 0, "Running", containerStatuses=containers)]
    assert ("Failed" in conditions(plan_for(found, pods, services_of(found)))) is failed


def test_a_job_managed_by_another_controller_is_left_alone() -> None:
    plan = plan_for(job(runPolicy={"managedBy": "kueue.x-k8s.io/multikueue"}))
    assert (plan.create, plan.status) == ([], None)


def test_the_port_once_given_to_a_job_stays() -> None:
    found = job()
    plan = plan_pytorchjob(found, [], [build_service(found, "Master", 0, 20555)], NOW, choose_port=lambda _: 1)
    pods = [document for resource, document in plan.create if resource is PODS]
    assert {env_of(document)["MASTER_PORT"] for document in pods} == {"20555"}
    assert all(document["spec"]["ports"][0]["port"] == 20555 for kind, document in plan.create if kind is SERVICES)


def test_planning_does_not_change_what_it_looks_at() -> None:
    found = job(status=finished())
    before = copy.deepcopy(found)
    plan_for(found, [pod(found, "Master", 0, "Succeeded")])
    assert found == before
