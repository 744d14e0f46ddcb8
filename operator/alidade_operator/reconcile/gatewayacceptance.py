"""Whether a ModelServe's gateway and autoscaler can be made here: a chain of checks, each a refusal or nothing."""

from collections.abc import Callable

from alidade_crds.modelserve import AutoscalingProvider, ModelServeSpec
from alidade_crds.reasons import Reason
from alidade_operator.config import OperatorConfig
from alidade_operator.reconcile.acceptance import Refusal, foremost
from alidade_operator.reconcile.serve import ModelServe, ServeObserved
from alidade_operator.resources.serving import CANARY, GATEWAY, name_of

_Check = Callable[[ModelServe, ModelServeSpec, ServeObserved, OperatorConfig], Refusal | None]


def gateway_refusal(
    serve: ModelServe, spec: ModelServeSpec, seen: ServeObserved, config: OperatorConfig
) -> Refusal | None:
    """The foremost objection, or None."""
    return foremost(check(serve, spec, seen, config) for check in _CHECKS)


def _keda(serve: ModelServe, spec: ModelServeSpec, seen: ServeObserved, config: OperatorConfig) -> Refusal | None:
    del serve, seen
    if spec.autoscaling is None or spec.autoscaling.provider is not AutoscalingProvider.KEDA or config.prometheus_url:
        return None
    return Refusal(
        Reason.INVALID_SPEC,
        "spec.autoscaling.provider is keda, and the operator's configuration has no prometheusUrl, whom KEDA asks for "
        "the load. Set it there, or set the provider to operator.",
    )


def _arena(serve: ModelServe, spec: ModelServeSpec, seen: ServeObserved, config: OperatorConfig) -> Refusal | None:
    arena = spec.gateway.arena if spec.gateway is not None else None
    if arena is None:
        return None
    if arena.against == serve.name:
        return Refusal(
            Reason.INVALID_SPEC,
            f"spec.gateway.arena.against is {serve.name}, the ModelServe itself. Name another one, or leave it out to "
            "compare a canary with the model before.",
        )
    if config.workspace_claim not in seen.claims:
        return Refusal(
            Reason.VOLUME_MISSING,
            f"spec.gateway.arena is set, and namespace {serve.namespace} has no claim {config.workspace_claim}, where "
            "votes are kept. Make the claim, or leave the arena out.",
        )
    return None


def _names(serve: ModelServe, spec: ModelServeSpec, seen: ServeObserved, config: OperatorConfig) -> Refusal | None:
    """Objections to what lies where a child is to be made, and is somebody else's."""
    del spec, config
    there = {
        ("Deployment", serve.name): seen.deployment,
        ("Service", serve.name): seen.service,
        ("Deployment", name_of(serve.name, CANARY)): seen.canary,
        ("Deployment", name_of(serve.name, GATEWAY)): seen.gateway,
        **seen.others,
    }
    taken = [place for place, view in there.items() if view is not None and not view.owned]
    if not taken:
        return None
    kind, name = taken[0]
    return Refusal(Reason.NAME_TAKEN, f"{kind} {name} belongs to something else. Delete it, or choose another name.")


_CHECKS: tuple[_Check, ...] = (_keda, _arena, _names)
