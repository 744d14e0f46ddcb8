"""Rules about a ModelServe: what it waits for, what it becomes, and what goes on being served meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from alidade_crds.contract import QuantizationDocument, ResultDocument
from alidade_crds.modelserve import ModelServeSpec, ModelServeStatus, QuantizationReport
from alidade_operator.api import CONFIG_MAP, DEPLOYMENT, JOB, MODEL_SERVE, NETWORK_POLICY, SERVICE, ApiError
from alidade_operator.executor import Executor
from alidade_operator.reconcile.afteralignment import serves_its_spec
from alidade_operator.reconcile.modelserve import plan_model_serve
from alidade_operator.reconcile.plan import Plan
from alidade_operator.reconcile.run import ResultView
from alidade_operator.reconcile.serve import ChildView, ModelServe, ServeObserved, child_view, quantization_job
from alidade_operator.resources.observation import Observed, SourceView
from tests.operator.builders import (
    CONFIG,
    MODEL,
    NOW,
    UID,
    condition,
    created,
    deleted,
    ended_pod,
    failure,
    observed,
    pod,
    training_job,
)
from tests.operator.memory import MemoryCluster, drive

FOLDER = {"uri": "pvc://data/model"}
FROM_SFT = {"from": {"kind": "FineTuneJob", "name": "sft"}}
READY = SourceView(exists=True, succeeded=True, model=MODEL)
Q4 = {"method": "gguf", "type": "q4_k_m"}
CLAIMS = frozenset({"alidade-workspace", "data"})


def serve(*, status: ModelServeStatus | None = None, generation: int = 1, **fields: Any) -> ModelServe:
    """A ModelServe with the fields of its spec as in YAML; by default a folder of a volume, as it is."""
    spec = ModelServeSpec.model_validate({"model": FOLDER} | fields)
    return ModelServe("team-a", "chat", UID, generation, False, spec, "", status or ModelServeStatus())


def look(**values: Any) -> ServeObserved:
    """What is observed in a namespace that has the usual claims."""
    return ServeObserved(**({"claims": CLAIMS, "quantization": observed()} | values))


def plan(resource: ModelServe, seen: ServeObserved | None = None) -> Plan:
    """The plan for a ModelServe."""
    return plan_model_serve(resource, seen or look(), CONFIG, NOW)


def after(resource: ModelServe, made: Plan) -> ModelServe:
    """The resource once a plan's status has been written."""
    if made.status is None:
        return resource
    assert isinstance(made.status, ModelServeStatus)
    return replace(resource, status=made.status)


def status_of(made: Plan) -> ModelServeStatus:
    """The status that a plan writes."""
    assert isinstance(made.status, ModelServeStatus)
    return made.status


def body_of(made: Plan, kind: Any) -> dict[str, Any]:
    """The child of a kind that a plan makes."""
    return next(child.body for child in made.children if child.kind is kind)


def running(made: Plan, **values: Any) -> dict[str, Any]:
    """Deployment, Service and NetworkPolicy as a plan has applied them, every replica ready."""
    views: dict[str, Any] = {}
    for name, kind in (("deployment", DEPLOYMENT), ("service", SERVICE)):
        body = body_of(made, kind)
        metadata = body["metadata"] | {"uid": f"uid-{name}", "generation": 3}
        count = body["spec"].get("replicas", 0)
        numbers = {f"{word}Replicas": count for word in ("updated", "ready", "available")}
        status = numbers | {"observedGeneration": 3, "replicas": count}
        views[name] = child_view({"metadata": metadata, "spec": body["spec"], "status": status}, UID)
    policy = body_of(made, NETWORK_POLICY)
    policy["metadata"]["uid"] = "uid-policy"
    views["others"] = {(NETWORK_POLICY.kind, "chat"): child_view(policy, UID)}
    return views | {"deployment": replace(views["deployment"], **values)}


def quantized(before: float = 10.0, after_: float = 10.2, **values: Any) -> ResultDocument:
    """The result of a quantization that has ended well."""
    report = QuantizationReport(
        method="gguf",
        type="q4_k_m",
        uri="pvc://alidade-workspace/modelserves/chat-0f8fad5b/q4_k_m-x/model.gguf",
        sha256="abc",
        size_bytes=300,
        size_bytes_before=1000,
        perplexity_before=before,
        perplexity_after=after_,
    )
    return ResultDocument(**({"outcome": "succeeded", "quantization": report} | values))


