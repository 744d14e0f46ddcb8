"""What a ModelServe may ask of its engine, its format and its adapters, and what is said where it may not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from alidade_crds.contract import QuantizationDocument, ResultDocument
from alidade_crds.modelserve import ModelServeSpec, ModelServeStatus, QuantizationReport
from alidade_operator.api import CONFIG_MAP, DEPLOYMENT, FINE_TUNE_JOB, JOB, MODEL_SERVE, SERVICE
from alidade_operator.cache import Key, references
from alidade_operator.config import OperatorConfig
from alidade_operator.observe import Sight
from alidade_operator.observeserve import observe_serve
from alidade_operator.reconcile.modelserve import plan_model_serve
from alidade_operator.reconcile.plan import AdapterTarget, Plan
from alidade_operator.reconcile.serve import ModelServe, ServeObserved, child_view, quantization_job
from alidade_operator.resources.adapterlist import AdapterListView, adapter_list_view
from alidade_operator.resources.adapters import AdapterView, LoadedAdapters, adapter_view
from alidade_operator.resources.observation import SourceView
from tests.operator.builders import CONFIG, MODEL, NOW, UID, condition, ended_pod, observed, pod, training_job
from tests.operator.memory import MemoryCluster, drive

FOLDER = {"uri": "pvc://data/model"}
ON_GPU = {"nodePool": "a100-80gb", "gpusPerWorker": 1}
CLAIMS = frozenset({"alidade-workspace", "data"})
BASE = "pvc://data/model"
LAW = {"name": "law", "model": {"from": {"kind": "FineTuneJob", "name": "law"}}}


def trained(**changes: Any) -> AdapterView:
    """A LoRA adapter of the folder, as FineTuneJob `law` has trained it; changes: to what it tells of its model."""
    told = {"uri": "pvc://alidade-workspace/law/model", "base_model": BASE} | changes
    return AdapterView(SourceView(exists=True, succeeded=True, model=MODEL.model_copy(update=told)), rank=8)


LORA = trained()


def serve(*, status: ModelServeStatus | None = None, **fields: Any) -> ModelServe:
    """A ModelServe with the fields of its spec as in YAML; by default a folder of a volume, as it is."""
    spec = ModelServeSpec.model_validate({"model": FOLDER} | fields)
    return ModelServe("team-a", "chat", UID, 1, False, spec, "", status or ModelServeStatus())


def look(**values: Any) -> ServeObserved:
    """What is observed in a namespace that has the usual claims."""
    return ServeObserved(**({"claims": CLAIMS, "quantization": observed()} | values))


def plan(resource: ModelServe, seen: ServeObserved | None = None, config: OperatorConfig = CONFIG) -> Plan:
    """The plan for a ModelServe."""
    return plan_model_serve(resource, seen or look(), config, NOW)


def status_of(made: Plan) -> ModelServeStatus:
    """The status that a plan writes."""
    assert isinstance(made.status, ModelServeStatus)
    return made.status


def container(made: Plan) -> dict[str, Any]:
    """The server's container in the Deployment that a plan makes."""
    deployments = [child.body for child in made.children if child.kind is DEPLOYMENT]
    (body,) = [one for one in deployments if one["metadata"]["name"] == "chat"]
    found: dict[str, Any] = body["spec"]["template"]["spec"]["containers"][0]
    return found


# Engines and formats


