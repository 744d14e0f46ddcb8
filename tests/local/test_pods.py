"""Pods on a real cluster: processes with an address, volumes, probes, restarts, logs and an end."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from tests.cluster_fixtures import GPUS, RunningCluster, wait_until
from tests.local.workloads import (
    SLEEP,
    apply,
    conditions,
    container,
    events,
    get,
    pod,
    processes,
    status,
    terminated,
    wait_for_phase,
)


def test_a_pod_runs_with_its_environment_and_its_log_can_be_read(cluster: RunningCluster) -> None:
    code = "import os, sys; print(os.environ['WHO'], os.environ['IP'], sys.argv[1]); print('err', file=sys.stderr)"
    env = [
        {"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    apply(cluster, pod("hello", container(code, env=env, args=["$(WHO)!"])))
    found = wait_for_phase(cluster, "hello", "Succeeded")
    assert terminated(found)["reason"] == "Completed"
    assert cluster.kubectl("logs", "hello") == f"hello {found['podIP']} hello!\nerr\n"
    assert found["podIP"].startswith("127.")
    wait_until(lambda: {"Scheduled", "Started"} <= events(cluster, "hello"), "its events are recorded")


def test_pods_have_addresses_of_their_own(cluster: RunningCluster) -> None:
    serve = (
        "import os; from http.server import *;"
        "HTTPServer((os.environ['IP'], 8080), SimpleHTTPRequestHandler).serve_forever()"
    )
    env = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    probe = {"httpGet": {"port": "http"}, "periodSeconds": 1}
    ports = [{"name": "http", "containerPort": 8080}]
    documents = [
        pod(name, container(serve, env=env, ports=ports, readinessProbe=probe), grace_s=1)
        for name in ("web-a", "web-b")
    ]
    apply(cluster, *documents)
    cluster.kubectl("wait", "pod/web-a", "pod/web-b", "--for=condition=Ready", "--timeout=120s")
    assert status(cluster, "pod", "web-a")["podIP"] != status(cluster, "pod", "web-b")["podIP"]
    cluster.kubectl("delete", "pod", "web-a", "web-b")


def test_volumes_are_where_the_program_is_told_and_a_message_ends_in_the_status(cluster: RunningCluster) -> None:
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "job"}, "data": {"job.json": "{}"}}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys"},
        "data": {"token": base64.b64encode(b"t").decode()},
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "models"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    code = (
        "import os, pathlib, sys;"
        "P = lambda name: pathlib.Path(os.environ[name]);"
        "(P('MODELS') / 'models' / 'out').write_text(P('JOB').read_text() + P('TOKEN').read_text());"
        "(P('SCRATCH') / 'x').write_text('');"
        "P('MESSAGE').write_text('m' * 5000 + 'end')"
    )
    env = {
        "JOB": "/etc/job/job.json",
        "TOKEN": "/keys/token",
        "MODELS": "/volumes",
        "SCRATCH": "/scratch",
        "MESSAGE": "/dev/termination-log",
    }
    mounts = {"job": "/etc/job", "keys": "/keys", "models": "/volumes/models", "scratch": "/scratch"}
    main = container(
        code,
        env=[{"name": name, "value": value} for name, value in env.items()],
        volumeMounts=[{"name": name, "mountPath": path} for name, path in mounts.items()],
    )
    volumes = [
        {"name": "job", "configMap": {"name": "job"}},
        {"name": "keys", "secret": {"secretName": "keys"}},
        {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
        {"name": "scratch", "emptyDir": {}},
    ]
    apply(cluster, pod("mounts", main, volumes=volumes), config_map, secret, claim)
    found = wait_for_phase(cluster, "mounts", "Succeeded")
    assert (cluster.data_dir / "volumes/default/models/out").read_text() == "{}t"
    message = terminated(found)["message"]
    assert (len(message), message[-4:]) == (4096, "mend")


def test_names_of_services_and_paths_from_config_maps_are_resolved_in_variables_and_arguments(
    cluster: RunningCluster,
) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "peer"},
        "spec": {"clusterIP": "None", "selector": {"app": "peer"}},
    }
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings"},
        "data": {"PEER": "peer:80", "FOLDER": "/data/x"},
    }
    code = "import os, sys; print(os.environ['PEER'], os.environ['FOLDER'], sys.argv[1])"
    main = container(
        code,
        args=["--peer=$(PEER)"],
        envFrom=[{"configMapRef": {"name": "settings"}}],
        volumeMounts=[{"name": "d", "mountPath": "/data"}],
    )
    asks = pod("asks", main, volumes=[{"name": "d", "emptyDir": {}}])
    apply(cluster, service, settings, asks)
    wait_until(lambda: "WaitingForService" in events(cluster, "asks"), "it says that it waits for the peer")
    apply(cluster, pod("peer", container(SLEEP), grace_s=1))
    wait_for_phase(cluster, "asks", "Succeeded")
    address = status(cluster, "pod", "peer")["podIP"]
    uid = (get(cluster, "pod", "asks") or {})["metadata"]["uid"]
    folder = cluster.data_dir / "pods" / uid / "root-main/data/x"
    assert cluster.kubectl("logs", "asks") == f"{address}:80 {folder} --peer={address}:80\n"
    cluster.kubectl("delete", "pod", "peer")


def test_a_claim_is_removed_with_its_folder_but_not_while_a_pod_uses_it(cluster: RunningCluster) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "used"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "used"}}]
    mounts = [{"name": "v", "mountPath": "/v"}]
    apply(cluster, claim, pod("user", container(SLEEP, volumeMounts=mounts), volumes=volumes, grace_s=1))
    wait_for_phase(cluster, "user", "Running")
    folder: Path = cluster.data_dir / "volumes/default/used"
    cluster.kubectl("delete", "pvc", "used", "--wait=false")
    assert get(cluster, "pvc", "used") is not None
    assert folder.is_dir()
    cluster.kubectl("delete", "pod", "user")
    wait_until(lambda: get(cluster, "pvc", "used") is None, "the claim is gone")
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "changes", "reason", "message"),
    [
        ("no-command", {"command": None}, "StartError", "has no command. The local cluster does not run images"),
        ("no-program", {"command": ["no-such-program"]}, "StartError", "executable file not found in $PATH"),
        ("killed", {"command": ["sh", "-c", "kill -9 $$$$"]}, "Error", ""),
    ],
)
def test_a_container_that_cannot_run_says_why(
    cluster: RunningCluster, name: str, changes: dict[str, object], reason: str, message: str
) -> None:
    apply(cluster, pod(name, container("pass", **changes)))
    found = terminated(wait_for_phase(cluster, name, "Failed"))
    assert found["reason"] == reason
    assert message in found.get("message", "")
    assert found["exitCode"] == (137 if name == "killed" else 128)


def test_the_end_of_the_log_is_the_message_of_a_failure_when_asked_for(cluster: RunningCluster) -> None:
    code = "import sys; print('the reason'); sys.exit(3)"
    apply(cluster, pod("logs-error", container(code, terminationMessagePolicy="FallbackToLogsOnError")))
    found = terminated(wait_for_phase(cluster, "logs-error", "Failed"))
    assert (found["exitCode"], found["message"]) == (3, "the reason")


def test_a_crashing_container_is_restarted_with_pauses_and_its_previous_log_stays(cluster: RunningCluster) -> None:
    code = "import os, sys; print('run', os.getpid()); sys.exit(1)"
    apply(cluster, pod("crashes", container(code), policy="Always"))

    def backing_off() -> dict[str, object] | None:
        found = (status(cluster, "pod", "crashes").get("containerStatuses") or [{}])[0]
        waiting = (found.get("state") or {}).get("waiting") or {}
        return found if waiting.get("reason") == "CrashLoopBackOff" and found["restartCount"] >= 2 else None

    found = wait_until(backing_off, "the container backs off after its third run")
    assert found["lastState"]["terminated"]["exitCode"] == 1  # type: ignore[index]
    assert status(cluster, "pod", "crashes")["phase"] == "Running"
    assert cluster.kubectl("logs", "crashes", "--previous").startswith("run ")
    wait_until(lambda: "BackOff" in events(cluster, "crashes"), "the back-off is told")
    cluster.kubectl("delete", "pod", "crashes")


def test_a_container_that_exceeds_its_memory_is_killed_as_out_of_memory(cluster: RunningCluster) -> None:
    # What is too much is a child's, outside of the main process' session.
    child = "import time; held = bytearray(200 << 20); time.sleep(600)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{child}'], start_new_session=True)"
    main = container(code, resources={"limits": {"memory": "100Mi"}})
    apply(cluster, pod("hungry", main))
    found = terminated(wait_for_phase(cluster, "hungry", "Failed"))
    assert (found["reason"], found["exitCode"]) == ("OOMKilled", 137)
    uid = (get(cluster, "pod", "hungry") or {})["metadata"]["uid"]
    assert processes(cluster, uid) == []


def test_a_pod_whose_scratch_volume_grows_too_large_is_evicted(cluster: RunningCluster) -> None:
    code = "import os, time; open(os.environ['S'] + '/x', 'wb').write(b'x' * (3 << 20)); time.sleep(600)"
    main = container(code, env=[{"name": "S", "value": "/s"}], volumeMounts=[{"name": "s", "mountPath": "/s"}])
    volumes = [{"name": "s", "emptyDir": {"sizeLimit": "2Mi"}}]
    apply(cluster, pod("spills", main, policy="Always", volumes=volumes))
    found = wait_for_phase(cluster, "spills", "Failed")
    assert (found["reason"], found["message"]) == (
        "Evicted",
        'Usage of EmptyDir volume "s" exceeds the limit "2Mi". ',
    )
    assert terminated(found)["exitCode"] == 137


def test_on_failure_a_container_is_restarted_until_it_succeeds(cluster: RunningCluster) -> None:
    code = (
        "import pathlib, os, sys; p = pathlib.Path(os.environ['STATE']) / 'n';"
        "n = int(p.read_text()) + 1 if p.exists() else 1; p.write_text(str(n)); sys.exit(n < 3)"
    )
    env = [{"name": "STATE", "value": "/state"}]
    main = container(code, env=env, volumeMounts=[{"name": "s", "mountPath": "/state"}])
    apply(cluster, pod("tries", main, policy="OnFailure", volumes=[{"name": "s", "emptyDir": {}}]))
    assert wait_for_phase(cluster, "tries", "Succeeded")["containerStatuses"][0]["restartCount"] == 2


def test_init_containers_run_one_after_the_other_before_the_others(cluster: RunningCluster) -> None:
    def step(name: str) -> dict[str, object]:
        code = f"import os, pathlib; p = pathlib.Path(os.environ['D']) / 'log'; p.open('a').write('{name} ')"
        env = [{"name": "D", "value": "/d"}]
        return container(code, name=name, env=env, volumeMounts=[{"name": "d", "mountPath": "/d"}])

    show = container(
        "import os; print(open(os.environ['D'] + '/log').read())",
        env=[{"name": "D", "value": "/d"}],
        volumeMounts=[{"name": "d", "mountPath": "/d"}],
    )
    volumes = [{"name": "d", "emptyDir": {}}]
    apply(cluster, pod("inits", show, initContainers=[step("one"), step("two")], volumes=volumes))
    wait_for_phase(cluster, "inits", "Succeeded")
    assert cluster.kubectl("logs", "inits") == "one two \n"


def test_a_failed_init_container_fails_a_pod_that_is_never_restarted(cluster: RunningCluster) -> None:
    apply(cluster, pod("bad-init", container("pass"), initContainers=[container("raise SystemExit(4)", name="i")]))
    found = wait_for_phase(cluster, "bad-init", "Failed")
    assert found["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 4
    assert found["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"


def test_a_pod_waits_for_a_config_map_that_does_not_exist_yet(cluster: RunningCluster) -> None:
    env = [{"name": "V", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "v"}}}]
    apply(cluster, pod("waits", container("import os; print(os.environ['V'])", env=env)))

    def waiting() -> dict[str, str] | None:
        found = (status(cluster, "pod", "waits").get("containerStatuses") or [{}])[0]
        state = (found.get("state") or {}).get("waiting") or {}
        return state if state.get("reason") == "CreateContainerConfigError" else None

    assert 'configmap "late" not found' in wait_until(waiting, "the pod says what it waits for")["message"]
    apply(cluster, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}, "data": {"v": "here"}})
    wait_for_phase(cluster, "waits", "Succeeded")
    assert cluster.kubectl("logs", "waits") == "here\n"


def test_a_container_that_is_not_alive_is_restarted(cluster: RunningCluster) -> None:
    probe = {"exec": {"command": ["sh", "-c", "false"]}, "periodSeconds": 1, "failureThreshold": 1}
    apply(cluster, pod("dead", container(SLEEP, livenessProbe=probe), policy="Always", grace_s=1))

    def restarted() -> bool:
        found = (status(cluster, "pod", "dead").get("containerStatuses") or [{}])[0]
        return bool(found.get("restartCount", 0) >= 1)

    wait_until(restarted, "the container was restarted")
    wait_until(lambda: {"Unhealthy", "Killing"} <= events(cluster, "dead"), "the reason is told")
    cluster.kubectl("delete", "pod", "dead")


def test_readiness_follows_its_probe(cluster: RunningCluster) -> None:
    probe = {"exec": {"command": ["test", "-e", "/flags/ready"]}, "periodSeconds": 1}
    mounts = [{"name": "f", "mountPath": "/flags"}]
    claim = [{"name": "f", "persistentVolumeClaim": {"claimName": "alidade-workspace"}}]
    apply(cluster, pod("slow", container(SLEEP, readinessProbe=probe, volumeMounts=mounts), volumes=claim, grace_s=1))
    wait_for_phase(cluster, "slow", "Running")
    assert conditions(cluster, "pod", "slow")["Ready"] == "False"
    (cluster.data_dir / "volumes/default/alidade-workspace/ready").touch()
    cluster.kubectl("wait", "pod/slow", "--for=condition=Ready", "--timeout=120s")
    cluster.kubectl("delete", "pod", "slow")


def test_deleting_a_pod_asks_first_and_leaves_no_process(cluster: RunningCluster) -> None:
    code = (
        "import signal, subprocess, sys, time;"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True);"
        "signal.signal(signal.SIGTERM, lambda *_: (open('said-bye', 'w').close(), sys.exit(0)));"
        "print('up'); time.sleep(600)"
    )
    claim = [{"name": "w", "persistentVolumeClaim": {"claimName": "alidade-workspace"}}]
    main = container(code, workingDir="/w", volumeMounts=[{"name": "w", "mountPath": "/w"}])
    apply(cluster, pod("asked", main, volumes=claim, grace_s=20))
    wait_until(lambda: "up" in cluster.kubectl("logs", "asked", check=False), "the program runs")
    found = get(cluster, "pod", "asked")
    assert found is not None
    uid = found["metadata"]["uid"]
    assert len(processes(cluster, uid)) == 2
    cluster.kubectl("delete", "pod", "asked")
    assert processes(cluster, uid) == []
    assert (cluster.data_dir / "volumes/default/alidade-workspace/said-bye").exists()
    wait_until(lambda: not (cluster.data_dir / "pods" / uid).exists(), "the pod's folder is gone")


def test_a_program_that_ignores_sigterm_is_killed_after_the_grace_period(cluster: RunningCluster) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(600)"
    apply(cluster, pod("stubborn", container(code), grace_s=1))
    wait_until(lambda: "up" in cluster.kubectl("logs", "stubborn", check=False), "the program runs")
    uid = (get(cluster, "pod", "stubborn") or {})["metadata"]["uid"]
    cluster.kubectl("delete", "pod", "stubborn")
    assert processes(cluster, uid) == []


def test_a_forced_deletion_kills_at_once_even_while_the_pod_is_ending(cluster: RunningCluster) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(600)"
    apply(cluster, pod("forced", container(code), grace_s=600))
    wait_until(lambda: "up" in cluster.kubectl("logs", "forced", check=False), "the program runs")
    uid = (get(cluster, "pod", "forced") or {})["metadata"]["uid"]
    cluster.kubectl("delete", "pod", "forced", "--wait=false")
    assert len(processes(cluster, uid)) == 1
    cluster.kubectl("delete", "pod", "forced", "--force", "--grace-period=0")
    wait_until(lambda: processes(cluster, uid) == [], "the process is gone", timeout_s=60)


def test_a_sidecar_starts_before_and_ends_after_the_other_containers(cluster: RunningCluster) -> None:
    serve = "import os; from http.server import *; HTTPServer((os.environ['IP'], 9000), SimpleHTTPRequestHandler)"
    ask = "import os, urllib.request as r; print(r.urlopen(f\"http://{os.environ['IP']}:9000/\").status)"
    env = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    probe = {"tcpSocket": {"port": 9000}, "periodSeconds": 1}
    sidecar = container(f"{serve}.serve_forever()", name="side", env=env, restartPolicy="Always", startupProbe=probe)
    apply(cluster, pod("with-side", container(ask, env=env), initContainers=[sidecar]))
    wait_for_phase(cluster, "with-side", "Succeeded")
    assert cluster.kubectl("logs", "with-side", "-c", "main") == "200\n"


def test_a_pre_stop_hook_runs_before_the_signal(cluster: RunningCluster) -> None:
    code = (
        "import signal, time, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); print('up'); time.sleep(600)"
    )
    hook = {"preStop": {"exec": {"command": ["touch", "/w/hooked"]}}}
    claim = [{"name": "w", "persistentVolumeClaim": {"claimName": "alidade-workspace"}}]
    main = container(code, lifecycle=hook, volumeMounts=[{"name": "w", "mountPath": "/w"}])
    apply(cluster, pod("hooked", main, volumes=claim))
    wait_until(lambda: "up" in cluster.kubectl("logs", "hooked", check=False), "the program runs")
    cluster.kubectl("delete", "pod", "hooked")
    assert (cluster.data_dir / "volumes/default/alidade-workspace/hooked").exists()


def test_a_pod_ends_when_its_deadline_passes(cluster: RunningCluster) -> None:
    apply(cluster, pod("late-pod", container(SLEEP), grace_s=1, activeDeadlineSeconds=1))
    assert wait_for_phase(cluster, "late-pod", "Failed")["reason"] == "DeadlineExceeded"


def test_gpus_go_to_those_who_ask_and_to_one_at_a_time(cluster: RunningCluster) -> None:
    show = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    one = {"limits": {"nvidia.com/gpu": "1"}}
    holds = [container(f"{show}; import time; time.sleep(600)", resources=one)]
    apply(
        cluster, pod("holds-a", *holds, grace_s=1), pod("holds-b", *holds, grace_s=1), pod("has-none", container(show))
    )
    wait_for_phase(cluster, "has-none", "Succeeded")
    assert cluster.kubectl("logs", "has-none") == "\n"
    seen = {
        wait_until(
            lambda name=name: (
                cluster.kubectl("logs", name, check=False).strip().endswith(("aaaa", "bbbb"))
                and cluster.kubectl("logs", name)
            ),
            f"{name} shows its GPU",
        )
        for name in ("holds-a", "holds-b")
    }
    assert seen == {f"{uuid}\n" for uuid in GPUS}
    past_the_scheduler = pod("refused-gpu", container(show, resources=one), nodeName="local")
    apply(cluster, pod("waits-for-gpu", container(show, resources=one)), past_the_scheduler)
    assert wait_for_phase(cluster, "refused-gpu", "Failed")["reason"] == "UnexpectedAdmissionError"
    wait_until(lambda: conditions(cluster, "pod", "waits-for-gpu").get("PodScheduled") == "False", "none is left")
    cluster.kubectl("delete", "pod", "holds-a", "holds-b")
    wait_for_phase(cluster, "waits-for-gpu", "Succeeded")
    assert cluster.kubectl("logs", "waits-for-gpu").strip() in GPUS
    labels = json.loads(cluster.kubectl("get", "node", "local", "-o", "json"))["metadata"]["labels"]
    assert labels["nvidia.com/gpu.product"] == "NVIDIA-A100-SXM4-80GB"


def test_a_pod_that_fits_nowhere_waits_and_says_why(cluster: RunningCluster) -> None:
    greedy = container("pass", resources={"limits": {"nvidia.com/gpu": "3"}})
    apply(cluster, pod("greedy", greedy))
    wait_until(lambda: conditions(cluster, "pod", "greedy").get("PodScheduled") == "False", "it is unschedulable")
    [condition] = status(cluster, "pod", "greedy")["conditions"]
    assert (condition["reason"], condition["message"]) == (
        "Unschedulable",
        "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
    )
    wait_until(lambda: "FailedScheduling" in events(cluster, "greedy"), "an event says so")
    cluster.kubectl("delete", "pod", "greedy")


def test_following_a_log_ends_with_the_container(cluster: RunningCluster) -> None:
    apply(cluster, pod("follows", container("import time\nfor i in range(3): print(i); time.sleep(0.2)")))
    wait_until(lambda: status(cluster, "pod", "follows").get("phase") in ("Running", "Succeeded"), "it runs")
    assert cluster.kubectl("logs", "-f", "follows") == "0\n1\n2\n"


def test_config_maps_and_secrets_change_in_running_pods(cluster: RunningCluster) -> None:
    code = """