def job_name(resource: ModelServe, seen: ServeObserved) -> str:
    """What the names of the quantization's Jobs begin with."""
    job = quantization_job(resource, seen.source, CONFIG)
    assert job is not None
    return job.base


def quantizing(
    resource: ModelServe, state: str, *, attempt: int = 1, result: Any = None, **values: Any
) -> ServeObserved:
    """The quantization's Job in a state; result: of its pod, which has ended then."""
    base = job_name(resource, look(**values))
    job = training_job(attempt, state=state, kind=JOB, name=f"{base}-{attempt}", base=base)
    code = 0 if result is None or result.failure is None else 1
    pods = (ended_pod(attempt, exit_code=code, result=result),) if result is not None else ()
    return look(quantization=observed(jobs=(job,), pods=pods, document_exists=True), **values)


# From the spec to Deployment and Service


def test_a_folder_of_a_volume_gets_service_and_deployment() -> None:
    made = plan(serve())
    assert created(made) == ["Deployment/chat", "Service/chat", "NetworkPolicy/chat"]
    assert condition(made, "Accepted")[:2] == ("True", "Valid")
    assert condition(made, "Quantized") == ("True", "NotAskedFor", "The weights stay as they are.")
    assert condition(made, "Progressing")[:2] == ("True", "RollingOut")
    assert condition(made, "Available")[0] == "False"
    assert (status_of(made).phase, status_of(made).engine) == ("Starting", "embedded")
    assert status_of(made).url == "http://chat.team-a.svc"


def test_no_replica_goes_before_another_is_ready() -> None:
    spec = body_of(plan(serve(replicas=3)), DEPLOYMENT)["spec"]
    assert spec["replicas"] == 3
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def test_the_server_is_told_model_name_limits_and_where_to_listen() -> None:
    limits = {"maxInputTokens": 10, "maxTotalTokens": 20, "maxConcurrentRequests": 4}
    (container,) = body_of(plan(serve(limits=limits)), DEPLOYMENT)["spec"]["template"]["spec"]["containers"]
    assert container["command"][0] == "alidade-serve"
    assert {
        "--model=/volumes/data/model", "--name=chat", "--host=$(POD_IP)", "--port=8080", "--max-input-tokens=10",
        "--max-total-tokens=20", "--max-concurrent-requests=4", "--slots=4",
    } <= set(container["command"])  # fmt: skip
    assert not any(flag.startswith("--keys-from") for flag in container["command"])
    assert container["readinessProbe"]["httpGet"]["path"] == "/health"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"


def test_limits_that_are_not_set_are_left_to_the_server_which_knows_the_context() -> None:
    (container,) = body_of(plan(serve()), DEPLOYMENT)["spec"]["template"]["spec"]["containers"]
    assert {"--max-input-tokens=0", "--max-total-tokens=0"} <= set(container["command"])


def test_every_flag_is_one_that_the_server_knows() -> None:
    from alidade_serving.settings import read_settings

    made = plan(serve(auth={"secretName": "keys"}))
    (container,) = body_of(made, DEPLOYMENT)["spec"]["template"]["spec"]["containers"]
    settings = read_settings(container["command"][1:], {})
    assert settings.drain_delay_s + settings.drain_timeout_s < 60, "the pod's grace period"
    assert settings.name == "chat"


def test_keys_are_mounted_from_the_secret_and_never_read() -> None:
    spec = body_of(plan(serve(auth={"secretName": "keys"})), DEPLOYMENT)["spec"]["template"]["spec"]
    assert {"name": "keys", "secret": {"secretName": "keys"}} in spec["volumes"]
    assert "--keys-from=/etc/alidade/keys" in spec["containers"][0]["command"]


