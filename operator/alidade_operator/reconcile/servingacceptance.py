"""Whether a ModelServe can be served here: a chain of checks, each of which answers a refusal or nothing."""

from collections.abc import Callable
from dataclasses import dataclass

from alidade_crds.blocks import ModelSource
from alidade_crds.modelserve import GGUF_TYPES, ModelServeSpec, QuantizationMethod
from alidade_crds.reasons import Reason
from alidade_operator.config import NodePool, OperatorConfig
from alidade_operator.reconcile import acceptance
from alidade_operator.reconcile.acceptance import Refusal
from alidade_operator.reconcile.gatewayacceptance import gateway_refusal
from alidade_operator.reconcile.serve import ModelServe, ServeObserved, model_address
from alidade_operator.reconcile.servingadapters import adapters_refusal
from alidade_operator.resources.engines.choice import engine_of
from alidade_operator.resources.engines.server import EMBEDDED, TGI, VLLM
from alidade_operator.resources.observation import Observed

_WRITTEN_FOR_GPUS = frozenset({QuantizationMethod.GPTQ, QuantizationMethod.AWQ, QuantizationMethod.FP8})
_FOR_GPUS = _WRITTEN_FOR_GPUS | {QuantizationMethod.NF4}


@dataclass(frozen=True)
class Candidate:
    """A ModelServe whose spec could be parsed, with all that the checks look at."""

    serve: ModelServe
    spec: ModelServeSpec
    seen: ServeObserved
    config: OperatorConfig

    @property
    def pool(self) -> NodePool:
        """The node pool; asked once that is known to exist."""
        pool = self.config.pool(self.spec.compute.node_pool)
        assert pool is not None, "checked by acceptance"
        return pool

    @property
    def engine(self) -> str:
        """The engine that the spec means."""
        return engine_of(self.spec, self.pool)


def refusal(candidate: Candidate) -> Refusal | None:
    """The foremost objection to serving, or None."""
    of_the_spec = next((found for check in _OF_THE_SPEC if (found := check(candidate)) is not None), None)
    if of_the_spec is not None:
        return of_the_spec
    return acceptance.foremost(check(candidate) for check in _OF_THE_CLUSTER)


def _not_available(what: str, fix: str) -> Refusal:
    return Refusal(Reason.FEATURE_NOT_AVAILABLE, f"{what}, which this release cannot do yet. {fix}")


def _features(candidate: Candidate) -> Refusal | None:
    if candidate.spec.model.trust_remote_code:
        return _not_available("spec.model.trustRemoteCode is true", "Serve a model of a known architecture.")
    return None


def _node_pool(candidate: Candidate) -> Refusal | None:
    compute, config = candidate.spec.compute, candidate.config
    pool, gpus = config.pool(compute.node_pool), compute.gpus_per_worker
    if pool is not None and gpus > pool.gpus_per_node:
        has = f"has nodes of {pool.gpus_per_node}" if pool.gpus_per_node else "has no GPUs"
        fix = f"Set it to {pool.gpus_per_node}" if pool.gpus_per_node else "Set it to 0"
        return Refusal(
            Reason.TOO_MANY_GPUS,
            f"spec.compute.gpusPerWorker is {gpus}, the GPUs of one node that a replica is spread over; pool "
            f"{pool.name} {has}. {fix}, or name a pool with more{_pools_with_gpus(config, at_least=gpus)}.",
        )
    return acceptance.node_pool_refusal(compute, config, "spec")


def _pools_with_gpus(config: OperatorConfig, *, at_least: int = 1) -> str:
    """In brackets, the pools whose nodes have so many GPUs; empty when there are none."""
    names = [pool.name for pool in config.node_pools if pool.gpus_per_node >= at_least]
    return f" ({', '.join(names)})" if names else ""


