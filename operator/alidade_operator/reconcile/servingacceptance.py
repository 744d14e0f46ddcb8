"""Whether a ModelServe can be served here: a chain of checks, each of which answers a refusal or nothing."""

from collections.abc import Callable
from dataclasses import dataclass

from alidade_crds.blocks import ModelSource
from alidade_crds.modelserve import GGUF_TYPES, ModelServeSpec, QuantizationMethod
from alidade_crds.reasons import Reason
from alidade_crds.uris import UriError, parse_uri
from alidade_operator.config import OperatorConfig
from alidade_operator.reconcile import acceptance
from alidade_operator.reconcile.acceptance import Refusal
from alidade_operator.reconcile.serve import ModelServe, ServeObserved, gguf_type, model_address
from alidade_operator.resources.observation import Observed

EMBEDDED = "embedded"
_FOR_GPUS = frozenset({QuantizationMethod.GPTQ, QuantizationMethod.AWQ, QuantizationMethod.FP8, QuantizationMethod.NF4})


@dataclass(frozen=True)
class Candidate:
    """A ModelServe whose spec could be parsed, with all that the checks look at."""

    serve: ModelServe
    spec: ModelServeSpec
    seen: ServeObserved
    config: OperatorConfig


def refusal(candidate: Candidate) -> Refusal | None:
    """The first objection to serving, or None."""
    return next((found for check in _CHECKS if (found := check(candidate)) is not None), None)


def _not_available(what: str, fix: str) -> Refusal:
    return Refusal(Reason.FEATURE_NOT_AVAILABLE, f"{what}, which this release cannot do yet. {fix}")


def _features(candidate: Candidate) -> Refusal | None:
    spec = candidate.spec
    asked = (
        (spec.autoscaling is not None, "autoscaling is set", "Leave it out, and set spec.replicas."),
        (bool(spec.adapters), "adapters is set", "Leave it out, and serve merged models."),
        (
            spec.rollout.canary_percent > 0,
            f"rollout.canaryPercent is {spec.rollout.canary_percent}",
            "Set it to 0: the new model takes over once it answers.",
        ),
        (spec.rollout.previous == "keep", "rollout.previous is keep", "Set it to delete."),
        (spec.engine in ("tgi", "vllm"), f"engine is {spec.engine}", "Set it to embedded."),
        (
            spec.quantization.method in _FOR_GPUS,
            f"quantization.method is {spec.quantization.method}",
            "Set it to gguf, int8, int4 or none.",
        ),
        (spec.compute.queue is not None, "compute.queue is set", "Leave it out."),
        (spec.model.trust_remote_code, "model.trustRemoteCode is true", "Serve a model of a known architecture."),
    )
    for refused, what, fix in asked:
        if refused:
            return _not_available(f"spec.{what}", fix)
    return None


def _node_pool(candidate: Candidate) -> Refusal | None:
    spec = candidate.spec
    found = acceptance.node_pool_refusal(spec.compute, candidate.config, "spec")
    if found is not None:
        return found
    pool = candidate.config.pool(spec.compute.node_pool)
    if spec.engine == "auto" and pool is not None and pool.gpus_per_node:
        return _not_available(
            f"spec.engine is auto and pool {pool.name} has GPUs: that asks for a server on GPUs",
            "Set spec.engine to embedded, or name a pool without GPUs.",
        )
    return None


def _compute(candidate: Candidate) -> Refusal | None:
    compute = candidate.spec.compute
    if compute.gpus_per_worker:
        return Refusal(
            Reason.INVALID_SPEC,
            f"spec.compute.gpusPerWorker is {compute.gpus_per_worker}; the embedded server computes on the CPU. Set it "
            "to 0.",
        )
    if compute.workers > 1 or compute.processes_per_worker is not None:
        name = "workers" if compute.workers > 1 else "processesPerWorker"
        return Refusal(
            Reason.INVALID_SPEC, f"spec.compute.{name} is set; a replica is one pod of one process. Set spec.replicas."
        )
    return None


def _quantization(candidate: Candidate) -> Refusal | None:
    asked = candidate.spec.quantization
    if asked.method is QuantizationMethod.GGUF and asked.type not in GGUF_TYPES:
        return Refusal(
            Reason.INVALID_SPEC,
            f"spec.quantization.type is {asked.type}; write one of {', '.join(GGUF_TYPES)}.",
        )
    if asked.method is QuantizationMethod.NONE and (asked.calibration or asked.max_perplexity_increase):
        name = "calibration" if asked.calibration else "maxPerplexityIncrease"
        return Refusal(
            Reason.INVALID_SPEC,
            f"spec.quantization.{name} is set and method is none, so that nothing is measured. Set a method, or leave "
            "it out.",
        )
    return None


def _model(candidate: Candidate) -> Refusal | None:
    model = candidate.spec.model
    if model.init is not None:
        return Refusal(
            Reason.INVALID_SPEC, "spec.model.init has learned nothing: name a trained model by spec.model.uri or from."
        )
    source = model.from_
    if source is None:
        return None
    if source.kind is ModelSource.REWARD_MODEL:
        return Refusal(
            Reason.INVALID_SPEC,
            f"spec.model.from names RewardModel {source.name}, which judges answers and gives none. Name a FineTuneJob "
            "or an AlignmentRun.",
        )
    if candidate.seen.circle:
        circle = " → ".join(candidate.seen.circle)
        return Refusal(Reason.REFERENCE_CYCLE, f"spec.model.from names resources in a circle: {circle}.")
    assert candidate.seen.source is not None, "a named source is always observed"
    return acceptance.source_refusal("spec.model", f"{source.kind} {source.name}", candidate.seen.source)


def _address(candidate: Candidate) -> Refusal | None:
    uri, _ = model_address(candidate.spec, candidate.seen.source)
    assert uri is not None, "a source without a model is refused before"
    source = candidate.spec.model.from_
    field = "spec.model.uri" if source is None else f"the model of {source.kind} {source.name}"
    try:
        location = parse_uri(uri)
    except UriError as error:
        return Refusal(Reason.INVALID_SPEC, f"{field}: {error}.")
    if location.scheme == "file" and not candidate.config.allow_file_uris:
        return Refusal(
            Reason.FILE_URI_NOT_ALLOWED,
            f"{field} is {uri}; file:// addresses work on the local cluster only. Put the model on a volume and write "
            "pvc://CLAIM/PATH.",
        )
    if gguf_type(candidate.spec) is None and location.scheme not in ("pvc", "file"):
        return _not_available(
            f"{field} is {uri} and spec.quantization.method is none: that asks the server to fetch it",
            "Set spec.quantization to {method: gguf, type: f16}, whose job fetches the model, or name a volume.",
        )
    return acceptance.volume_refusal(field, location, candidate.serve.namespace, Observed(claims=candidate.seen.claims))


def _name_taken(candidate: Candidate) -> Refusal | None:
    for kind, view in (("Deployment", candidate.seen.deployment), ("Service", candidate.seen.service)):
        if view is not None and not view.owned:
            return Refusal(
                Reason.NAME_TAKEN,
                f"{kind} {candidate.serve.name} belongs to something else. Delete it, or choose another name.",
            )
    return None


_CHECKS: tuple[Callable[[Candidate], Refusal | None], ...] = (
    _features,
    _node_pool,
    _compute,
    _quantization,
    _model,
    _address,
    _name_taken,
)
