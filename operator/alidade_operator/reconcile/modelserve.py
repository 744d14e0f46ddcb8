"""What to do about a ModelServe: one pure function from the resource and what is observed to a plan.

What is served keeps being served until its successor answers: the Deployment is given the new model only when that is
there, quantized and within bounds, and replaces a pod only by one that is ready.
"""

from datetime import datetime

from alidade_crds.reasons import ConditionType, Reason
from alidade_operator.config import OperatorConfig
from alidade_operator.reconcile import servingacceptance
from alidade_operator.reconcile.acceptance import Refusal
from alidade_operator.reconcile.plan import Plan
from alidade_operator.reconcile.rollingout import roll_out
from alidade_operator.reconcile.serve import ChildView, ModelServe, ServeObserved
from alidade_operator.reconcile.servedmodel import prepared
from alidade_operator.reconcile.servedraft import LEFTOVER_S, Held, ServeDraft, Situation, owned, pod_words, still
from alidade_operator.reconcile.servingscale import keep_size, readings, size
from alidade_operator.resources.engines.choice import engine_of
from alidade_operator.resources.gateway import scales_to_zero
from alidade_operator.resources.serving import selector_labels, url


def plan_model_serve(serve: ModelServe, seen: ServeObserved, config: OperatorConfig, now: datetime) -> Plan:
    """The plan for a ModelServe. What it remembers is in the status: it can be made any number of times."""
    if serve.terminating:
        return Plan()
    draft = ServeDraft(serve, now)
    _state_replicas(serve, seen, draft)
    if serve.spec is None:
        return _refuse(seen, draft, Refusal(Reason.INVALID_SPEC, serve.spec_error))
    situation = Situation(serve, serve.spec, seen, config, now)
    draft.readings = readings(situation)
    number = size(situation, draft)
    found = servingacceptance.refusal(servingacceptance.Candidate(serve, serve.spec, seen, config))
    if found is not None:
        keep_size(situation, draft, number)
        return _refuse(seen, draft, found)
    draft.state(engine=engine_of(serve.spec, config.pool(serve.spec.compute.node_pool)))
    draft.conditions.set(ConditionType.ACCEPTED, "True", Reason.VALID, "Nothing in the spec stands against serving.")
    model = prepared(situation, draft)
    if isinstance(model, Held):
        keep_size(situation, draft, number)
        return draft.finish(model.phase, model.action, model.why)
    if isinstance(model, Refusal):
        keep_size(situation, draft, number)
        return _refuse(seen, draft, model)
    return roll_out(situation, draft, model, number)


def _state_replicas(serve: ModelServe, seen: ServeObserved, draft: ServeDraft) -> None:
    """What answers now, whatever the spec has come to say since."""
    own, door = owned(seen.deployment), owned(seen.gateway)
    labels = selector_labels(serve.name)
    draft.state(
        replicas=own.replicas if own is not None else 0,
        ready_replicas=own.ready if own is not None else 0,
        gateway_ready_replicas=door.ready if door is not None else 0,
        selector=",".join(f"{name}={value}" for name, value in sorted(labels.items())),
        url=url(serve.namespace, serve.name) if owned(seen.service) is not None else None,
    )
    if own is not None and own.is_rolled_out and own.wanted:
        draft.state(model=own.model)
    _tell_available(serve, seen, draft, own)


def _tell_available(serve: ModelServe, seen: ServeObserved, draft: ServeDraft, own: ChildView | None) -> None:
    address, door = url(serve.namespace, serve.name), owned(seen.gateway)
    may_be_none = serve.spec is not None and scales_to_zero(serve.spec)
    if own is not None and own.ready:
        message = f"{own.ready} of {own.replicas} replicas answer at {address}."
        draft.conditions.set(ConditionType.AVAILABLE, "True", Reason.SERVING, message)
    elif own is not None and may_be_none and door is not None and door.ready and not own.wanted:
        message = f"The next request at {address} starts a replica, and is held until that answers."
        draft.conditions.set(ConditionType.AVAILABLE, "True", Reason.SCALED_TO_ZERO, message)
    elif own is None or not own.wanted:
        draft.conditions.set(ConditionType.AVAILABLE, "False", Reason.NO_REPLICA_READY, "No replica is asked for yet.")
    else:
        message = f"No replica answers.{pod_words(seen.pods)}"
        draft.conditions.set(ConditionType.AVAILABLE, "False", Reason.NO_REPLICA_READY, message)


def _refuse(seen: ServeObserved, draft: ServeDraft, found: Refusal) -> Plan:
    """The plan for a spec that cannot be served, or not yet; what is served stays."""
    draft.conditions.set(ConditionType.ACCEPTED, found.status, found.reason, found.message + still(seen))
    waits = found.status == "Unknown"
    if not waits:
        draft.conditions.set(
            ConditionType.PROGRESSING, "False", found.reason, "The spec is not accepted; see the condition Accepted."
        )
    else:
        draft.conditions.set(ConditionType.PROGRESSING, "True", found.reason, found.message)
    draft.conditions.set(ConditionType.QUANTIZED, "Unknown", Reason.WAITING, "Not begun before the spec is accepted.")
    draft.has_not_failed()
    if found.reason is Reason.NAME_TAKEN:
        draft.look_again_in(LEFTOVER_S)
    return draft.finish("Waiting", "wait" if waits else "refuse", f"{found.reason}: {found.message}")