def _engine(candidate: Candidate) -> Refusal | None:
    compute, engine, pool = candidate.spec.compute, candidate.engine, candidate.pool
    asked = f"spec.engine is {candidate.spec.engine}"
    if engine != EMBEDDED and not pool.gpus_per_node:
        return Refusal(
            Reason.INVALID_SPEC,
            f"{asked}, which computes on GPUs; pool {pool.name} has none. Name a pool with GPUs"
            f"{_pools_with_gpus(candidate.config)}, or set spec.engine to embedded.",
        )
    if engine != EMBEDDED and not compute.gpus_per_worker:
        meant = f"{asked}, which means {engine} in pool {pool.name}" if candidate.spec.engine != engine else asked
        return Refusal(
            Reason.INVALID_SPEC,
            f"spec.compute.gpusPerWorker is 0 and {meant}, a server that computes on GPUs. Set it to 1 or more, or set "
            "spec.engine to embedded.",
        )
    if engine == EMBEDDED and compute.gpus_per_worker:
        return Refusal(
            Reason.INVALID_SPEC,
            f"spec.compute.gpusPerWorker is {compute.gpus_per_worker}; the embedded server computes on the CPU. Set it "
            "to 0.",
        )
    if compute.workers > 1 or compute.processes_per_worker is not None:
        name = "workers" if compute.workers > 1 else "processesPerWorker"
        return Refusal(
            Reason.INVALID_SPEC,
            f"spec.compute.{name} is set; a replica is one pod of one server. Set spec.replicas, and gpusPerWorker to "
            "spread a replica over GPUs.",
        )
    return None


def _format(candidate: Candidate) -> Refusal | None:
    """Whether the engine can load what the method makes."""
    method, engine = candidate.spec.quantization.method, candidate.engine
    asked = f"spec.quantization.method is {method}"
    if engine == EMBEDDED and method in _FOR_GPUS:
        return Refusal(
            Reason.INVALID_SPEC,
            f"{asked}, which is for servers on GPUs, and the engine is {EMBEDDED}. Set it to gguf, int8, int4 or none, "
            f"or name a pool with GPUs{_pools_with_gpus(candidate.config)} and leave spec.engine out.",
        )
    if engine != EMBEDDED and candidate.spec.quantization.gguf_type is not None:
        return Refusal(
            Reason.INVALID_SPEC,
            f"{asked}, which makes a GGUF file, and spec.engine is {engine}, which does not read those. Set it to fp8, "
            "gptq, awq or none, or set spec.engine to embedded.",
        )
    if engine == VLLM and method is QuantizationMethod.NF4:
        return Refusal(
            Reason.INVALID_SPEC,
            f"{asked}, which vllm does not load. Set it to gptq or awq, which have 4 bits, too, or set spec.engine to "
            f"{TGI}.",
        )
    return None


def _adapters(candidate: Candidate) -> Refusal | None:
    return adapters_refusal(candidate.serve, candidate.spec, candidate.seen, candidate.config, candidate.engine)


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
    if uri is None:
        return None  # its resource has no model yet, which is the objection to the source
    source = candidate.spec.model.from_
    field = "spec.model.uri" if source is None else f"the model of {source.kind} {source.name}"
    location = acceptance.location_of(field, uri, "model", candidate.config)
    if isinstance(location, Refusal):
        return location
    method, engine = candidate.spec.quantization.method, candidate.engine
    is_loaded_as_it_is = method in (QuantizationMethod.NONE, QuantizationMethod.NF4)
    loadable = ("pvc", "file") if engine == EMBEDDED else ("pvc", "file", "hf")
    if is_loaded_as_it_is and location.scheme not in loadable:
        fix = "{method: gguf, type: f16}" if engine == EMBEDDED else "{method: fp8}"
        return _not_available(
            f"{field} is {uri} and spec.quantization.method is {method}: that asks the server to fetch it",
            f"Set spec.quantization to {fix}, whose job fetches the model, or name a volume.",
        )
    return acceptance.volume_refusal(field, location, candidate.serve.namespace, Observed(claims=candidate.seen.claims))


def _gateway(candidate: Candidate) -> Refusal | None:
    return gateway_refusal(candidate.serve, candidate.spec, candidate.seen, candidate.config)


_OF_THE_SPEC: tuple[Callable[[Candidate], Refusal | None], ...] = (
    _features,
    _node_pool,
    _engine,
    _quantization,
    _format,
)
"""In this order: the pool decides on the engine, and the engine on the rest."""
_OF_THE_CLUSTER: tuple[Callable[[Candidate], Refusal | None], ...] = (_model, _address, _adapters, _gateway)