@pytest.mark.parametrize(
    ("fields", "engine", "program"),
    [
        ({}, "embedded", "alidade-serve"),
        ({"compute": ON_GPU}, "vllm", "vllm"),
        ({"compute": ON_GPU, "engine": "tgi"}, "tgi", "text-generation-launcher"),
        ({"compute": {"nodePool": "a100-80gb"}, "engine": "embedded"}, "embedded", "alidade-serve"),
        ({"compute": ON_GPU, "model": {"uri": "hf://org/name"}}, "vllm", "vllm"),
    ],
)
def test_the_engine_that_is_chosen_is_told_and_runs(fields: dict[str, Any], engine: str, program: str) -> None:
    made = plan(serve(**fields))
    assert status_of(made).engine == engine
    assert container(made)["command"][0] == program


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    (
        {"engine": "vllm"},
        "InvalidSpec",
        "spec.engine is vllm, which computes on GPUs; pool local has none. Name a pool with GPUs (a100-80gb), or set "
        "spec.engine to embedded.",
    ),
    ({"engine": "tgi"}, "InvalidSpec", "spec.engine is tgi, which computes on GPUs; pool local has none."),
    (
        {"compute": {"nodePool": "a100-80gb"}},
        "InvalidSpec",
        "spec.compute.gpusPerWorker is 0 and spec.engine is auto, which means vllm in pool a100-80gb, a server that "
        "computes on GPUs. Set it to 1 or more, or set spec.engine to embedded.",
    ),
    (
        {"compute": {"nodePool": "a100-80gb", "gpusPerWorker": 16}},
        "TooManyGpus",
        "spec.compute.gpusPerWorker is 16, the GPUs of one node that a replica is spread over; pool a100-80gb has "
        "nodes of 8. Set it to 8, or name a pool with more.",
    ),
    (
        {"compute": {"gpusPerWorker": 4}},
        "TooManyGpus",
        "pool local has no GPUs. Set it to 0, or name a pool with more (a100-80gb).",
    ),
    (
        {"compute": ON_GPU, "engine": "embedded"},
        "InvalidSpec",
        "spec.compute.gpusPerWorker is 1; the embedded server computes on the CPU. Set it to 0.",
    ),
    ({"compute": ON_GPU | {"workers": 2}}, "InvalidSpec", "spec.compute.workers is set; a replica is one pod"),
    *(
        (
            {"quantization": {"method": name}},
            "InvalidSpec",
            f"spec.quantization.method is {name}, which is for servers on GPUs, and the engine is embedded. Set it to "
            "gguf, int8, int4 or none, or name a pool with GPUs (a100-80gb) and leave spec.engine out.",
        )
        for name in ("gptq", "awq", "fp8", "nf4")
    ),
    *(
        (
            {"quantization": method, "engine": engine, "compute": ON_GPU},
            "InvalidSpec",
            f"which makes a GGUF file, and spec.engine is {engine}, which does not read those. Set it to fp8, gptq, "
            "awq or none, or set spec.engine to embedded.",
        )
        for method in ({"method": "gguf", "type": "q4_k_m"}, {"method": "int8"}, {"method": "int4"})
        for engine in ("vllm", "tgi")
    ),
    (
        {"quantization": {"method": "nf4"}, "engine": "vllm", "compute": ON_GPU},
        "InvalidSpec",
        "spec.quantization.method is nf4, which vllm does not load. Set it to gptq or awq, which have 4 bits, too, or "
        "set spec.engine to tgi.",
    ),
    (
        {"model": {"uri": "s3://bucket/model"}, "compute": ON_GPU},
        "FeatureNotAvailable",
        "that asks the server to fetch it, which this release cannot do yet. Set spec.quantization to {method: fp8}",
    ),
]


@pytest.mark.parametrize(("fields", "reason", "words"), REFUSED)
def test_what_an_engine_cannot_do_is_said_with_its_field(fields: dict[str, Any], reason: str, words: str) -> None:
    made = plan(serve(**fields))
    assert made.children == ()
    status, told, message = condition(made, "Accepted")
    assert (status, told) == ("False", reason)
    assert words in message


# Quantization for GPUs


