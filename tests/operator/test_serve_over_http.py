"""A ModelServe against the local API server, with a real operator; the test plays the cluster's controllers."""

from __future__ import annotations

from typing import Any

from alidade_crds.contract import ResultDocument
from alidade_crds.modelserve import QuantizationReport
from alidade_operator.api import (
    AUTOSCALER,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    JOB,
    MODEL_SERVE,
    NETWORK_POLICY,
    SERVICE,
)
from tests.operator.conftest import Process
from tests.operator.played import Played, send

Q4 = {"method": "gguf", "type": "q4_k_m", "maxPerplexityIncrease": 0.1}


def result(after: float = 10.5) -> ResultDocument:
    """A quantization that has ended well."""
    report = QuantizationReport(
        method="gguf",
        type="q4_k_m",
        uri="pvc://alidade-workspace/modelserves/chat/model.gguf",
        sha256="abc",
        size_bytes=300,
        perplexity_before=10.0,
        perplexity_after=after,
    )
    return ResultDocument(outcome="succeeded", quantization=report)


async def job_of(played: Played, *, other_than: str = "") -> str:
    """Name of the newest Job, once there is one."""

    async def look() -> str | None:
        jobs, _ = await played.api.list(JOB, namespace=played.namespace)
        names = [job["metadata"]["name"] for job in jobs]
        return next((name for name in names if name != other_than), None)

    name: str = await played.until(look, "a Job of the quantization")
    return name


async def test_from_apply_to_answers_to_another_model(operator: Process, played: Played) -> None:
    await played.apply_kind(
        MODEL_SERVE, "chat", {"model": {"uri": "pvc://data/one"}, "quantization": Q4, "replicas": 2}
    )
    first = await job_of(played)
    await played.phase("chat", "Quantizing", kind=MODEL_SERVE)
    await played.complete(first, "quantization", result())
    body = await played.roll_out("chat")
    assert body["spec"]["replicas"] == 2
    status = await played.phase("chat", "Serving", kind=MODEL_SERVE)
    assert (status["readyReplicas"], status["engine"]) == (2, "embedded")
    assert status["quantization"]["perplexityAfter"] == 10.5
    assert (await played.api.get(SERVICE, played.namespace, "chat"))["spec"]["ports"][0]["port"] == 80

    spec: dict[str, Any] = {"model": {"uri": "pvc://data/two"}, "quantization": Q4, "replicas": 2}
    await played.apply_kind(MODEL_SERVE, "chat", spec)
    second = await job_of(played, other_than=first)
    assert second != first
    await played.complete(second, "quantization", result(12.0))
    status = await played.phase("chat", "Failed", kind=MODEL_SERVE)
    told = {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}
    assert told["Failed"] == ("True", "PerplexityTooHigh")
    assert told["Available"] == ("True", "Serving")
    kept = await played.api.get(DEPLOYMENT, played.namespace, "chat")
    assert kept["spec"]["template"] == body["spec"]["template"], "what is served stays"

    # The way back is the job that is there.
    await played.apply_kind(MODEL_SERVE, "chat", spec | {"model": {"uri": "pvc://data/one"}})
    await played.phase("chat", "Serving", kind=MODEL_SERVE)
    jobs, _ = await played.api.list(JOB, namespace=played.namespace)
    assert len(jobs) == 2


async def test_kubectl_scale_reaches_the_deployment(operator: Process, played: Played) -> None:
    await played.apply_kind(MODEL_SERVE, "scaled", {"model": {"uri": "pvc://data/one"}})
    await played.roll_out("scaled")
    await played.phase("scaled", "Serving", kind=MODEL_SERVE)
    path = MODEL_SERVE.path(played.namespace, "scaled", "scale")
    scale = {"spec": {"replicas": 3}}
    await send(played.api, "PATCH", MODEL_SERVE, path, scale, content_type="application/merge-patch+json")

    async def scaled() -> bool:
        body = await played.api.get(DEPLOYMENT, played.namespace, "scaled")
        return bool(body["spec"]["replicas"] == 3)

    await played.until(scaled, "three replicas")
    await played.phase("scaled", "Updating", kind=MODEL_SERVE)
    await played.roll_out("scaled")
    await played.phase("scaled", "Serving", kind=MODEL_SERVE)
    answer = await played.api.get(MODEL_SERVE, played.namespace, "scaled/scale")
    assert answer["status"]["replicas"] == 3
    assert "app.kubernetes.io/instance=scaled" in answer["status"]["selector"]