import pathlib, time
seen = ""
while seen != "two new two":
    now = " ".join(path.read_text() for path in sorted(pathlib.Path("/live").iterdir()) if path.is_file())
    if now != seen:
        print(now, flush=True)
    seen = now
    time.sleep(0.02)
"""
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "live"}, "data": {"a": "one"}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "live"}, "stringData": {"c": "one"}}
    projected = {"sources": [{"configMap": {"name": "live"}}, {"secret": {"name": "live"}}]}
    main = container(code, volumeMounts=[{"name": "v", "mountPath": "/live"}])
    apply(cluster, config, secret, pod("lives", main, volumes=[{"name": "v", "projected": projected}], grace_s=1))
    wait_until(lambda: "one one" in cluster.kubectl("logs", "lives", check=False), "it sees what there is at first")
    apply(cluster, config | {"data": {"a": "two", "b": "new"}})
    wait_until(lambda: "two new one" in cluster.kubectl("logs", "lives"), "it sees the ConfigMap change")
    apply(cluster, secret | {"stringData": {"c": "two"}})
    wait_for_phase(cluster, "lives", "Succeeded")
    cluster.kubectl("delete", "configmap/live", "secret/live", "pod/lives")


@pytest.mark.skipif(
    bool(os.environ.get("KUBEBUILDER_ASSETS")), reason="a real API server takes no endpoints on loopback"
)
def test_a_service_knows_the_pods_behind_it(cluster: RunningCluster) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "backend"},
        "spec": {"selector": {"app": "backend-pod"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    apply(cluster, service, pod("backend-pod", container(SLEEP), grace_s=1))
    address = wait_for_phase(cluster, "backend-pod", "Running")["podIP"]

    def ready_addresses() -> list[str]:
        subsets = (get(cluster, "endpoints", "backend") or {}).get("subsets") or [{}]
        return [entry["ip"] for entry in subsets[0].get("addresses") or []]

    wait_until(lambda: ready_addresses() == [address], "the pod is an endpoint")
    slices = json.loads(
        cluster.kubectl("get", "endpointslices", "-l", "kubernetes.io/service-name=backend", "-o", "json")
    )
    assert slices["items"][0]["endpoints"][0]["addresses"] == [address]
    cluster.kubectl("delete", "pod", "backend-pod")
    wait_until(lambda: ready_addresses() == [], "the endpoint is gone")
    cluster.kubectl("delete", "service", "backend")
    wait_until(lambda: get(cluster, "endpoints", "backend") is None, "the endpoints are gone")


def test_every_namespace_gets_its_default_account(cluster: RunningCluster) -> None:
    apply(cluster, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "fresh"}})

    def account() -> bool:
        return "default" in cluster.kubectl("-n", "fresh", "get", "serviceaccounts", "-o", "name", check=False)

    wait_until(account, "the account exists")
    cluster.kubectl("-n", "fresh", "delete", "serviceaccount", "default")
    wait_until(account, "the account exists again")
