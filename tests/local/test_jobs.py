"""PyTorchJobs, Jobs and Deployments on a real cluster, with real processes."""

from __future__ import annotations

import json
from typing import Any

from kubeflow.training import TrainingClient

from tests.cluster_fixtures import RunningCluster, wait_until
from tests.local.workloads import (
    SLEEP,
    apply,
    batch_job,
    conditions,
    container,
    events,
    get,
    processes,
    pytorch_job,
    status,
    wait_for_condition,
    wait_for_phase,
)

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
# The master listens where it is told to, the worker connects there: that is all a rendezvous needs.
MEET_AS_MASTER = (
    "import os, socket;"
    "s = socket.create_server((os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])));"
    "c, _ = s.accept(); print(c.recv(100).decode())"
)
MEET_AS_WORKER = (
    "import os, socket, time\n"
    "for _ in range(100):\n"
    "    try:\n"
    "        c = socket.create_connection((os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])))\n"
    "        break\n"
    "    except OSError:\n"
    "        time.sleep(0.1)\n"
    "c.send(f\"worker {os.environ['RANK']} of {os.environ['WORLD_SIZE']}\".encode())\n"
)


def pod_uids(cluster: RunningCluster, selector: str) -> list[str]:
    items = json.loads(cluster.kubectl("get", "pods", "-l", selector, "-o", "json"))["items"]
    return [item["metadata"]["uid"] for item in items]


def test_a_master_and_its_worker_meet_and_the_job_succeeds(cluster: RunningCluster) -> None:
    apply(cluster, pytorch_job("meets", MEET_AS_MASTER, MEET_AS_WORKER))
    wait_for_condition(cluster, "pytorchjob", "meets", "Succeeded")
    assert cluster.kubectl("logs", "meets-master-0") == "worker 1 of 2\n"
    found = get(cluster, "pytorchjob", "meets")
    assert found is not None
    assert [entry["type"] for entry in found["status"]["conditions"]] == ["Created", "Running", "Succeeded"]
    assert found["status"]["replicaStatuses"]["Master"]["succeeded"] == 1
    wait_until(
        lambda: {"SuccessfulCreatePod", "SuccessfulCreateService", "PyTorchJobSucceeded"} <= events(cluster, "meets"),
        "the events of the training operator are recorded",
    )


def test_each_replica_is_told_who_it_is(cluster: RunningCluster) -> None:
    job = pytorch_job("told", SHOW, SHOW)
    for spec in job["spec"]["pytorchReplicaSpecs"].values():
        # The controller's values win over those of the user.
        spec["template"]["spec"]["containers"][0]["env"] = [{"name": "RANK", "value": "77"}]
    apply(cluster, job)
    wait_for_phase(cluster, "told-worker-0", "Succeeded")
    seen = {name: json.loads(cluster.kubectl("logs", name)) for name in ("told-master-0", "told-worker-0")}
    master_ip = status(cluster, "pod", "told-master-0")["podIP"]
    for rank, name in enumerate(seen):
        env = seen[name]
        assert (env["RANK"], env["PET_NODE_RANK"], env["WORLD_SIZE"]) == (str(rank), str(rank), "2")
        assert (env["PET_NNODES"], env["PET_NPROC_PER_NODE"]) == ("2", "1")
        assert env["MASTER_ADDR"] == env["PET_MASTER_ADDR"] == master_ip
        assert env["HOSTNAME"] == name
    assert seen["told-master-0"]["MASTER_PORT"] == seen["told-worker-0"]["MASTER_PORT"]


def test_the_training_operators_own_client_reads_our_status(cluster: RunningCluster) -> None:
    client = TrainingClient(config_file=str(cluster.kubeconfig), namespace="default")
    apply(cluster, pytorch_job("typed", "print('trained')", "pass", runPolicy={"cleanPodPolicy": "None"}))
    client.wait_for_job_conditions("typed", job_kind="PyTorchJob", timeout=120, polling_interval=1)
    found = client.get_job("typed", job_kind="PyTorchJob")
    assert client.is_job_succeeded(job=found)
    assert found.status.completion_time is not None
    assert found.status.replica_statuses["Master"].succeeded == 1
    assert sorted(client.get_job_pod_names("typed")) == ["typed-master-0", "typed-worker-0"]
    assert client.get_job_pod_names("typed", is_master=True) == ["typed-master-0"]
    assert client.get_job_logs("typed", job_kind="PyTorchJob")[0] == {"typed-master-0": "trained\n"}


