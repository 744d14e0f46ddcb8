"""What to do about a ModelServe: one pure function from the resource and what is observed to a plan.

What is served keeps being served until its successor answers: the Deployment is given the new model only when that is
there, quantized and within bounds, and replaces a pod only by one that is ready.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from alidade_crds.modelserve import ModelServeSpec, QuantizationJobStatus, QuantizationReport
from alidade_crds.reasons import ConditionType, Reason
from alidade_crds.status import Condition
from alidade_operator.api import DEPLOYMENT, JOB, SERVICE
from alidade_operator.conditions import Conditions
from alidade_operator.config import OperatorConfig
from alidade_operator.reconcile import servingacceptance
from alidade_operator.reconcile.acceptance import Refusal
from alidade_operator.reconcile.draft import transitions
from alidade_operator.reconcile.plan import Adjust, Apply, Child, Decision, Delete, Notice, Plan, TrainingJob
from alidade_operator.reconcile.serve import (
    ModelServe,
    ServeObserved,
    model_address,
    quantization_job,
    quantized_model,
)
from alidade_operator.reconcile.servingadapters import adapter_places
from alidade_operator.reconcile.trainingjob import plan_training_job
from alidade_operator.resources.engines.choice import engine_of
from alidade_operator.resources.engines.server import ServedModel, Server
from alidade_operator.resources.serving import (
    COMPONENT,
    applied_hash,
    deployment,
    selector_labels,
    service,
    url,
    wanted_replicas,
)

ServePhase = Literal["Waiting", "Quantizing", "Starting", "Updating", "Serving", "Stopped", "Failed"]
"""For people. Waiting: something has to change or come first. Starting: nothing answers yet. Updating: replicas of the
newest spec replace older ones. Stopped: spec.replicas is 0."""

# What moves by itself while replicas and jobs come and go; a status that differs in nothing else is no decision.
_MOVING = ("replicas", "ready_replicas", "quantization_job")
# Deleted objects send an event when they go; this look is for the event that gets lost.
_LEFTOVER_S = 10.0


class ServeDraft:
    """Collects what a plan says; `finish` compares it with the status there is."""

    def __init__(self, serve: ModelServe, now: datetime) -> None:
        self.before = serve.status
        self.conditions = Conditions(
            serve.status.conditions, generation=serve.generation, now=now.replace(microsecond=0)
        )
        self.children: list[Child] = []
        self.deletions: list[Delete] = []
        self.remarks: list[Notice] = []
        self.look_again_s: float | None = None
        self._generation = serve.generation
        self._fields: dict[str, Any] = {}

    def state(self, **fields: Any) -> None:
        """Sets fields of the status."""
        self._fields |= fields

    def finish(self, phase: ServePhase, action: str, why: str) -> Plan:
        """The plan. action and why make the line of the log, if the plan changes anything that is a decision."""
        conditions = self.conditions.list()
        after = self.before.model_copy(
            update={
                **self._fields,
                "phase": phase,
                "conditions": conditions,
                "observed_generation": self._generation,
            }
        )
        known = self.before.model_copy(update={"conditions": _in_order(self.before.conditions)})
        changed = after != known
        moved_only = after == known.model_copy(update={name: getattr(after, name) for name in _MOVING})
        decided = (changed and not moved_only) or self.children or self.deletions
        return Plan(
            status=after if changed else None,
            children=tuple(self.children),
            deletions=tuple(self.deletions),
            notices=tuple(transitions(self.before.conditions, conditions, frozenset(ConditionType))),
            remarks=tuple(self.remarks) if decided else (),
            decisions=(Decision(action, why),) if decided else (),
            look_again_s=self.look_again_s,
        )


def _in_order(conditions: Sequence[Condition]) -> list[Condition]:
    order = {str(kind): index for index, kind in enumerate(ConditionType)}
    return sorted((one for one in conditions if one.type in order), key=lambda one: order[one.type])


@dataclass(frozen=True)
class Situation:
    """A ModelServe and all that its plan depends on."""

    serve: ModelServe
    spec: ModelServeSpec
    seen: ServeObserved
    config: OperatorConfig
    now: datetime


def plan_model_serve(serve: ModelServe, seen: ServeObserved, config: OperatorConfig, now: datetime) -> Plan:
    """The plan for a ModelServe. It holds no memory: it can be made at any time, any number of times."""
    if serve.terminating:
        return Plan()
    draft = ServeDraft(serve, now)
    _state_replicas(serve, seen, draft)
    if serve.spec is None:
        return _refuse(seen, draft, Refusal(Reason.INVALID_SPEC, serve.spec_error))
    situation = Situation(serve, serve.spec, seen, config, now)
    found = servingacceptance.refusal(servingacceptance.Candidate(serve, serve.spec, seen, config))
    if found is not None:
        return _refuse(seen, draft, found)
    draft.state(engine=engine_of(serve.spec, config.pool(serve.spec.compute.node_pool)))
    draft.conditions.set(ConditionType.ACCEPTED, "True", Reason.VALID, "Nothing in the spec stands against serving.")
    prepared = _prepared(situation, draft)
    if isinstance(prepared, Plan):
        return prepared
    return _roll_out(situation, draft, prepared)


def _state_replicas(serve: ModelServe, seen: ServeObserved, draft: ServeDraft) -> None:
    """What answers now, whatever the spec has come to say since."""
    own = seen.deployment if seen.deployment is not None and seen.deployment.owned else None
    labels = selector_labels(serve.name)
    draft.state(
        replicas=own.replicas if own is not None else 0,
        ready_replicas=own.ready if own is not None else 0,
        selector=",".join(f"{name}={value}" for name, value in sorted(labels.items())),
        url=url(serve.namespace, serve.name) if seen.service is not None and seen.service.owned else None,
    )
    if own is not None and own.is_rolled_out and own.wanted:
        draft.state(model=own.model)
    if own is None or not own.wanted:
        draft.state(adapters=[])
        draft.conditions.set(ConditionType.AVAILABLE, "False", Reason.NO_REPLICA_READY, "No replica is asked for yet.")
    elif own.ready:
        message = f"{own.ready} of {own.replicas} replicas answer at {url(serve.namespace, serve.name)}."
        draft.conditions.set(ConditionType.AVAILABLE, "True", Reason.SERVING, message)
    else:
        words = _pod_words(seen)
        draft.conditions.set(ConditionType.AVAILABLE, "False", Reason.NO_REPLICA_READY, f"No replica answers.{words}")


def _pod_words(seen: ServeObserved) -> str:
    """What keeps a replica from answering, in its own words; empty when nothing is said."""
    for pod in seen.pods:
        last = pod.termination.message.strip().splitlines()[-1:] if pod.termination is not None else []
        if last:
            return f" Pod {pod.name} ended: {last[0][:1000]}"
        if pod.message:
            return f" Pod {pod.name}: {pod.message}"
    return ""


def _still(seen: ServeObserved) -> str:
    """The sentence about what goes on being served."""
    own = seen.deployment
    return f" {own.model} is served as before." if own is not None and own.owned and own.ready and own.model else ""


def _refuse(seen: ServeObserved, draft: ServeDraft, found: Refusal) -> Plan:
    """The plan for a spec that cannot be served, or not yet; what is served stays."""
    draft.conditions.set(ConditionType.ACCEPTED, found.status, found.reason, found.message + _still(seen))
    waits = found.status == "Unknown"
    if not waits:
        draft.conditions.set(
            ConditionType.PROGRESSING, "False", found.reason, "The spec is not accepted; see the condition Accepted."
        )
    else:
        draft.conditions.set(ConditionType.PROGRESSING, "True", found.reason, found.message)
    draft.conditions.set(ConditionType.QUANTIZED, "Unknown", Reason.WAITING, "Not begun before the spec is accepted.")
    draft.conditions.set(ConditionType.FAILED, "False", Reason.NOT_FAILED, "Nothing has failed for good.")
    if found.reason is Reason.NAME_TAKEN:
        draft.look_again_s = _LEFTOVER_S
    return draft.finish("Waiting", "wait" if waits else "refuse", f"{found.reason}: {found.message}")


def _prepared(situation: Situation, draft: ServeDraft) -> ServedModel | Plan:
    """The model that is to be served once it is there and within bounds, till then the plan that waits for it."""
    job = quantization_job(situation.serve, situation.seen.source, situation.config)
    draft.deletions += [
        Delete(JOB, one.name, one.uid)
        for one in situation.seen.other_jobs
        if one.owned and not one.terminating and one.state not in ("succeeded", "failed")
    ]
    if job is None:
        uri, digest = model_address(situation.spec, situation.seen.source)
        assert uri is not None, "checked by acceptance"
        draft.state(quantization=None, quantization_job=None)
        draft.conditions.set(ConditionType.QUANTIZED, "True", Reason.NOT_ASKED_FOR, "The weights stay as they are.")
        return ServedModel(uri, digest)
    status = _quantize(situation, draft, job)
    report = status.quantization
    conditions = {one.type: one for one in status.conditions if one.status == "True"}
    if ConditionType.FAILED in conditions:
        failed = conditions[ConditionType.FAILED]
        return _fail(situation, draft, Reason.QUANTIZATION_FAILED, f"The quantization has failed ({failed.reason}): "
                     f"{failed.message}")  # fmt: skip
    if ConditionType.SUCCEEDED not in conditions or report is None or report.uri is None:
        return _quantizing(situation, draft, status)
    draft.state(quantization=report)
    too_high = _excess(situation.spec, report)
    if too_high is not None:
        return _fail(situation, draft, Reason.PERPLEXITY_TOO_HIGH, too_high)
    draft.conditions.set(ConditionType.QUANTIZED, "True", Reason.COMPLETED, _told(report))
    return quantized_model(situation.spec, situation.seen.source, report)


def _quantize(situation: Situation, draft: ServeDraft, job: TrainingJob) -> QuantizationJobStatus:
    """Takes the plan of the quantization job into the draft; the status of the job as it will read."""
    plan = plan_training_job(job, situation.seen.quantization, situation.config, situation.now)
    status = plan.status if plan.status is not None else job.status
    assert isinstance(status, QuantizationJobStatus), "a plan keeps its status' type"
    draft.state(quantization_job=status)
    draft.children += plan.children
    draft.deletions += plan.deletions
    draft.remarks += plan.remarks
    draft.look_again_s = plan.look_again_s
    return status


def _quantizing(situation: Situation, draft: ServeDraft, status: QuantizationJobStatus) -> Plan:
    known = {one.type: one for one in status.conditions}
    accepted, fits = known[ConditionType.ACCEPTED], known[ConditionType.FITS]
    if accepted.status == "False":
        return _refuse(situation.seen, draft, Refusal(_reason(accepted), accepted.message))
    _keep_serving(situation, draft)
    told = known[ConditionType.LAUNCHED]
    is_stuck = fits.status == "False"
    if is_stuck:
        told = fits
    draft.state(quantization=None)
    draft.conditions.set(ConditionType.QUANTIZED, "False", told.reason, told.message)
    draft.conditions.set(ConditionType.FAILED, "False", Reason.NOT_FAILED, "Nothing has failed for good.")
    progressing: Literal["True", "False"] = "False" if is_stuck else "True"
    message = f"The model is being quantized.{_still(situation.seen)}" if not is_stuck else told.message
    draft.conditions.set(ConditionType.PROGRESSING, progressing, told.reason, message)
    return draft.finish("Waiting" if is_stuck else "Quantizing", "quantize", told.message)


def _reason(condition: Condition) -> Reason:
    return next(reason for reason in Reason if reason == condition.reason)


def _fail(situation: Situation, draft: ServeDraft, reason: Reason, message: str) -> Plan:
    """The plan for a model that cannot be served; what is served stays."""
    _keep_serving(situation, draft)
    whole = message + _still(situation.seen)
    draft.conditions.set(ConditionType.QUANTIZED, "False", reason, message)
    draft.conditions.set(ConditionType.FAILED, "True", reason, whole)
    draft.conditions.set(ConditionType.PROGRESSING, "False", reason, "See the condition Failed.")
    return draft.finish("Failed", "fail", f"{reason}: {whole}")


def _keep_serving(situation: Situation, draft: ServeDraft) -> None:
    """What is served stays, in as many replicas as the newest spec asks for."""
    own, wanted = situation.seen.deployment, wanted_replicas(situation.spec)
    if own is not None and own.owned and not own.terminating and own.wanted != wanted:
        metadata = {"name": situation.serve.name, "uid": own.uid}
        draft.children.append(Adjust(DEPLOYMENT, {"metadata": metadata, "spec": {"replicas": wanted}}))


def _excess(spec: ModelServeSpec, report: QuantizationReport) -> str | None:
    """The sentence that says by how much perplexity has risen too far, or None."""
    limit, increase = spec.quantization.max_perplexity_increase, report.increase
    if limit is None or (increase is not None and increase <= limit):
        return None
    rise = f"by {increase:.1%}" if increase is not None else "by an unknown share"
    return (
        f"Perplexity rose from {report.perplexity_before} to {report.perplexity_after}, {rise}; "
        f"spec.quantization.maxPerplexityIncrease is {limit}. Use a type with more bits, or raise the limit."
    )


def _told(report: QuantizationReport) -> str:
    smaller = f", {report.size_bytes / report.size_bytes_before:.0%} of before" if report.size_bytes_before else ""
    return (
        f"{report.type or report.method}: {report.size_bytes} bytes{smaller}; perplexity {report.perplexity_before} "
        f"before, {report.perplexity_after} after."
    )


def _roll_out(situation: Situation, draft: ServeDraft, model: ServedModel) -> Plan:
    """Brings Deployment and Service to what they should be, and says how far that is."""
    serve, seen, spec = situation.serve, situation.seen, situation.spec
    pool = situation.config.pool(spec.compute.node_pool)
    assert pool is not None, "checked by acceptance"
    engine = engine_of(spec, pool)
    adapters = adapter_places(spec, seen)
    server = Server(serve.namespace, serve.name, serve.uid, spec, model, pool, situation.config, engine, adapters)
    own, wanted = seen.deployment, wanted_replicas(spec)
    body = deployment(server, wanted)
    front = service((serve.namespace, serve.name, serve.uid), serve.name, COMPONENT)
    draft.conditions.set(ConditionType.FAILED, "False", Reason.NOT_FAILED, "Nothing has failed for good.")
    if (own is not None and own.terminating) or (seen.service is not None and seen.service.terminating):
        draft.look_again_s = _LEFTOVER_S
        message = f"Deployment or Service {serve.name} is being deleted; waiting for it to go."
        draft.conditions.set(ConditionType.PROGRESSING, "True", Reason.WAITING, message)
        return draft.finish("Waiting", "wait", message)
    if seen.service is None or seen.service.applied != applied_hash(front):
        draft.children.append(Apply(SERVICE, front))
        draft.state(url=url(serve.namespace, serve.name))
    is_told = own is not None and own.applied == applied_hash(body) and own.wanted == wanted
    if not is_told:
        draft.children.append(Apply(DEPLOYMENT, body))
    if own is None or not is_told or not own.is_rolled_out:
        return _rolling(situation, draft, server, is_told=is_told)
    if not wanted:
        draft.state(model=None, adapters=[])
        message = "spec.replicas is 0. Raise it, and the model is served again."
        draft.conditions.set(ConditionType.AVAILABLE, "False", Reason.STOPPED, message)
        draft.conditions.set(ConditionType.PROGRESSING, "False", Reason.STOPPED, message)
        return draft.finish("Stopped", "stop", message)
    draft.state(adapters=[one.name for one in adapters])
    told = f"very replica serves {model.uri}{_with_adapters(server)}"
    draft.conditions.set(ConditionType.PROGRESSING, "False", Reason.COMPLETED, f"E{told}.")
    return draft.finish("Serving", "serve", f"e{told}")


def _with_adapters(server: Server) -> str:
    return f" and {', '.join(one.name for one in server.adapters)}" if server.adapters else ""


def _rolling(situation: Situation, draft: ServeDraft, server: Server, *, is_told: bool) -> Plan:
    seen = situation.seen
    own = seen.deployment
    words = _pod_words(seen)
    if is_told and own is not None and own.is_current and own.stalled:
        message = f"New replicas do not become ready: {own.stalled}{words}{_still(seen)}"
        draft.conditions.set(ConditionType.FAILED, "True", Reason.ROLLOUT_STALLED, message)
        draft.conditions.set(ConditionType.PROGRESSING, "False", Reason.ROLLOUT_STALLED, "See the condition Failed.")
        return draft.finish("Failed", "fail", message)
    message = f"Replicas that serve {server.model.uri}{_with_adapters(server)} are being started.{words}"
    draft.conditions.set(ConditionType.PROGRESSING, "True", Reason.ROLLING_OUT, message)
    is_first = own is None or not own.ready
    return draft.finish("Starting" if is_first else "Updating", "roll out", message)
