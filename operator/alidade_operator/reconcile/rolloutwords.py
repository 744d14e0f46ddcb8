"""What a ModelServe's status says of a rollout: conditions, phase, and the line of the log."""

from dataclasses import dataclass

from alidade_crds.reasons import ConditionType, Reason
from alidade_operator.reconcile.canary import Stage, Step
from alidade_operator.reconcile.loadingadapters import is_loaded, refusal_words, served_adapters
from alidade_operator.reconcile.plan import Notice, Plan
from alidade_operator.reconcile.servedraft import ServeDraft, Situation, owned, pod_words, still
from alidade_operator.reconcile.servingfront import Front
from alidade_operator.reconcile.servingscale import Size
from alidade_operator.resources.engines.server import Server
from alidade_operator.resources.gateway import scales_to_zero


@dataclass(frozen=True)
class Outcome:
    """What was decided. server: what the spec asks for. is_told: whether stable's Deployment already reads so."""

    situation: Situation
    server: Server
    number: Size
    step: Step
    front: Front
    is_told: bool

    @property
    def is_resized(self) -> bool:
        """Whether this plan asks for more or fewer replicas than there are told to be: no event need tell of that."""
        own = owned(self.situation.seen.deployment)
        asked = self.number.replicas if self.number.is_ours else 0
        return own is not None and bool(asked) and own.wanted != asked

    @property
    def served(self) -> str:
        """The model and its adapters."""
        names = [one.name for one in self.server.adapters]
        return f"{self.server.model.uri} and {', '.join(names)}" if names else self.server.model.uri


def tell(outcome: Outcome, draft: ServeDraft) -> Plan:
    """The finished plan."""
    stage, own = outcome.step.stage, owned(outcome.situation.seen.deployment)
    if stage is Stage.START:
        return _starting(outcome, draft)
    if stage is Stage.ASKED:
        return _asked(outcome, draft)
    if stage is Stage.RETURNED:
        return _returned(outcome, draft)
    if own is None or not outcome.is_told or not own.is_rolled_out or outcome.is_resized:
        return _rolling(outcome, draft)
    return _rolled(outcome, draft)


def _starting(outcome: Outcome, draft: ServeDraft) -> Plan:
    seen, model = outcome.situation.seen, outcome.server.model
    known, words = owned(seen.canary), pod_words(seen.canary_pods)
    if known is not None and known.model == model.uri and known.is_current and known.stalled:
        message = f"The canary does not become ready: {known.stalled}{words}{still(seen)}"
        draft.fail(Reason.ROLLOUT_STALLED, message)
        return draft.finish("Failed", "fail", message)
    message = f"A canary of {outcome.served} is being started.{words}{still(seen)}"
    draft.conditions.set(ConditionType.PROGRESSING, "True", Reason.CANARY_STARTING, message)
    return draft.finish("Canary", "start a canary", message)


def _asked(outcome: Outcome, draft: ServeDraft) -> Plan:
    asked, own = outcome.situation.spec.rollout, owned(outcome.situation.seen.deployment)
    before = own.model if own is not None else "the model before"
    message = f"{outcome.served} gets {asked.canary_percent} percent of the requests, {before} the others"
    if asked.previous == "keep":
        message += ", until rollout.canaryPercent is 0 or 100; see status.canary."
        draft.conditions.set(ConditionType.PROGRESSING, "False", Reason.CANARY_KEPT, message)
        return draft.finish("Canary", "keep both", message)
    message += (
        f"; it takes over once it has answered {asked.analysis.min_requests} requests in {asked.analysis.seconds} "
        "seconds or more and is not worse; see status.canary."
    )
    draft.conditions.set(ConditionType.PROGRESSING, "True", Reason.CANARY_RUNNING, message)
    return draft.finish("Canary", "ask the canary", message)


def _returned(outcome: Outcome, draft: ServeDraft) -> Plan:
    assert outcome.step.returned is not None, "what was taken back is remembered"
    message = outcome.step.returned.message + still(outcome.situation.seen)
    fix = "Change the spec to try again; with rollout.canaryPercent 0 the new model takes over as it is."
    draft.fail(Reason.CANARY_WORSE, f"{message} {fix}")
    return draft.finish("Failed", "take back the canary", message)


def _rolling(outcome: Outcome, draft: ServeDraft) -> Plan:
    seen = outcome.situation.seen
    own, words = owned(seen.deployment), pod_words(seen.pods)
    if outcome.is_told and own is not None and own.is_current and own.stalled:
        message = f"New replicas do not become ready: {own.stalled}{words}{still(seen)}"
        draft.fail(Reason.ROLLOUT_STALLED, message)
        return draft.finish("Failed", "fail", message)
    message, reason = f"Replicas that serve {outcome.served} are being started.{words}", Reason.ROLLING_OUT
    if outcome.step.stage is Stage.TAKING_OVER:
        message = f"The canary of {outcome.server.model.uri} takes over. {message}"
        reason = Reason.CANARY_PROMOTED
        if draft.conditions.reason(ConditionType.PROGRESSING) != reason:
            draft.remarks.append(Notice("Normal", str(reason), message))
    draft.conditions.set(ConditionType.PROGRESSING, "True", reason, message)
    return draft.finish("Starting" if own is None or not own.ready else "Updating", "roll out", message)


def _rolled(outcome: Outcome, draft: ServeDraft) -> Plan:
    spec, own = outcome.situation.spec, owned(outcome.situation.seen.deployment)
    draft.state(adapters=served_adapters(outcome.situation, outcome.server))
    if outcome.front.is_wanted and not (outcome.front.is_settled and draft.stated("gateway_ready_replicas")):
        return _starting_gateway(outcome, draft)
    if not outcome.number.replicas and not scales_to_zero(spec):
        draft.state(model=None, adapters=[])
        message = "spec.replicas is 0. Raise it, and the model is served again."
        draft.conditions.set(ConditionType.AVAILABLE, "False", Reason.STOPPED, message)
        draft.conditions.set(ConditionType.PROGRESSING, "False", Reason.STOPPED, message)
        return draft.finish("Stopped", "stop", message)
    if not is_loaded(outcome.situation, outcome.server):
        names = ", ".join(one.name for one in outcome.server.adapters)
        message = f"Running replicas are brought to the adapters {names}.{refusal_words(outcome.situation)}"
        draft.conditions.set(ConditionType.PROGRESSING, "True", Reason.ROLLING_OUT, message)
        return draft.finish("Updating", "load adapters", message)
    told = f"very replica serves {outcome.served}"
    draft.conditions.set(ConditionType.PROGRESSING, "False", Reason.COMPLETED, f"E{told}.")
    is_idle = own is not None and not own.wanted
    return draft.finish("Idle" if is_idle else "Serving", "serve", f"e{told}")


def _starting_gateway(outcome: Outcome, draft: ServeDraft) -> Plan:
    """What is told while every replica serves the spec's model, and the gateway is not there yet."""
    seen = outcome.situation.seen
    known, words = owned(seen.gateway), pod_words([one.view for one in seen.gateway_pods])
    if known is not None and known.is_current and known.stalled:
        message = f"The gateway does not become ready: {known.stalled}{words}{still(seen)}"
        draft.fail(Reason.ROLLOUT_STALLED, message)
        return draft.finish("Failed", "fail", message)
    message = f"The gateway is being started.{words}{still(seen)}"
    draft.conditions.set(ConditionType.PROGRESSING, "True", Reason.ROLLING_OUT, message)
    return draft.finish("Updating", "start the gateway", message)