def test_one_failure_ends_a_job_that_is_never_restarted(cluster: RunningCluster) -> None:
    run_policy = {"cleanPodPolicy": "Running"}
    apply(cluster, pytorch_job("fails", SLEEP, "raise SystemExit(75)", runPolicy=run_policy))
    wait_for_condition(cluster, "pytorchjob", "fails", "Failed")
    assert conditions(cluster, "pytorchjob", "fails")["Running"] == "False"
    wait_until(lambda: get(cluster, "pod", "fails-master-0") is None, "the running master is cleaned up")
    assert get(cluster, "pod", "fails-worker-0") is not None


def test_an_exit_by_a_signal_is_retried_and_a_plain_failure_is_not(cluster: RunningCluster) -> None:
    first_dies = (
        "import os, pathlib, signal;"
        "p = pathlib.Path(os.environ['W']) / 'tried';"
        "tried = p.exists(); p.touch();"
        "tried or os.kill(os.getpid(), signal.SIGKILL)"
    )
    job = pytorch_job("retries", first_dies, None, policy="ExitCode")
    template = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    template["volumes"] = [{"name": "w", "persistentVolumeClaim": {"claimName": "alidade-workspace"}}]
    template["containers"][0]["volumeMounts"] = [{"name": "w", "mountPath": "/w"}]
    template["containers"][0]["env"] = [{"name": "W", "value": "/w"}]
    apply(cluster, job, pytorch_job("gives-up", "raise SystemExit(2)", None, policy="ExitCode"))
    wait_for_condition(cluster, "pytorchjob", "retries", "Succeeded")
    wait_until(lambda: "PyTorchJobRestarting" in events(cluster, "retries"), "the restart is told")
    wait_for_condition(cluster, "pytorchjob", "gives-up", "Failed")


def test_restarts_in_place_end_at_the_backoff_limit(cluster: RunningCluster) -> None:
    run_policy = {"backoffLimit": 2, "cleanPodPolicy": "All"}
    code = "import time; time.sleep(0.3); raise SystemExit(1)"
    apply(cluster, pytorch_job("limited", code, None, policy="OnFailure", runPolicy=run_policy))
    wait_for_condition(cluster, "pytorchjob", "limited", "Failed")
    [failed] = [c for c in status(cluster, "pytorchjob", "limited")["conditions"] if c["type"] == "Failed"]
    assert "has reached the specified backoff limit" in failed["message"]
    wait_until(lambda: get(cluster, "pod", "limited-master-0") is None, "its pods are gone")


def test_suspending_ends_the_pods_and_resuming_starts_them_anew(cluster: RunningCluster) -> None:
    apply(cluster, pytorch_job("held", SLEEP, SLEEP))
    wait_for_condition(cluster, "pytorchjob", "held", "Running")
    wait_for_phase(cluster, "held-worker-0", "Running")
    selector = "training.kubeflow.org/job-name=held"
    before = pod_uids(cluster, selector)
    patch = ("patch", "pytorchjob", "held", "--type=merge", "-p")
    cluster.kubectl(*patch, '{"spec": {"runPolicy": {"suspend": true}}}')
    wait_for_condition(cluster, "pytorchjob", "held", "Suspended")
    wait_until(lambda: pod_uids(cluster, selector) == [], "its pods are gone")
    assert [pid for uid in before for pid in processes(cluster, uid)] == []
    cluster.kubectl(*patch, '{"spec": {"runPolicy": {"suspend": false}}}')
    wait_for_condition(cluster, "pytorchjob", "held", "Running")
    assert conditions(cluster, "pytorchjob", "held")["Suspended"] == "False"
    assert not set(before) & set(pod_uids(cluster, selector))
    cluster.kubectl("delete", "pytorchjob", "held")


