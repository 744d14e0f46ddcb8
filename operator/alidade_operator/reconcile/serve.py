"""A ModelServe as its plan sees it: the resource, and what is observed of its model, its job and its replicas."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from alidade_crds.blocks import Model, Output
from alidade_crds.contract import GatewayDocument
from alidade_crds.modelserve import (
    ModelServeSpec,
    ModelServeStatus,
    QuantizationJobStatus,
    QuantizationMethod,
    QuantizationReport,
)
from alidade_crds.reasons import ConditionType
from alidade_operator.api import MODEL_SERVE, JsonObject
from alidade_operator.config import OperatorConfig
from alidade_operator.jobspecs import QuantizationJobSpec
from alidade_operator.reconcile.plan import TrainingJob, identity, parse_spec, parse_status
from alidade_operator.reconcile.run import inputs_hash
from alidade_operator.resources.adapterlist import AdapterListView
from alidade_operator.resources.adapters import AdapterView, LoadedAdapters
from alidade_operator.resources.engines.server import ServedModel
from alidade_operator.resources.labels import is_owned_by
from alidade_operator.resources.observation import Observed, PodView, ReplicaLoad, SourceView, TrainingJobView
from alidade_operator.resources.serving import APPLIED, MODEL_DIGEST, SERVED_MODEL


@dataclass(frozen=True)
class ModelServe:
    """A ModelServe: spec parsed, and why not when it could not be."""

    namespace: str
    name: str
    uid: str
    generation: int
    terminating: bool
    spec: ModelServeSpec | None
    spec_error: str
    status: ModelServeStatus

    @classmethod
    def parse(cls, body: JsonObject) -> "ModelServe":
        """The resource of an object of the API."""
        spec, spec_error = parse_spec(ModelServeSpec, body)
        return cls(**identity(body), spec=spec, spec_error=spec_error, status=parse_status(ModelServeStatus, body))


@dataclass(frozen=True)
class ChildView:
    """A child of a ModelServe, or what is in its place. applied: the hash of what was applied last."""

    uid: str
    owned: bool
    terminating: bool
    applied: str | None
    model: str | None = None
    digest: str | None = None
    wanted: int = 0
    replicas: int = 0
    updated: int = 0
    ready: int = 0
    available: int = 0
    is_current: bool = False
    """Whether its status speaks of its newest spec."""
    stalled: str = ""
    """What it says when new pods did not become ready in time."""
    words: str = ""
    """What an autoscaler says when it cannot scale."""

    @property
    def is_rolled_out(self) -> bool:
        """Whether every replica is of the newest spec and answers, and no older one is left."""
        return self.is_current and self.replicas == self.updated == self.available == self.wanted


@dataclass(frozen=True)
class GatewayPod:
    """A pod of the gateway. trial: the canary that it counts; empty without one. document: what it told last."""

    view: PodView
    trial: str
    document: GatewayDocument | None = None


@dataclass(frozen=True)
class ServeObserved:
    """All that a ModelServe's plan depends on beside the resource, the configuration and the time."""

    source: SourceView | None = None
    """The resource that spec.model.from names."""
    circle: tuple[str, ...] = ()
    adapters: Mapping[str, AdapterView] = field(default_factory=dict)
    """By name, those of spec.adapters that name a resource."""
    adapter_list: AdapterListView | None = None
    loaded: Mapping[str, LoadedAdapters] = field(default_factory=dict)
    """By the pod's uid, what replicas have that load adapters while they run."""
    claims: frozenset[str] = frozenset()
    deployment: ChildView | None = None
    service: ChildView | None = None
    canary: ChildView | None = None
    gateway: ChildView | None = None
    """Their Deployments."""
    others: Mapping[tuple[str, str], ChildView] = field(default_factory=dict)
    """By kind and name: further Services, budgets, policies, autoscalers, monitors."""
    missing_kinds: frozenset[str] = frozenset()
    """Kinds that the cluster does not know."""
    pods: tuple[PodView, ...] = ()
    """Replicas."""
    loads: Mapping[str, ReplicaLoad] = field(default_factory=dict)
    """What replicas told last, by the pod's uid."""
    canary_pods: tuple[PodView, ...] = ()
    gateway_pods: tuple[GatewayPod, ...] = ()
    against: str | None = None
    """Address of the model of the ModelServe that spec.gateway.arena names."""
    quantization: Observed = field(default_factory=Observed)
    other_jobs: tuple[TrainingJobView, ...] = ()
    """Jobs of quantizations of other models, or by other methods: the spec has changed since."""


