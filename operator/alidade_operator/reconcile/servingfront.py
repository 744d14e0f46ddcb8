"""What stands before a ModelServe's replicas and around them: Services, the gateway, policies."""

from dataclasses import dataclass

from alidade_crds.reasons import ConditionType, Reason
from alidade_operator.api import DEPLOYMENT, POD_MONITOR, POLICY_KINDS, SERVICE, JsonObject, Kind
from alidade_operator.reconcile.canary import Step, trial_key
from alidade_operator.reconcile.plan import Apply
from alidade_operator.reconcile.serve import ChildView
from alidade_operator.reconcile.servedraft import LEFTOVER_S, ServeDraft, Situation, owned
from alidade_operator.resources.engines.server import ServedModel
from alidade_operator.resources.gateway import Against, Door, gateway, needs_gateway
from alidade_operator.resources.serving import (
    CANARY,
    COMPONENT,
    GATEWAY,
    Component,
    applied_hash,
    name_of,
    service,
    side_name,
    url,
)
from alidade_operator.resources.servingpolicies import Around, policies

_SIDES: tuple[Component, ...] = (COMPONENT, CANARY)


@dataclass(frozen=True)
class Front:
    """How clients get to the replicas. is_wanted: whether there is to be a gateway. is_settled: whether every gateway
    pod there is does what the newest plan says."""

    is_wanted: bool
    is_settled: bool


def leads_to_gateway(situation: Situation) -> bool:
    """Whether clients come to the gateway now."""
    found = owned(situation.seen.service)
    return found is not None and found.applied == applied_hash(_front(situation, GATEWAY))


def stand(situation: Situation, draft: ServeDraft, step: Step, target: ServedModel, *, replicas: int) -> Front:
    """Brings all that is not a replica to what it should be. replicas: how many of the model are asked for.

    A gateway is led to once it is ready, and goes once nobody is led to it; where it holds requests for want of a
    replica it stays till there is one.
    """
    seen = situation.seen
    door, stable = owned(seen.gateway), owned(seen.deployment)
    has_stable = stable is not None and stable.ready > 0
    leads = leads_to_gateway(situation)
    holds = door is not None and leads and not has_stable and replicas > 0
    is_wanted = needs_gateway(situation.spec) or step.runs or holds
    through = is_wanted and door is not None and (door.ready > 0 or (leads and not has_stable))
    is_settled = _gateway(situation, draft, step, target, is_wanted=is_wanted)
    front = _front(situation, GATEWAY if through else COMPONENT)
    if seen.service is None or seen.service.applied != applied_hash(front):
        draft.children.append(Apply(SERVICE, front))
        draft.state(url=url(situation.serve.namespace, situation.serve.name))
    _around(situation, draft, through=through)
    return Front(is_wanted, is_settled)


def _front(situation: Situation, component: Component) -> JsonObject:
    return service(_owner(situation), situation.serve.name, component)


def _owner(situation: Situation) -> tuple[str, str, str]:
    return situation.serve.namespace, situation.serve.name, situation.serve.uid


def _gateway(situation: Situation, draft: ServeDraft, step: Step, target: ServedModel, *, is_wanted: bool) -> bool:
    """The gateway and the Services by which it reaches both sides; whether every pod of it does what is asked now."""
    name, seen = situation.serve.name, situation.seen
    known = owned(seen.gateway)
    if not is_wanted:
        draft.state(gateway_ready_replicas=0)
        draft.delete(DEPLOYMENT, name_of(name, GATEWAY), known)
        if known is None and not seen.gateway_pods:
            # Until then its pods end what they have begun.
            for side in _SIDES:
                draft.delete(SERVICE, side_name(name, side), seen.others.get((SERVICE.kind, side_name(name, side))))
        return known is None and not seen.gateway_pods
    for side in _SIDES:
        body = service(_owner(situation), side_name(name, side), side)
        _apply(draft, SERVICE, body, seen.others.get((SERVICE.kind, side_name(name, side))))
    body = gateway(_door(situation, draft, step, target))
    draft.state(gateway_ready_replicas=known.ready if known is not None else 0)
    is_told = known is not None and known.wanted == body["spec"]["replicas"] and known.applied == applied_hash(body)
    if is_told and known is not None:
        return known.is_rolled_out
    if known is not None and known.terminating:
        draft.look_again_in(LEFTOVER_S)
    else:
        draft.children.append(Apply(DEPLOYMENT, body))
    return known is None


def _door(situation: Situation, draft: ServeDraft, step: Step, target: ServedModel) -> Door:
    serve, spec = situation.serve, situation.spec
    arena = spec.gateway.arena if spec.gateway is not None else None
    against = Against(arena.against, situation.seen.against) if arena is not None and arena.against else None
    return Door(
        namespace=serve.namespace,
        name=serve.name,
        uid=serve.uid,
        spec=spec,
        config=situation.config,
        stable_model=draft.stated("model") or target.uri,
        canary_model=target.uri,
        share=step.share,
        trial=trial_key(target) if step.share else "",
        against=against,
    )


def _apply(draft: ServeDraft, kind: Kind, body: JsonObject, known: ChildView | None) -> None:
    if known is not None and known.terminating:
        draft.look_again_in(LEFTOVER_S)
    elif known is None or known.applied != applied_hash(body):
        draft.children.append(Apply(kind, body))


def _around(situation: Situation, draft: ServeDraft, *, through: bool) -> None:
    """Budgets, network policies, autoscalers, monitors: those that are asked for, and no other of ours."""
    serve, seen, config = situation.serve, situation.seen, situation.config
    around = Around(
        serve.namespace, serve.name, serve.uid, situation.spec, config, str(draft.stated("engine")), has_gateway=through
    )
    wanted = policies(around)
    for place, (kind, body) in wanted.items():
        if kind.kind not in seen.missing_kinds:
            _apply(draft, kind, body, seen.others.get(place))
    for kind in POLICY_KINDS:
        for (word, name), view in seen.others.items():
            if word == kind.kind and (word, name) not in wanted:
                draft.delete(kind, name, view)
    _tell_monitored(situation, draft)


def _tell_monitored(situation: Situation, draft: ServeDraft) -> None:
    if not situation.config.pod_monitors:
        draft.conditions.drop(ConditionType.MONITORED)
    elif POD_MONITOR.kind in situation.seen.missing_kinds:
        message = (
            "The operator's configuration asks for PodMonitors, and the cluster does not know them. Install the "
            "Prometheus operator, or set podMonitors to false."
        )
        draft.conditions.set(ConditionType.MONITORED, "False", Reason.MONITORING_MISSING, message)
    else:
        message = f"PodMonitor {situation.serve.name} tells Prometheus to scrape every pod."
        draft.conditions.set(ConditionType.MONITORED, "True", Reason.COMPLETED, message)