@pytest.mark.parametrize(
    ("method", "image"),
    [("gptq", "quantization"), ("awq", "quantization"), ("fp8", "quantization"), ("nf4", "quantization")],
)
def test_a_quantization_for_gpus_runs_where_its_libraries_and_gpus_are(method: str, image: str) -> None:
    made = plan(serve(quantization={"method": method}, compute=ON_GPU))
    bodies = {child.kind: child.body for child in made.children}
    job = bodies[JOB]["spec"]["template"]["spec"]
    assert job["containers"][0]["image"] == getattr(CONFIG, f"{image}_image")
    assert job["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert job["nodeSelector"] == {"gpu": "a100"}
    document = QuantizationDocument.model_validate_json(bodies[CONFIG_MAP]["data"]["job.json"])
    assert (document.method, document.type) == (method, None)
    assert document.output.startswith(f"pvc://alidade-workspace/modelserves/chat-0f8fad5b/{method}-")


@pytest.mark.parametrize(
    ("method", "source", "words"),
    [("gptq", 30_000_000_000, "Quantizing the model in 16 bit needs about 67"), ("fp8", None, "not known")],
)
def test_the_memory_of_a_quantization_for_gpus_is_that_of_16_bit(method: str, source: int | None, words: str) -> None:
    model = MODEL.model_copy(update={"parameters": source}) if source else None
    named = {"from": {"kind": "FineTuneJob", "name": "sft"}} if model else FOLDER
    resource = serve(model=named, quantization={"method": method}, compute=ON_GPU | {"memory": "40Gi"})
    made = plan(resource, look(source=SourceView(exists=True, succeeded=True, model=model)))
    job = status_of(made).quantization_job
    assert job is not None
    (fits,) = [one for one in job.conditions if one.type == "Fits"]
    assert words in fits.message
    assert fits.status == ("False" if source else "Unknown")


def quantized(method: str) -> ResultDocument:
    """The result of a quantization for GPUs that has ended well."""
    report = QuantizationReport(
        method=method,
        uri=f"pvc://alidade-workspace/modelserves/chat-0f8fad5b/{method}-x/model",
        sha256="abc",
        size_bytes=300,
        size_bytes_before=1000,
        perplexity_before=10.0,
        perplexity_after=10.4,
        seconds=5.0,
    )
    return ResultDocument(outcome="succeeded", quantization=report)


def quantizing(resource: ModelServe, method: str) -> ServeObserved:
    """The quantization's Job has succeeded."""
    job = quantization_job(resource, None, CONFIG)
    assert job is not None
    view = training_job(1, state="succeeded", name=f"{job.base}-1", base=job.base)
    pods = (ended_pod(1, exit_code=0, result=quantized(method)),)
    return look(quantization=observed(jobs=(view,), pods=pods, document_exists=True))


@pytest.mark.parametrize(
    ("method", "engine", "flag"),
    [
        ("gptq", "vllm", "/volumes/alidade-workspace/modelserves/chat-0f8fad5b/gptq-x/model"),
        ("fp8", "tgi", "--model-id=/volumes/alidade-workspace/modelserves/chat-0f8fad5b/fp8-x/model"),
        ("nf4", "auto", "--model-id=/volumes/data/model"),
    ],
)
def test_what_was_written_is_served_and_nf4_is_quantized_anew_from_what_came(
    method: str, engine: str, flag: str
) -> None:
    resource = serve(quantization={"method": method}, engine=engine, compute=ON_GPU)
    begun = replace(resource, status=status_of(plan(resource)))
    made = plan(begun, quantizing(resource, method))
    assert flag in container(made)["command"]
    assert condition(made, "Quantized")[2] == f"{method}: 300 bytes, 30% of before; perplexity 10.0 before, 10.4 after."
    report = status_of(made).quantization
    assert report is not None
    assert (report.size_bytes, report.perplexity_before, report.perplexity_after, report.seconds) == (
        300,
        10.0,
        10.4,
        5.0,
    )


# Adapters


def body(adapter: dict[str, Any] | None = None, **model: Any) -> dict[str, Any]:
    """A FineTuneJob that has succeeded."""
    made = {"uri": "pvc://alidade-workspace/law/model", "digest": "sha256:law", "baseModel": BASE}
    made |= {"parameters": 10, "trainableParameters": 1}
    conditions = [
        {
            "type": "Succeeded",
            "status": "True",
            "reason": "Completed",
            "message": "",
            "lastTransitionTime": NOW.isoformat(),
        }
    ]
    spec = {} if adapter is None else {"adapter": adapter}
    return {"spec": spec, "status": {"conditions": conditions, "model": made | model}}


@pytest.mark.parametrize(
    ("content", "uri", "rank"),
    [
        (body({"type": "lora", "rank": 16}), "pvc://alidade-workspace/law/adapter", 16),
        (body({"type": "lora"}), "pvc://alidade-workspace/law/adapter", 8),
        (body({"type": "none"}), None, None),
        (body(), None, None),
        (None, None, None),
    ],
)
def test_an_adapter_lies_beside_the_model_that_has_it_merged_in(
    content: Any, uri: str | None, rank: int | None
) -> None:
    view = adapter_view(content)
    assert (view.uri, view.rank) == (uri, rank)
    assert view.beyond_low_rank == ""


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"vocabulary": {"extendWith": {"uri": "pvc://data/pieces.model"}}}, "vocabulary"),
        ({"context": {"length": 4096}}, "context"),
        ({"adapter": {"type": "lora", "trainEmbeddings": True}}, "adapter.trainEmbeddings"),
        ({"adapter": {"type": "lora", "dora": True}}, "adapter.dora"),
    ],
)
def test_what_makes_an_adapter_more_than_low_rank_additions_is_named(spec: dict[str, Any], field: str) -> None:
    content = body({"type": "lora"})
    assert adapter_view(content | {"spec": content["spec"] | spec}).beyond_low_rank == field