def test_the_replicas_pass_the_restricted_pod_security_standard() -> None:
    spec = body_of(plan(serve()), DEPLOYMENT)["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    context = spec["containers"][0]["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["readOnlyRootFilesystem"] is True
    (mount,) = [one for one in spec["containers"][0]["volumeMounts"] if one["name"] == "model"]
    assert mount == {"name": "model", "mountPath": "/volumes/data", "readOnly": True}


def test_children_belong_to_the_model_serve_and_the_service_finds_its_replicas() -> None:
    made = plan(serve())
    for child in made.children:
        (owner,) = child.body["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("ModelServe", "chat", UID, True)
    selector = body_of(made, SERVICE)["spec"]["selector"]
    deployment = body_of(made, DEPLOYMENT)["spec"]
    assert deployment["selector"]["matchLabels"] == selector
    assert selector.items() <= deployment["template"]["metadata"]["labels"].items()
    assert status_of(made).selector == ",".join(f"{name}={value}" for name, value in sorted(selector.items()))


def test_a_model_serve_whose_replicas_all_answer_is_left_alone() -> None:
    fresh = serve()
    made = plan(fresh)
    seen = look(**running(made))
    told = plan(after(fresh, made), seen)
    assert told.children == ()
    assert condition(told, "Available")[:2] == ("True", "Serving")
    assert condition(told, "Progressing") == ("False", "Completed", "Every replica serves pvc://data/model.")
    assert (status_of(told).phase, status_of(told).model) == ("Serving", "pvc://data/model")
    again = plan(after(fresh, told), seen)
    assert (again.status, again.children, again.notices) == (None, (), ())


def test_another_number_of_replicas_is_told_with_the_plan_that_asks_for_it() -> None:
    before = plan(serve())
    made = plan(serve(replicas=3), look(**running(before)))
    assert body_of(made, DEPLOYMENT)["spec"]["replicas"] == 3
    assert (status_of(made).phase, condition(made, "Progressing")[:2]) == ("Updating", ("True", "RollingOut"))
    assert condition(made, "Available")[0] == "True"


def test_what_the_digest_says_is_new_is_rolled_out_although_its_address_is_the_same() -> None:
    first = plan(serve(model=FROM_SFT), look(source=READY))
    newer = replace(READY, model=MODEL.model_copy(update={"digest": "sha256:newer"}))
    made = plan(serve(model=FROM_SFT), look(source=newer, **running(first)))
    assert created(made) == ["Deployment/chat"]


# What is refused

REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"adapters": [{"name": "a", "model": FOLDER}], "quantization": Q4}, "InvalidSpec", "spec.adapters is set"),
    ({"engine": "vllm"}, "InvalidSpec", "spec.engine is vllm"),
    ({"engine": "tgi"}, "InvalidSpec", "spec.engine is tgi"),
    *(
        ({"quantization": {"method": name}}, "InvalidSpec", f"spec.quantization.method is {name}")
        for name in ("gptq", "awq", "fp8", "nf4")
    ),
    ({"model": FOLDER | {"trustRemoteCode": True}}, "FeatureNotAvailable", "spec.model.trustRemoteCode is true"),
    ({"compute": {"nodePool": "a100-80gb"}}, "InvalidSpec", "spec.engine is auto, which means vllm in pool a100-80gb"),
    ({"model": {"uri": "hf://org/name"}}, "FeatureNotAvailable", "spec.quantization.method is none"),
    ({"compute": {"nodePool": "none"}}, "NodePoolUnknown", "spec.compute.nodePool is none"),
    (
        {"compute": {"nodePool": "a100-80gb", "gpusPerWorker": 1}, "engine": "embedded"},
        "InvalidSpec",
        "spec.compute.gpusPerWorker is 1",
    ),
    ({"compute": {"workers": 2}}, "InvalidSpec", "spec.compute.workers is set"),
    (
        {"quantization": {"method": "gguf", "type": "q9"}},
        "InvalidSpec",
        "spec.quantization.type is q9; write one of f32",
    ),
    (
        {"quantization": {"maxPerplexityIncrease": 0.1}},
        "InvalidSpec",
        "maxPerplexityIncrease is set and method is none",
    ),
    ({"model": {"from": {"kind": "RewardModel", "name": "judge"}}}, "InvalidSpec", "judges answers and gives none"),
    (
        {"model": {"init": {"hiddenSize": 8, "layers": 1, "heads": 1, "vocabSize": 300}}},
        "InvalidSpec",
        "learned nothing",
    ),
    ({"model": {"uri": "pvc://lost/model"}}, "VolumeMissing", "spec.model.uri names claim lost"),
    ({"model": {"uri": "file:///models/a"}}, "FileUriNotAllowed", "spec.model.uri is file:///models/a"),
]