def test_a_deleted_job_leaves_no_pod_and_no_process(cluster: RunningCluster) -> None:
    apply(cluster, pytorch_job("deleted", SLEEP, SLEEP))
    wait_for_phase(cluster, "deleted-master-0", "Running")
    wait_for_phase(cluster, "deleted-worker-0", "Running")
    selector = "training.kubeflow.org/job-name=deleted"
    uids = pod_uids(cluster, selector)
    cluster.kubectl("delete", "pytorchjob", "deleted")
    wait_until(lambda: pod_uids(cluster, selector) == [], "its pods are gone")
    assert [pid for uid in uids for pid in processes(cluster, uid)] == []
    wait_until(
        lambda: json.loads(cluster.kubectl("get", "services", "-l", selector, "-o", "json"))["items"] == [],
        "its services are gone",
    )


def test_a_finished_job_is_deleted_after_its_time_to_live(cluster: RunningCluster) -> None:
    apply(cluster, pytorch_job("brief", "pass", None, runPolicy={"ttlSecondsAfterFinished": 1}))
    wait_until(lambda: get(cluster, "pytorchjob", "brief") is not None, "it is there")
    wait_until(lambda: get(cluster, "pytorchjob", "brief") is None, "it is gone")
    wait_until(lambda: get(cluster, "pod", "brief-master-0") is None, "its pod is gone")


def test_a_pytorchjob_that_the_webhook_would_refuse_is_refused(cluster: RunningCluster) -> None:
    job = pytorch_job("wrong", "pass", None)
    job["spec"]["pytorchReplicaSpecs"]["Master"]["replicas"] = 2
    said = cluster.kubectl("apply", "-f", "-", stdin=json.dumps(job), check=False)
    assert "Master must have exactly 1 replica" in said
    job = pytorch_job("wrong", "pass", None)
    job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["name"] = "main"
    said = cluster.kubectl("apply", "-f", "-", stdin=json.dumps(job), check=False)
    assert "a container must be named pytorch" in said
    job = pytorch_job("1st", "pass", None)
    said = cluster.kubectl("apply", "-f", "-", stdin=json.dumps(job), check=False)
    assert "must be a DNS-1035 label" in said


def test_a_job_runs_to_its_completions(cluster: RunningCluster) -> None:
    apply(cluster, batch_job("counts", "print('done')", completions=3, parallelism=2))
    wait_for_condition(cluster, "job", "counts", "Complete")
    found = status(cluster, "job", "counts")
    assert (found["succeeded"], found.get("active", 0), found.get("failed", 0)) == (3, 0, 0)
    wait_until(lambda: {"SuccessfulCreate", "Completed"} <= events(cluster, "counts"), "its events are recorded")


def test_a_job_tries_again_up_to_its_backoff_limit(cluster: RunningCluster) -> None:
    apply(cluster, batch_job("tries-twice", "raise SystemExit(1)", backoffLimit=1))
    wait_for_condition(cluster, "job", "tries-twice", "Failed")
    found = status(cluster, "job", "tries-twice")
    assert found["failed"] == 2
    assert found["conditions"][-1]["reason"] == "BackoffLimitExceeded"


def test_a_job_past_its_deadline_fails_without_leaving_a_process(cluster: RunningCluster) -> None:
    job = batch_job("slow-job", SLEEP, activeDeadlineSeconds=3)
    job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 1
    apply(cluster, job)
    uids = wait_until(lambda: pod_uids(cluster, "job-name=slow-job") or None, "its pod exists")
    wait_for_condition(cluster, "job", "slow-job", "Failed")
    assert [pid for uid in uids for pid in processes(cluster, uid)] == []


def _running_pod(cluster: RunningCluster, job: str) -> str | None:
    items = json.loads(cluster.kubectl("get", "pods", "-l", f"job-name={job}", "-o", "json"))["items"]
    running = [item for item in items if (item.get("status") or {}).get("phase") == "Running"]
    return running[0]["metadata"]["name"] if running else None