@pytest.mark.parametrize(
    ("compute", "flag"),
    [
        ({}, "--adapters=law=/volumes/alidade-workspace/law/adapter,tax=/volumes/data/tax"),
        (ON_GPU, "law=/volumes/alidade-workspace/law/adapter"),
        (ON_GPU, "tax=/volumes/data/tax"),
    ],
)
def test_adapters_of_a_resource_and_of_an_address_are_served(compute: dict[str, Any], flag: str) -> None:
    tax = {"name": "tax", "model": {"uri": "pvc://data/tax"}}
    made = plan(serve(adapters=[LAW, tax], compute=compute), look(adapters={"law": LORA}))
    assert flag in container(made)["command"]
    assert "pvc://data/model and law, tax are being started" in condition(made, "Progressing")[2]
    assert status_of(made).adapters == [], "nothing serves them yet"


def running(made: Plan) -> dict[str, Any]:
    """Deployment and Service as far as a plan has applied them, every replica ready."""
    views = {}
    applied = {child.kind: child.body for child in made.children}
    for name, kind in (("deployment", DEPLOYMENT), ("service", SERVICE)):
        if kind not in applied:
            continue
        content = applied[kind]
        count = content["spec"].get("replicas", 0)
        status = {f"{word}Replicas": count for word in ("updated", "ready", "available")}
        status |= {"observedGeneration": 1, "replicas": count}
        metadata = content["metadata"] | {"uid": f"uid-{name}", "generation": 1}
        views[name] = child_view({"metadata": metadata, "spec": content["spec"], "status": status}, UID)
    return views


def test_the_status_names_the_adapters_that_every_replica_serves() -> None:
    resource = serve(adapters=[LAW])
    first = plan(resource, look(adapters={"law": LORA}))
    begun = replace(resource, status=status_of(first))
    done = plan(begun, look(adapters={"law": LORA}, **running(first)))
    assert status_of(done).adapters == ["law"]
    assert condition(done, "Progressing")[2] == "Every replica serves pvc://data/model and law."
    without = replace(serve(), status=status_of(done))
    rolled = plan(without, look(**running(first)))
    assert DEPLOYMENT in [child.kind for child in rolled.children], "it is rolled: llama.cpp loads them at start"
    assert status_of(rolled).adapters == ["law"], "until every replica is without"


def test_an_adapter_that_is_made_anew_at_its_place_is_rolled_out() -> None:
    resource = serve(adapters=[LAW])
    first = plan(resource, look(adapters={"law": LORA}))
    newer = trained(digest="sha256:newer")
    again = plan(replace(resource, status=status_of(first)), look(adapters={"law": newer}, **running(first)))
    assert DEPLOYMENT in [child.kind for child in again.children]


