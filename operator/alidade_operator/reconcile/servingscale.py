"""How many replicas a ModelServe is to have now, who says so, and what is told of that."""

from dataclasses import dataclass

from alidade_crds.modelserve import Autoscaling, AutoscalingProvider
from alidade_crds.reasons import ConditionType, Reason
from alidade_operator.api import AUTOSCALER, DEPLOYMENT, SCALED_OBJECT
from alidade_operator.reconcile.autoscaling import Load, scale
from alidade_operator.reconcile.plan import Adjust, Notice, PodTarget
from alidade_operator.reconcile.servedraft import ServeDraft, Situation, owned
from alidade_operator.reconcile.servingfront import leads_to_gateway
from alidade_operator.resources.engines.server import METRICS_PATH
from alidade_operator.resources.gateway import STATUS_PATH
from alidade_operator.resources.serving import wanted_replicas

_NAMES = {AutoscalingProvider.HPA: "HorizontalPodAutoscaler", AutoscalingProvider.KEDA: "ScaledObject"}


@dataclass(frozen=True)
class Size:
    """Replicas of the model that serves. is_ours: whether the operator sets the number, and no autoscaler does."""

    replicas: int
    is_ours: bool = True


def readings(situation: Situation) -> tuple[PodTarget, ...]:
    """The pods that are asked for what they count."""
    seen, asked = situation.seen, situation.spec.autoscaling
    found = [PodTarget(one.view.uid, one.view.ip, STATUS_PATH) for one in seen.gateway_pods
             if one.view.ready_to_report and one.view.ip]  # fmt: skip
    if asked is not None and asked.provider is AutoscalingProvider.OPERATOR:
        found += [PodTarget(pod.uid, pod.ip, METRICS_PATH) for pod in seen.pods if pod.ready_to_report and pod.ip]
    return tuple(found)


def size(situation: Situation, draft: ServeDraft) -> Size:
    """The number of replicas, with what the condition Scaling says of it."""
    asked, own = situation.spec.autoscaling, owned(situation.seen.deployment)
    if asked is None:
        draft.conditions.drop(ConditionType.SCALING)
        draft.state(scaling=None)
        return Size(wanted_replicas(situation.spec))
    # A new one starts with a replica even where there may be none: that shows whether the model can be served.
    present = own.wanted if own is not None else max(asked.min, 1)
    if asked.provider is not AutoscalingProvider.OPERATOR:
        draft.state(scaling=None)
        _tell_autoscaler(situation, draft, asked)
        return Size(present, is_ours=False)
    return _own_size(situation, draft, asked, present)


def _own_size(situation: Situation, draft: ServeDraft, asked: Autoscaling, present: int) -> Size:
    load = load_of(situation, present)
    made = scale(asked, load, draft.before.scaling, situation.now)
    draft.state(scaling=made.report)
    draft.look_again_in(made.look_again_s)
    own = owned(situation.seen.deployment)
    if own is not None and made.replicas != own.wanted:
        draft.remarks.append(Notice("Normal", str(Reason.AUTOSCALED), _change(own.wanted, made.replicas, load)))
    if own is not None and own.is_rolled_out and own.wanted and not any(load.replicas):
        message = "No replica tells its load yet; there are as many as before."
        draft.conditions.set(ConditionType.SCALING, "Unknown", Reason.LOAD_UNKNOWN, message)
        return Size(made.replicas)
    message = (
        f"{made.replicas} replicas are asked for, between {asked.min} and {asked.max}, so that at most "
        f"{asked.target.queue_depth_per_replica} requests wait for each."
    )
    draft.conditions.set(ConditionType.SCALING, "True", Reason.AUTOSCALED, message)
    return Size(made.replicas)


def load_of(situation: Situation, present: int) -> Load:
    """The load as replicas and gateways tell it."""
    seen = situation.seen
    documents = [one.document for one in seen.gateway_pods if one.view.ready_to_report]
    told = [one for one in documents if one is not None]
    # Requests are held by the gateway only where it is the way to the replicas.
    is_complete = bool(told) and len(told) == len(documents) and leads_to_gateway(situation)
    times = [one.last_request_at for one in told if one.last_request_at is not None]
    return Load(
        present=present,
        replicas=tuple(seen.loads.get(pod.uid) for pod in seen.pods if pod.ready_to_report),
        held=sum(one.waiting for one in told) if is_complete else None,
        passed_on=sum(one.running for one in told),
        last_request_at=max(times, default=None),
    )


def _change(before: int, after: int, load: Load) -> str:
    told = [one for one in load.replicas if one is not None]
    waiting = sum(one.waiting for one in told)
    held = f", and the gateway holds {load.held}" if load.held else ""
    return f"From {before} to {after} replicas: {waiting} requests wait at replicas{held}."


def _tell_autoscaler(situation: Situation, draft: ServeDraft, asked: Autoscaling) -> None:
    kind = AUTOSCALER if asked.provider is AutoscalingProvider.HPA else SCALED_OBJECT
    name = _NAMES[asked.provider]
    if kind.kind in situation.seen.missing_kinds:
        message = (
            f"spec.autoscaling.provider is {asked.provider}, and the cluster knows no {name}. Install it, or set the "
            "provider to operator."
        )
        draft.conditions.set(ConditionType.SCALING, "False", Reason.AUTOSCALER_MISSING, message)
        return
    view = owned(situation.seen.others.get((kind.kind, situation.serve.name)))
    if view is not None and view.words:
        message = f"{name} {situation.serve.name} says: {view.words[:1000]}"
        draft.conditions.set(ConditionType.SCALING, "Unknown", Reason.LOAD_UNKNOWN, message)
        return
    message = f"{name} {situation.serve.name} sets the number of replicas, between {asked.min} and {asked.max}."
    draft.conditions.set(ConditionType.SCALING, "True", Reason.AUTOSCALED, message)


def keep_size(situation: Situation, draft: ServeDraft, number: Size) -> None:
    """What is served stays as it is, in as many replicas as are asked for now."""
    own = owned(situation.seen.deployment)
    if own is not None and not own.terminating and number.is_ours and own.wanted != number.replicas:
        metadata = {"name": situation.serve.name, "uid": own.uid}
        draft.children.append(Adjust(DEPLOYMENT, {"metadata": metadata, "spec": {"replicas": number.replicas}}))