def child_view(body: JsonObject, uid: str) -> ChildView:
    """A Deployment or a Service as the ModelServe of that uid sees it."""
    metadata, status = body["metadata"], body.get("status") or {}
    annotations = metadata.get("annotations") or {}
    conditions: list[dict[str, Any]] = status.get("conditions") or []
    stalled = [one for one in conditions if one.get("reason") == "ProgressDeadlineExceeded"]
    return ChildView(
        uid=metadata["uid"],
        owned=is_owned_by(metadata, uid),
        terminating=bool(metadata.get("deletionTimestamp")),
        applied=annotations.get(APPLIED),
        model=annotations.get(SERVED_MODEL),
        digest=annotations.get(MODEL_DIGEST),
        wanted=int((body.get("spec") or {}).get("replicas") or 0),
        replicas=int(status.get("replicas") or 0),
        updated=int(status.get("updatedReplicas") or 0),
        ready=int(status.get("readyReplicas") or 0),
        available=int(status.get("availableReplicas") or 0),
        is_current=int(status.get("observedGeneration") or 0) >= int(metadata.get("generation") or 1),
        stalled=str(stalled[0].get("message", "")) if stalled else "",
        words=_scaling_words(conditions),
    )


def _scaling_words(conditions: list[dict[str, Any]]) -> str:
    """What a HorizontalPodAutoscaler or ScaledObject says of what it lacks."""
    false = [
        one
        for one in conditions
        if one.get("status") == "False" and one.get("type") in ("ScalingActive", "AbleToScale", "Ready")
    ]
    return str(false[0].get("message", "")) if false else ""


def model_address(spec: ModelServeSpec, source: SourceView | None) -> tuple[str | None, str | None]:
    """Address and digest of the model that the spec names; (None, None) while its resource has none."""
    if spec.model.from_ is None:
        return spec.model.address, None
    if source is None or not source.succeeded or source.model is None:
        return None, None
    return source.model.uri, source.model.digest


def quantization_job(serve: ModelServe, source: SourceView | None, config: OperatorConfig) -> TrainingJob | None:
    """The job that quantizes the present model by the present method; None where there is nothing to quantize.

    It is named by the hash of what decides its result, so that it is made once, and found again when the spec returns
    to what it was. The limit of perplexity is none of that: its result is judged by the plan.
    """
    spec = serve.spec
    if spec is None:
        return None
    uri, digest = model_address(spec, source)
    method, type_ = spec.quantization.method, spec.quantization.gguf_type
    if uri is None or method is QuantizationMethod.NONE:
        return None
    calibration = spec.quantization.calibration
    texts = {"uri": calibration.uri, "samples": calibration.samples} if calibration is not None else None
    inputs = inputs_hash(digest or uri, type_, str(method), texts)
    folder = f"{serve.name}-{serve.uid[:8]}/{type_ or method}-{inputs}"
    compute = spec.compute.model_copy(update={"image": None})
    return TrainingJob(
        kind=MODEL_SERVE,
        namespace=serve.namespace,
        name=serve.name,
        uid=serve.uid,
        generation=serve.generation,
        terminating=serve.terminating,
        spec=QuantizationJobSpec(
            model=Model(uri=uri),
            digest=digest,
            weights=source.model.parameters if source is not None and source.model is not None else None,
            method=str(method),
            type=type_,
            texts=calibration.uri if calibration is not None else None,
            samples=calibration.samples if calibration is not None else 256,
            compute=compute,
            output=Output(uri=f"pvc://{config.workspace_claim}/{MODEL_SERVE.plural}/{folder}"),
        ),
        spec_error="",
        status=_status_of_job(serve, inputs),
        base=f"{serve.name}-q-{inputs}",
    )


def quantized_model(spec: ModelServeSpec, source: SourceView | None, report: QuantizationReport) -> ServedModel:
    """What is served of a model that has been quantized.

    NF4 weights are quantized anew by the server while it loads the model as it came: no server reads them from files.
    What the job has written is what perplexity was measured on.
    """
    if spec.quantization.method is QuantizationMethod.NF4:
        uri, digest = model_address(spec, source)
        assert uri is not None, "quantized models have an address"
        return ServedModel(uri, digest)
    assert report.uri is not None, "asked before by has_result"
    return ServedModel(report.uri, report.sha256)


def _status_of_job(serve: ModelServe, inputs: str) -> QuantizationJobStatus:
    """What the status tells of the job; one that has failed is tried again once the spec is changed."""
    known = serve.status.quantization_job
    if known is None or known.inputs != inputs:
        return QuantizationJobStatus(inputs=inputs)
    has_failed = any(one.type == ConditionType.FAILED and one.status == "True" for one in known.conditions)
    if has_failed and known.observed_generation != serve.generation:
        return QuantizationJobStatus(inputs=inputs, attempts=known.attempts, last_failure=known.last_failure)
    return known