REFUSED_ADAPTERS: list[tuple[dict[str, Any], AdapterView, str, str]] = [
    (LAW, AdapterView(SourceView(exists=False)), "ReferencePending", "FineTuneJob law, which does not exist yet"),
    (LAW, AdapterView(SourceView(exists=True), 8), "ReferencePending", "Waiting for FineTuneJob law to succeed."),
    (LAW, AdapterView(SourceView(exists=True, failed=True), 8), "ReferenceFailed", "which has failed"),
    (
        LAW,
        replace(LORA, rank=None),
        "InvalidSpec",
        "spec.adapters[0].model.from names FineTuneJob law, which trains all weights and has no adapter. Name one "
        "whose adapter.type is lora, or serve its model by itself.",
    ),
    (
        LAW,
        replace(LORA, beyond_low_rank="vocabulary"),
        "InvalidSpec",
        "spec.adapters[0].model.from names FineTuneJob law, whose vocabulary is set: its adapter is more than low-rank "
        "additions to its base. Serve its model by itself.",
    ),
    (
        LAW,
        trained(base_model="hf://org/other"),
        "InvalidSpec",
        "FineTuneJob law, whose adapter was trained on hf://org/other; spec.model is pvc://data/model. Serve it beside "
        "the model that it was trained on.",
    ),
    ({"name": "chat", "model": FOLDER}, LORA, "InvalidSpec", "a name that the ModelServe has itself"),
    ({"name": "law", "model": {"uri": "hf://org/lora"}}, LORA, "InvalidSpec", "adapters are read from a volume"),
    ({"name": "law", "model": {"uri": "file:///a"}}, LORA, "FileUriNotAllowed", "adapters[0].model.uri is file:///a"),
    (
        {"name": "law", "model": {"uri": "pvc://lost/a"}},
        LORA,
        "VolumeMissing",
        "adapters[0].model.uri names claim lost",
    ),
    (
        {"name": "law", "model": {"from": {"kind": "RewardModel", "name": "judge"}}},
        LORA,
        "InvalidSpec",
        "names RewardModel judge, which judges answers and gives none",
    ),
]


@pytest.mark.parametrize(("asked", "view", "reason", "words"), REFUSED_ADAPTERS)
def test_an_adapter_that_cannot_be_served_is_said_with_its_field(
    asked: dict[str, Any], view: AdapterView, reason: str, words: str
) -> None:
    adapters = {"law": view} if "from" in asked["model"] else {}
    made = plan(serve(adapters=[asked]), look(adapters=adapters))
    assert made.children == ()
    expected = "Unknown" if reason == "ReferencePending" else "False"
    assert condition(made, "Accepted")[:2] == (expected, reason)
    assert words in condition(made, "Accepted")[2]


def test_two_adapters_of_one_name_are_refused() -> None:
    made = plan(serve(adapters=[LAW, LAW]), look(adapters={"law": LORA}))
    assert "spec.adapters[1].name is law, a name that another adapter has." in condition(made, "Accepted")[2]


def test_the_embedded_server_adds_adapters_to_folders_only() -> None:
    asked = {"quantization": {"method": "gguf", "type": "q8_0"}, "adapters": [LAW]}
    message = condition(plan(serve(**asked), look(adapters={"law": LORA})), "Accepted")[2]
    assert message.startswith(
        "spec.adapters is set and spec.quantization.method is gguf; the embedded server adds adapters"
    )


def test_a_rank_that_vllm_has_no_room_for_is_refused() -> None:
    wide = {"law": replace(LORA, rank=1024)}
    assert "spec.adapters[0] has rank 1024; vllm serves up to 512." in condition(
        plan(serve(adapters=[LAW], compute=ON_GPU), look(adapters=wide)), "Accepted"
    )[2]  # fmt: skip
    assert condition(plan(serve(adapters=[LAW]), look(adapters=wide)), "Accepted")[0] == "True", "llama.cpp has"


def test_a_model_serve_is_looked_at_again_when_an_adapter_of_it_has_changed() -> None:
    spec = {"model": FOLDER, "adapters": [LAW, {"name": "tax", "model": FOLDER}]}
    resource = {"kind": "ModelServe", "metadata": {"namespace": "team-a", "name": "chat"}, "spec": spec}
    assert references(resource) == [Key("FineTuneJob", "team-a", "law")]


# Adapters that come and go while replicas run


