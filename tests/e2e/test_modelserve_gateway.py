"""Canaries and scaling to zero on the local cluster: real operator, gateways and servers, and clients that ask."""

from tests.cluster_fixtures import RunningCluster as Cluster
from tests.cluster_fixtures import wait_until
from tests.e2e.jobs import apply, conditions, finetune_job, listed, message, read, wait_until_childless
from tests.e2e.test_modelserve import Asker, generate, is_serving, model_serve

ANALYSIS = {"minRequests": 20, "seconds": 2, "maxLatencyRatio": 100}
# Some thousand times as much to compute as the others have.
SLOW = {"hiddenSize": 384, "layers": 20, "heads": 4, "vocabSize": 320, "contextLength": 64}


def deployments(cluster: Cluster, name: str) -> list[str]:
    """Names of what serves."""
    found = listed(cluster, "deployments", f"app.kubernetes.io/instance={name}")
    return sorted(body["metadata"]["name"] for body in found)


def has_succeeded(cluster: Cluster, name: str) -> bool:
    """Whether a job has."""
    return conditions(read(cluster, name)).get("Succeeded", ("",))[0] == "True"


def test_a_good_canary_takes_over_and_a_slow_one_is_taken_back_without_a_request_lost(trained_on_sums: Cluster) -> None:
    cluster = trained_on_sums
    models = ("first-of-sums", "second-of-sums", "slow-of-sums")
    slow = finetune_job("slow-of-sums", steps=1, model={"init": SLOW}, compute={"workers": 1})
    apply(cluster, finetune_job(models[0], steps=20), finetune_job(models[1], steps=30), slow)

    def rollout(**analysis: float) -> dict[str, object]:
        return {"canaryPercent": 50, "analysis": ANALYSIS | analysis}

    apply(cluster, model_serve("tried", models[0], rollout=rollout()))
    wait_until(
        lambda: is_serving(cluster, "tried", 1), lambda: str(read(cluster, "tried", "modelserve")), timeout_s=240
    )
    assert deployments(cluster, "tried") == ["tried", "tried-gateway"]
    first = read(cluster, "tried", "modelserve")["status"]
    assert (first["gatewayReadyReplicas"], first["phase"]) == (1, "Serving")
    for name in models:
        wait_until(lambda name=name: has_succeeded(cluster, name), f"{name} is there", timeout_s=240)

    asker = Asker(cluster, "tried")
    try:
        apply(cluster, model_serve("tried", models[1], rollout=rollout()))
        wait_until(
            lambda: read(cluster, "tried", "modelserve")["status"].get("canary", {}).get("requests", 0) > 0,
            lambda: str(read(cluster, "tried", "modelserve")),
        )
        wait_until(
            lambda: is_serving(cluster, "tried", 2), lambda: str(read(cluster, "tried", "modelserve")), timeout_s=120
        )
        second = read(cluster, "tried", "modelserve")["status"]
        assert second["model"] not in (None, first["model"])

        apply(cluster, model_serve("tried", models[2], rollout=rollout(maxLatencyRatio=1.5, seconds=600)))
        wait_until(
            lambda: conditions(read(cluster, "tried", "modelserve")).get("Failed") == ("True", "CanaryWorse"),
            lambda: str(read(cluster, "tried", "modelserve")),
            timeout_s=180,
        )
        wait_until(lambda: deployments(cluster, "tried") == ["tried", "tried-gateway"], "the canary is gone")
    finally:
        asker.stop()
    assert asker.lost == []
    found = read(cluster, "tried", "modelserve")
    assert "95 percent of its answers took up to" in message(found, "Failed")
    assert f"{second['model']} is served as before" in message(found, "Failed")
    report = found["status"]["returned"]["report"]
    assert report["requests"] >= 20
    assert report["secondsP95"] > 1.5 * report["stableSecondsP95"]
    cluster.kubectl("delete", "modelserve", "tried")
    wait_until_childless(
        cluster, "ModelServe", "tried", "deployments,services,pods,networkpolicies,poddisruptionbudgets", timeout_s=90
    )


def test_the_last_replica_goes_while_nobody_asks_and_the_next_request_brings_it_back(trained_on_sums: Cluster) -> None:
    cluster = trained_on_sums
    scaling = {"min": 0, "max": 2, "scaleDownAfterSeconds": 3}
    apply(cluster, finetune_job("first-of-sums", steps=20), model_serve("idle", "first-of-sums", autoscaling=scaling))

    def phase(wanted: str) -> None:
        wait_until(
            lambda: read(cluster, "idle", "modelserve").get("status", {}).get("phase") == wanted,
            lambda: str(read(cluster, "idle", "modelserve")),
            timeout_s=240,
        )

    phase("Idle")
    status = read(cluster, "idle", "modelserve")["status"]
    assert (status["replicas"], status["gatewayReadyReplicas"]) == (0, 1)
    assert conditions(read(cluster, "idle", "modelserve"))["Available"] == ("True", "ScaledToZero")
    code, text = generate(cluster, "idle")
    assert code == 200, text
    phase("Idle")
    events = cluster.kubectl("get", "events", "--field-selector", "involvedObject.name=idle")
    assert "From 0 to 1 replicas: 0 requests wait at replicas, and the gateway holds 1." in events
    assert "From 1 to 0 replicas" in events
    cluster.kubectl("delete", "modelserve", "idle")