async def test_the_api_server_takes_what_is_made_around_replicas(operator: Process, played: Played) -> None:
    scaling = {"min": 1, "max": 3, "provider": "hpa"}
    spec = {"model": {"uri": "pvc://data/one"}, "autoscaling": scaling, "gateway": {"replicas": 2}}
    await played.apply_kind(MODEL_SERVE, "around", spec)
    await played.roll_out("around")
    await played.phase("around", "Updating", kind=MODEL_SERVE)
    await played.roll_out("around-gateway")
    status = await played.phase("around", "Serving", kind=MODEL_SERVE)
    assert status["gatewayReadyReplicas"] == 2
    told = {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}
    assert told["Scaling"] == ("True", "Autoscaled")
    for kind, names in (
        (DISRUPTION_BUDGET, {"around", "around-gateway"}),
        (NETWORK_POLICY, {"around", "around-gateway"}),
        (AUTOSCALER, {"around"}),
        (SERVICE, {"around", "around-stable", "around-canary"}),
    ):
        found, _ = await played.api.list(kind, namespace=played.namespace)
        assert names <= {body["metadata"]["name"] for body in found}
    front = await played.api.get(SERVICE, played.namespace, "around")
    assert front["spec"]["selector"]["app.kubernetes.io/component"] == "gateway"

    # A cluster's autoscaler sets another number, and an apply of ours leaves it.
    path = DEPLOYMENT.path(played.namespace, "around")
    scaled = {"spec": {"replicas": 3}}
    await send(played.api, "PATCH", DEPLOYMENT, path, scaled, content_type="application/merge-patch+json")
    await played.apply_kind(MODEL_SERVE, "around", spec | {"model": {"uri": "pvc://data/two"}})

    async def rolled() -> bool:
        body = await played.api.get(DEPLOYMENT, played.namespace, "around")
        return bool(body["metadata"]["annotations"]["alidade.dev/served-model"] == "pvc://data/two")

    await played.until(rolled, "the other model")
    assert (await played.api.get(DEPLOYMENT, played.namespace, "around"))["spec"]["replicas"] == 3
    # What is asked for no more goes.
    path = MODEL_SERVE.path(played.namespace, "around")
    bare = {"spec": {"autoscaling": None, "gateway": None, "replicas": 1}}
    await send(played.api, "PATCH", MODEL_SERVE, path, bare, content_type="application/merge-patch+json")

    async def gone() -> bool:
        found, _ = await played.api.list(AUTOSCALER, namespace=played.namespace)
        services, _ = await played.api.list(SERVICE, namespace=played.namespace)
        return not found and [body["metadata"]["name"] for body in services] == ["around"]

    await played.until(gone, "autoscaler and the Services of the sides to go")


async def test_a_deployment_of_somebody_else_is_never_taken_over(operator: Process, played: Played) -> None:
    labels = {"app": "theirs"}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "b"}]}}
    theirs = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "taken"},
        "spec": {"selector": {"matchLabels": labels}, "template": pod},
    }  # fmt: skip
    before = await played.api.create(DEPLOYMENT, played.namespace, theirs)
    await played.apply_kind(MODEL_SERVE, "taken", {"model": {"uri": "pvc://data/one"}})
    status = await played.phase("taken", "Waiting", kind=MODEL_SERVE)
    assert "Deployment taken belongs to something else" in str(status["conditions"])
    found = await played.api.get(DEPLOYMENT, played.namespace, "taken")
    assert found["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