@pytest.mark.parametrize(("fields", "reason", "words"), REFUSED)
def test_what_cannot_be_served_is_said_with_its_field(fields: dict[str, Any], reason: str, words: str) -> None:
    made = plan(serve(**fields))
    assert made.children == ()
    status, told, message = condition(made, "Accepted")
    assert (status, told) == ("False", reason)
    assert words in message
    assert condition(made, "Progressing")[:2] == ("False", reason)
    assert status_of(made).phase == "Waiting"


@pytest.mark.parametrize(
    ("source", "status", "words"),
    [
        (SourceView(exists=False), "Unknown", "FineTuneJob sft, which does not exist yet"),
        (SourceView(exists=True), "Unknown", "Waiting for FineTuneJob sft to succeed."),
        (SourceView(exists=True, failed=True), "False", "which has failed"),
    ],
)
def test_a_model_that_is_not_there_yet_is_waited_for(source: SourceView, status: str, words: str) -> None:
    made = plan(serve(model=FROM_SFT), look(source=source))
    assert made.children == ()
    assert condition(made, "Accepted")[0] == status
    assert words in condition(made, "Accepted")[2]


@pytest.mark.parametrize("kind", ["deployment", "service"])
def test_an_object_of_that_name_that_is_not_ours_is_left_alone(kind: str) -> None:
    theirs = ChildView(uid="theirs", owned=False, terminating=False, applied=None)
    made = plan(serve(), look(**{kind: theirs}))
    assert (made.children, made.deletions) == ((), ())
    assert condition(made, "Accepted")[1] == "NameTaken"
    assert made.look_again_s is not None, "nobody tells when it goes"


def test_what_is_served_stays_when_the_spec_becomes_one_that_cannot_be() -> None:
    first = plan(serve())
    made = plan(serve(engine="vllm"), look(**running(first)))
    assert (made.children, made.deletions) == ((), ())
    assert condition(made, "Available")[0] == "True"
    assert condition(made, "Accepted")[2].endswith("pvc://data/model is served as before.")


# Quantization


def test_a_quantization_is_one_job_named_by_what_decides_its_result() -> None:
    resource = serve(quantization=Q4)
    made = plan(resource)
    base = job_name(resource, look())
    assert created(made) == [f"ConfigMap/{base}-job", f"Job/{base}-1"]
    assert condition(made, "Quantized")[:2] == ("False", "JobCreated")
    assert status_of(made).phase == "Quantizing"
    document = QuantizationDocument.model_validate_json(body_of(made, CONFIG_MAP)["data"]["job.json"])
    assert (document.model.uri, document.type, document.method) == ("pvc://data/model", "q4_k_m", "gguf")
    assert document.output.startswith("pvc://alidade-workspace/modelserves/chat-0f8fad5b/q4_k_m-")
    container = body_of(made, JOB)["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["alidade-trainer", "quantize"]
    assert container["image"] == "alidade/trainer:0.1.0"


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({"quantization": Q4 | {"maxPerplexityIncrease": 0.1}}, True),
        ({"replicas": 4}, True),
        ({"limits": {"maxConcurrentRequests": 4}}, True),
        ({"quantization": Q4 | {"type": "q8_0"}}, False),
        ({"quantization": Q4 | {"calibration": {"uri": "pvc://data/texts.jsonl"}}}, False),
        ({"model": {"uri": "pvc://data/other"}}, False),
    ],
)
def test_only_what_decides_the_result_makes_another_job(changes: dict[str, Any], is_same: bool) -> None:
    one, other = serve(quantization=Q4), serve(**({"quantization": Q4} | changes))
    assert (job_name(one, look()) == job_name(other, look())) is is_same


@pytest.mark.parametrize(("method", "type_"), [("int8", "q8_0"), ("int4", "q4_0")])
def test_int8_and_int4_are_the_types_of_that_many_bits(method: str, type_: str) -> None:
    made = plan(serve(quantization={"method": method}))
    document = QuantizationDocument.model_validate_json(body_of(made, CONFIG_MAP)["data"]["job.json"])
    assert (document.method, document.type) == (method, type_)