RUNTIME = CONFIG.model_copy(update={"runtime_adapters": True})
LAW_FOLDER = "/volumes/alidade-workspace/law/adapter"
TAX = {"name": "tax", "model": {"uri": "pvc://alidade-workspace/tax"}}
TAX_FOLDER = "/volumes/alidade-workspace/tax"
REPLICA = pod(1, name="chat-1", uid="pod-1", ip="10.0.0.1")


def asked(*adapters: dict[str, Any], status: ModelServeStatus | None = None, **fields: Any) -> ModelServe:
    """A ModelServe on a GPU with adapters."""
    return serve(adapters=list(adapters), compute=ON_GPU, status=status, **fields)


def kinds(made: Plan) -> set[str]:
    """What a plan makes, policies aside."""
    return {child.kind.kind for child in made.children} & {"Deployment", "ConfigMap"}


def there(made: Plan, law: AdapterView = LORA, **values: Any) -> ServeObserved:
    """Everything as a plan has applied it, with one replica that runs."""
    lists = [child.body for child in made.children if child.kind is CONFIG_MAP]
    known = {"adapters": {"law": law}, "pods": (REPLICA,), "adapter_list": adapter_list_view(lists[0], UID)}
    return look(**(known | running(made) | values))


def loaded(**folders: str) -> dict[str, LoadedAdapters]:
    """What the replica has."""
    return {"pod-1": LoadedAdapters(folders)}


def begun(*adapters: dict[str, Any]) -> tuple[ModelServe, Plan]:
    """A ModelServe whose first plan has been carried out."""
    resource = asked(*adapters)
    first = plan(resource, look(adapters={"law": LORA}), RUNTIME)
    return replace(resource, status=status_of(first)), first


def test_replicas_that_load_adapters_read_the_first_ones_from_a_list() -> None:
    _, first = begun(LAW)
    assert kinds(first) == {"Deployment", "ConfigMap"}
    (body,) = [child.body for child in first.children if child.kind is CONFIG_MAP]
    assert body["metadata"]["name"] == "chat-adapters"
    assert body["data"]["list"] == f"law={LAW_FOLDER}\n"
    assert not any("--lora-modules" in part and "law" in part for part in container(first)["command"])


def test_every_replica_is_brought_to_the_adapters_and_the_status_says_once_it_is() -> None:
    resource, first = begun(LAW)
    made = plan(resource, there(first), RUNTIME)
    assert kinds(made) == set()
    assert made.loading == (AdapterTarget("pod-1", "10.0.0.1", adapters=(("law", LAW_FOLDER),)),)
    assert condition(made, "Progressing")[:2] == ("True", "RollingOut")
    assert condition(made, "Progressing")[2] == "Running replicas are brought to the adapters law."
    assert status_of(made).adapters == []
    done = plan(resource, there(first, loaded=loaded(law=LAW_FOLDER)), RUNTIME)
    assert done.loading == made.loading, "a container that starts anew has to be brought there again"
    assert condition(done, "Progressing")[2] == "Every replica serves pvc://data/model and law."
    assert status_of(done).adapters == ["law"]


@pytest.mark.parametrize(
    ("adapters", "wanted"),
    [
        ((LAW, TAX), (("law", LAW_FOLDER), ("tax", TAX_FOLDER))),
        ((TAX,), (("tax", TAX_FOLDER),)),
    ],
)
def test_an_adapter_comes_or_goes_without_a_replica_being_replaced(adapters: Any, wanted: Any) -> None:
    tax = {**TAX, "model": {"from": {"kind": "FineTuneJob", "name": "tax"}}}
    views = {"law": LORA, "tax": trained(uri="pvc://alidade-workspace/tax/model")}
    change = [one if one is LAW else tax for one in adapters]
    folders = tuple((name, folder if name == "law" else f"{folder}/adapter") for name, folder in wanted)
    resource, first = begun(LAW)
    now = replace(resource, spec=asked(*change).spec)
    seen = there(first, loaded=loaded(law=LAW_FOLDER))
    made = plan(now, replace(seen, adapters=views), RUNTIME)
    assert kinds(made) == {"ConfigMap"}
    assert [target.adapters for target in made.loading] == [folders]
    assert status_of(made).adapters == [name for name, _ in folders if name == "law"]


