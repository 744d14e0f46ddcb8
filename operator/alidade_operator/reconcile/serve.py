"""A ModelServe as its plan sees it: the resource, and what is observed of its model, its job and its replicas."""

from dataclasses import dataclass, field
from typing import Any

from alidade_crds.blocks import Model, Output
from alidade_crds.modelserve import (
    CPU_TYPES,
    ModelServeSpec,
    ModelServeStatus,
    QuantizationJobStatus,
    QuantizationMethod,
)
from alidade_crds.reasons import ConditionType
from alidade_operator.api import MODEL_SERVE, JsonObject
from alidade_operator.config import OperatorConfig
from alidade_operator.jobspecs import QuantizationJobSpec
from alidade_operator.reconcile.plan import TrainingJob, identity, parse_spec, parse_status
from alidade_operator.reconcile.run import inputs_hash
from alidade_operator.resources.labels import is_owned_by
from alidade_operator.resources.observation import Observed, PodView, SourceView, TrainingJobView
from alidade_operator.resources.serving import APPLIED, SERVED_MODEL


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
    """A Deployment or Service under the ModelServe's name. applied: the hash of what was applied last."""

    uid: str
    owned: bool
    terminating: bool
    applied: str | None
    model: str | None = None
    wanted: int = 0
    replicas: int = 0
    updated: int = 0
    ready: int = 0
    available: int = 0
    is_current: bool = False
    """Whether its status speaks of its newest spec."""
    stalled: str = ""
    """What it says when new pods did not become ready in time."""

    @property
    def is_rolled_out(self) -> bool:
        """Whether every replica is of the newest spec and answers, and no older one is left."""
        return self.is_current and self.replicas == self.updated == self.available == self.wanted


@dataclass(frozen=True)
class ServeObserved:
    """All that a ModelServe's plan depends on beside the resource, the configuration and the time."""

    source: SourceView | None = None
    """The resource that spec.model.from names."""
    circle: tuple[str, ...] = ()
    claims: frozenset[str] = frozenset()
    deployment: ChildView | None = None
    service: ChildView | None = None
    pods: tuple[PodView, ...] = ()
    """Replicas."""
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
        wanted=int((body.get("spec") or {}).get("replicas") or 0),
        replicas=int(status.get("replicas") or 0),
        updated=int(status.get("updatedReplicas") or 0),
        ready=int(status.get("readyReplicas") or 0),
        available=int(status.get("availableReplicas") or 0),
        is_current=int(status.get("observedGeneration") or 0) >= int(metadata.get("generation") or 1),
        stalled=str(stalled[0].get("message", "")) if stalled else "",
    )


def gguf_type(spec: ModelServeSpec) -> str | None:
    """The GGUF type that the weights are quantized to; None where they stay as they are."""
    if spec.quantization.method is QuantizationMethod.GGUF:
        return spec.quantization.type
    return CPU_TYPES.get(spec.quantization.method)


def model_address(spec: ModelServeSpec, source: SourceView | None) -> tuple[str | None, str | None]:
    """Address and digest of the model that the spec names; (None, None) while its resource has none."""
    if spec.model.from_ is None:
        return spec.model.uri, None
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
    type_ = gguf_type(spec)
    if uri is None or type_ is None:
        return None
    calibration = spec.quantization.calibration
    texts = {"uri": calibration.uri, "samples": calibration.samples} if calibration is not None else None
    inputs = inputs_hash(digest or uri, type_, str(spec.quantization.method), texts)
    folder = f"{serve.name}-{serve.uid[:8]}/{type_}-{inputs}"
    compute = spec.compute.model_copy(update={"image": None, "queue": None})
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
            method=str(spec.quantization.method),
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


def _status_of_job(serve: ModelServe, inputs: str) -> QuantizationJobStatus:
    """What the status tells of the job; one that has failed is tried again once the spec is changed."""
    known = serve.status.quantization_job
    if known is None or known.inputs != inputs:
        return QuantizationJobStatus(inputs=inputs)
    has_failed = any(one.type == ConditionType.FAILED and one.status == "True" for one in known.conditions)
    if has_failed and known.observed_generation != serve.generation:
        return QuantizationJobStatus(inputs=inputs, attempts=known.attempts, last_failure=known.last_failure)
    return known