def test_a_pod_of_a_job_that_somebody_deletes_has_failed(cluster: RunningCluster) -> None:
    apply(cluster, batch_job("loses-pod", SLEEP, backoffLimit=0, podReplacementPolicy="Failed"))
    name = wait_until(lambda: _running_pod(cluster, "loses-pod"), "its pod runs")
    cluster.kubectl("delete", "pod", name)
    wait_for_condition(cluster, "job", "loses-pod", "Failed")
    found = status(cluster, "job", "loses-pod")
    assert (found["failed"], found["conditions"][-1]["reason"]) == (1, "BackoffLimitExceeded")
    assert pod_uids(cluster, "job-name=loses-pod") == []


def test_pods_go_with_their_job_or_stay_when_they_are_to(cluster: RunningCluster) -> None:
    cascades = ("background", "foreground", "orphan")
    apply(cluster, *(batch_job(f"goes-{cascade}", SLEEP) for cascade in cascades))
    pods = {
        cascade: wait_until(lambda job=f"goes-{cascade}": _running_pod(cluster, job), "a pod of it runs")
        for cascade in cascades
    }
    for cascade in cascades:
        cluster.kubectl("delete", "job", f"goes-{cascade}", f"--cascade={cascade}")
    for cascade in cascades[:2]:
        wait_until(lambda name=pods[cascade]: get(cluster, "pod", name) is None, "the pod is gone")

    def is_let_go() -> bool:
        metadata = (get(cluster, "pod", pods["orphan"]) or {})["metadata"]
        return not metadata.get("finalizers") and not metadata.get("ownerReferences")

    wait_until(is_let_go, "nothing keeps the pod")
    assert status(cluster, "pod", pods["orphan"])["phase"] == "Running"
    cluster.kubectl("delete", "pod", pods["orphan"])


def deployment(name: str, word: str, **spec: Any) -> dict[str, Any]:
    code = f"import time; print('{word}'); time.sleep(600)"
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container(code)]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": template, **spec},
    }


def web_words(cluster: RunningCluster) -> set[str]:
    """What the pods of the Deployment `web` printed."""
    names = cluster.kubectl("get", "pods", "-l", "app=web", "-o", "name").split()
    return {cluster.kubectl("logs", name, check=False).strip() for name in names}


def test_a_deployment_rolls_out_scales_and_goes(cluster: RunningCluster) -> None:
    apply(cluster, deployment("web", "one"))
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
    before = pod_uids(cluster, "app=web")
    assert len(before) == 2
    apply(cluster, deployment("web", "two"))
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
    wait_until(lambda: len(pod_uids(cluster, "app=web")) == 2, "the old pods are gone")
    assert not set(before) & set(pod_uids(cluster, "app=web"))
    cluster.kubectl("rollout", "undo", "deployment/web")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
    wait_until(lambda: web_words(cluster) == {"one"}, "the first version is back")
    history = cluster.kubectl("rollout", "history", "deployment/web")
    assert [line.split()[0] for line in history.splitlines()[2:] if line] == ["2", "3"]
    cluster.kubectl("scale", "deployment/web", "--replicas=3")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=120s")
    assert len(pod_uids(cluster, "app=web")) == 3
    uids = pod_uids(cluster, "app=web")
    cluster.kubectl("delete", "deployment", "web")
    wait_until(lambda: pod_uids(cluster, "app=web") == [], "its pods are gone")
    assert [pid for uid in uids for pid in processes(cluster, uid)] == []


def test_a_deleted_pod_of_a_deployment_is_replaced(cluster: RunningCluster) -> None:
    apply(cluster, deployment("lasting", "x", replicas=1))
    cluster.kubectl("rollout", "status", "deployment/lasting", "--timeout=120s")
    [before] = pod_uids(cluster, "app=lasting")
    cluster.kubectl("delete", "pods", "-l", "app=lasting")
    wait_until(lambda: pod_uids(cluster, "app=lasting") not in ([], [before]), "another pod is there")
    cluster.kubectl("rollout", "status", "deployment/lasting", "--timeout=120s")
    cluster.kubectl("delete", "deployment", "lasting")