def test_what_a_replica_refuses_is_said_in_its_words() -> None:
    resource, first = begun(LAW)
    refused = {"pod-1": LoadedAdapters({}, "law: 404 No adapter found.")}
    message = condition(plan(resource, there(first, loaded=refused), RUNTIME), "Progressing")[2]
    assert message == "Running replicas are brought to the adapters law. Pod chat-1 refuses law: 404 No adapter found."


def test_an_adapter_that_is_made_anew_at_its_place_replaces_the_replicas_and_stays() -> None:
    resource, first = begun(LAW)
    newer = trained(digest="sha256:newer")
    made = plan(resource, there(first, newer, loaded=loaded(law=LAW_FOLDER)), RUNTIME)
    assert kinds(made) == {"Deployment", "ConfigMap"}, "what was computed under the one before is kept by its place"
    assert made.loading == ()
    done = there(made, newer, service=running(first)["service"], loaded=loaded(law=LAW_FOLDER))
    assert kinds(plan(resource, done, RUNTIME)) == set()


def test_replicas_that_are_being_replaced_are_left_alone() -> None:
    resource, first = begun(LAW)
    views = running(first)
    rolling = there(first, deployment=replace(views["deployment"], updated=0))
    assert plan(resource, rolling, RUNTIME).loading == ()


def test_a_list_that_is_not_ours_is_left_alone() -> None:
    resource, _ = begun(LAW)
    theirs = AdapterListView(owned=False, applied=None, digests={})
    made = plan(resource, look(adapters={"law": LORA}, adapter_list=theirs), RUNTIME)
    assert kinds(made) == set()
    assert condition(made, "Accepted")[1:] == (
        "NameTaken", "ConfigMap chat-adapters belongs to something else. Delete it, or choose another name.",
    )  # fmt: skip


@pytest.mark.parametrize(
    "fields", [{"auth": {"secretName": "keys"}}, {"rollout": {"canaryPercent": 10}}, {"engine": "tgi"}], ids=str
)
def test_with_keys_a_canary_or_another_engine_adapters_are_rolled_out(fields: dict[str, Any]) -> None:
    made = plan(asked(LAW, **fields), look(adapters={"law": LORA}), RUNTIME)
    assert "ConfigMap" not in kinds(made)
    assert any("law=" in part for part in container(made)["command"])


# What is observed of them


def test_adapters_are_observed_with_their_jobs_volumes_list_and_what_replicas_have() -> None:
    cluster = MemoryCluster(RUNTIME)
    cluster.put(FINE_TUNE_JOB, "law", **body({"type": "lora", "rank": 16}))
    spec = {"model": FOLDER, "adapters": [LAW, {"name": "tax", "model": {"uri": "pvc://lost/tax"}}], "compute": ON_GPU}
    cluster.put(MODEL_SERVE, "chat", spec=spec)
    resource = ModelServe.parse(cluster.api.objects["ModelServe", "chat"])
    sight = Sight(cluster.cache, cluster.api, RUNTIME, {}, {}, loaded(law=LAW_FOLDER))
    seen = drive(observe_serve(resource, sight))
    assert (seen.adapters["law"].uri, seen.adapters["law"].rank) == ("pvc://alidade-workspace/law/adapter", 16)
    assert seen.claims == CLAIMS, "the claim `lost` does not exist"
    assert seen.adapter_list is None
    assert seen.loaded == {}, "of pods that are not there nothing is said"
    first = plan(asked(LAW), look(adapters={"law": LORA}), RUNTIME)
    (made,) = [child.body for child in first.children if child.kind is CONFIG_MAP]
    cluster.put(CONFIG_MAP, "chat-adapters", data=made["data"])
    again = drive(observe_serve(resource, sight)).adapter_list
    assert again is not None
    assert not again.owned
    assert again.digests == {"law=pvc://alidade-workspace/law/adapter": MODEL.digest}
    assert drive(observe_serve(resource, replace(sight, config=CONFIG))).adapter_list is None, "nobody asks for it"