def test_a_quantized_model_is_rolled_out_with_the_numbers_in_the_status() -> None:
    resource = serve(quantization=Q4)
    begun = after(resource, plan(resource))
    made = plan(begun, quantizing(resource, "succeeded", result=quantized()))
    assert created(made) == ["Deployment/chat", "Service/chat", "NetworkPolicy/chat"]
    assert condition(made, "Quantized") == (
        "True", "Completed", "q4_k_m: 300 bytes, 30% of before; perplexity 10.0 before, 10.2 after.",
    )  # fmt: skip
    report = status_of(made).quantization
    assert report is not None
    assert (report.size_bytes, report.sha256) == (300, "abc")
    command = body_of(made, DEPLOYMENT)["spec"]["template"]["spec"]["containers"][0]["command"]
    assert "--model=/volumes/alidade-workspace/modelserves/chat-0f8fad5b/q4_k_m-x/model.gguf" in command


def test_the_result_is_kept_when_the_job_is_gone() -> None:
    resource = serve(quantization=Q4)
    begun = after(resource, plan(resource))
    done = plan(begun, quantizing(resource, "succeeded", result=quantized()))
    made = plan(after(begun, done), look(**running(done)))
    assert made.children == ()
    assert status_of(made).phase == "Serving"


def test_a_model_that_loses_too_much_is_refused_and_the_one_before_is_served() -> None:
    first = plan(serve())
    resource = serve(quantization=Q4 | {"maxPerplexityIncrease": 0.01}, generation=2)
    seen = quantizing(resource, "succeeded", result=quantized(), **running(first))
    made = plan(after(resource, plan(resource)), seen)
    assert (made.children, deleted(made)) == ((), [])
    assert condition(made, "Failed") == (
        "True", "PerplexityTooHigh",
        "Perplexity rose from 10.0 to 10.2, by 2.0%; spec.quantization.maxPerplexityIncrease is 0.01. Use a type with "
        "more bits, or raise the limit. pvc://data/model is served as before.",
    )  # fmt: skip
    assert condition(made, "Available")[0] == "True"
    raised = replace(after(resource, made), spec=serve(quantization=Q4 | {"maxPerplexityIncrease": 0.03}).spec)
    assert created(plan(raised, seen)) == ["Deployment/chat"], "the result that is there is judged anew"


def test_what_is_served_stays_while_another_model_is_quantized_and_still_scales() -> None:
    first = plan(serve())
    resource = serve(quantization=Q4, replicas=5, generation=2)
    seen = quantizing(resource, "running", **running(first))
    made = plan(after(resource, plan(resource)), seen)
    (child,) = made.children
    assert (child.kind, child.body["spec"]) == (DEPLOYMENT, {"replicas": 5})
    assert condition(made, "Available")[0] == "True"
    assert condition(made, "Progressing")[0] == "True", "what answers is not what the spec asks for"


def test_a_failed_quantization_says_why_and_is_tried_again_when_the_spec_is_changed() -> None:
    resource = serve(quantization=Q4)
    begun = after(resource, plan(resource))
    seen = quantizing(resource, "failed", result=failure("ModelInvalid", message="It is broken."))
    made = plan(begun, seen)
    assert condition(made, "Failed")[:2] == ("True", "QuantizationFailed")
    assert "ModelInvalid" in condition(made, "Failed")[2]
    changed = replace(after(begun, made), generation=2)
    again = plan(changed, seen)
    later = plan_model_serve(after(changed, again), seen, CONFIG, NOW.replace(minute=59))
    assert [name for name in created(later) if name.startswith("Job/")] == [f"Job/{job_name(resource, seen)}-2"]


def test_a_quantization_that_nobody_waits_for_any_more_is_stopped() -> None:
    other = training_job(1, kind=JOB, name="chat-q-0-1", base="chat-q-0")
    made = plan(serve(), look(other_jobs=(other, training_job(2, state="succeeded", kind=JOB, base="chat-q-1"))))
    assert deleted(made) == ["Job/chat-q-0-1"]


def test_a_namespace_without_workspace_is_told_where_quantized_models_go() -> None:
    bare = Observed(claims=frozenset({"data"}))
    made = plan(serve(quantization=Q4), look(quantization=bare))
    assert condition(made, "Accepted")[:2] == ("False", "WorkspaceMissing")


def test_a_name_that_is_too_long_for_the_pods_of_a_quantization_is_refused() -> None:
    made = plan(replace(serve(quantization=Q4), name="x" * 40))
    assert condition(made, "Accepted")[:2] == ("False", "NameTooLong")
    assert plan(replace(serve(quantization=Q4), name="x" * 39)).children


# Replicas


def test_a_server_that_ends_by_itself_is_quoted() -> None:
    first = plan(serve())
    crashed = ended_pod(1, exit_code=1, message_text="loading\nalidade-serve: --max-total-tokens is 2048\n")
    made = plan(serve(), look(pods=(crashed,), **running(first, ready=0, available=0)))
    assert condition(made, "Available") == (
        "False", "NoReplicaReady",
        "No replica answers. Pod demo-1-master-0 ended: alidade-serve: --max-total-tokens is 2048",
    )  # fmt: skip


def test_a_rollout_that_takes_too_long_has_failed_while_the_old_replicas_serve() -> None:
    first = plan(serve())
    stuck = pod(1, message="Unschedulable: no node")
    views = running(first, updated=1, replicas=2, stalled="it has timed out progressing.")
    made = plan(serve(), look(pods=(stuck,), **views))
    assert condition(made, "Failed")[:2] == ("True", "RolloutStalled")
    assert "Unschedulable: no node" in condition(made, "Failed")[2]
    assert condition(made, "Available")[0] == "True"


def test_no_replicas_are_a_stop_and_not_a_failure() -> None:
    made = plan(serve(replicas=0))
    told = plan(serve(replicas=0), look(**running(made)))
    assert condition(told, "Available")[:2] == ("False", "Stopped")
    assert condition(told, "Progressing")[:2] == ("False", "Stopped")
    assert (status_of(told).phase, status_of(told).model) == ("Stopped", None)


def test_a_model_serve_that_is_being_deleted_is_left_to_the_garbage_collector() -> None:
    assert plan(replace(serve(), terminating=True)) == Plan()


def test_a_spec_of_another_version_is_refused() -> None:
    made = plan(replace(serve(), spec=None, spec_error="spec.model: Field required."))
    assert condition(made, "Accepted") == ("False", "InvalidSpec", "spec.model: Field required.")


def test_the_kind_is_one_that_is_watched() -> None:
    from alidade_operator.resync import WATCHED_KINDS, selector_of

    assert {MODEL_SERVE, DEPLOYMENT, SERVICE} <= set(WATCHED_KINDS)
    assert selector_of(DEPLOYMENT) == selector_of(SERVICE) == "app.kubernetes.io/managed-by=alidade"


def test_a_child_that_a_quota_refuses_is_told_of_and_what_is_served_is_not_forgotten() -> None:
    cluster = MemoryCluster()
    cluster.api.refused.add(DEPLOYMENT.kind)
    body = cluster.put(MODEL_SERVE, "chat", spec={"model": FOLDER})
    resource = ModelServe.parse(cluster.api.objects["ModelServe", "chat"])
    made = plan(resource)
    with pytest.raises(ApiError):
        drive(Executor(cluster.api, cluster.cache).carry_out(made, MODEL_SERVE, body, NOW))
    status = cluster.api.objects["ModelServe", "chat"]["status"]
    told, summary = status["conditions"]
    assert (told["type"], told["status"], told["reason"]) == ("Progressing", "True", "LaunchRefused")
    assert (summary["type"], summary["status"]) == ("Reconciling", "True")
    assert "The API server refused Deployment chat" in told["message"]


# The run that made it


@pytest.mark.parametrize(
    ("conditions", "is_served"),
    [
        ({"Available": "True", "Progressing": "False", "Failed": "False", "Accepted": "True"}, True),
        ({"Available": "True", "Progressing": "True", "Failed": "False", "Accepted": "True"}, False),
        ({"Available": "True", "Progressing": "False", "Failed": "True", "Accepted": "True"}, False),
        ({"Available": "True", "Progressing": "False", "Failed": "False", "Accepted": "False"}, False),
        ({"Available": "False", "Progressing": "False", "Failed": "False", "Accepted": "True"}, False),
    ],
)
def test_a_run_is_served_by_its_own_model_and_not_by_the_one_before(
    conditions: dict[str, str], is_served: bool
) -> None:
    told = {name: (status, "") for name, status in conditions.items()}
    view = ResultView("chat", "uid", True, False, is_current=True, run_generation=1, spec={}, conditions=told)
    assert serves_its_spec(view) is is_served
    assert not serves_its_spec(replace(view, is_current=False))
