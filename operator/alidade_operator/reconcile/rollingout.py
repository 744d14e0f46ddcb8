"""How a model takes over: the Deployments of both sides, brought a step nearer to what the spec asks for."""

import math

from alidade_crds.modelserve import CanaryReport, Rollout
from alidade_crds.reasons import ConditionType, Reason
from alidade_operator.api import DEPLOYMENT
from alidade_operator.reconcile.canary import Stage, Step, Trial, next_step, trial_key
from alidade_operator.reconcile.canaryjudge import counted
from alidade_operator.reconcile.loadingadapters import keep_adapters, with_list
from alidade_operator.reconcile.plan import Apply, Notice, Plan
from alidade_operator.reconcile.rolloutwords import Outcome, tell
from alidade_operator.reconcile.run import inputs_hash
from alidade_operator.reconcile.servedraft import LEFTOVER_S, ServeDraft, Situation, owned
from alidade_operator.reconcile.servingadapters import adapter_places
from alidade_operator.reconcile.servingfront import stand
from alidade_operator.reconcile.servingscale import Size, keep_size
from alidade_operator.resources.engines.choice import engine_of
from alidade_operator.resources.engines.server import ServedModel, Server
from alidade_operator.resources.gateway import scales_to_zero
from alidade_operator.resources.serving import CANARY, applied_hash, deployment, name_of

# What may change without that a canary which was worse is worth another try.
_BESIDE_THE_MODEL = ("replicas", "autoscaling", "gateway")
# Counts are written anew when they have grown by this share, so that a busy canary does not write without end.
_WORTH_WRITING = 0.1


def roll_out(situation: Situation, draft: ServeDraft, model: ServedModel, number: Size) -> Plan:
    """Brings everything that serves a step nearer to what it should be, and says how far that is."""
    seen, name = situation.seen, situation.serve.name
    for word, view in (("Deployment", seen.deployment), ("Service", seen.service)):
        if view is not None and view.terminating:
            draft.look_again_in(LEFTOVER_S)
            message = f"{word} {name} is being deleted; waiting for it to go."
            draft.conditions.set(ConditionType.PROGRESSING, "True", Reason.WAITING, message)
            return draft.finish("Waiting", "wait", message)
    draft.has_not_failed()
    server = with_list(situation, _server(situation, model))
    is_told = _is_told(situation, server)
    step = next_step(_trial(situation, draft, server, number, is_told=is_told))
    draft.look_again_in(step.look_again_s)
    _remember(draft, step)
    keep_adapters(situation, draft, server, is_told=is_told)
    _stable(situation, draft, server, number, step, is_told=is_told)
    if step.runs:
        _canary(situation, draft, server, number)
    front = stand(situation, draft, step, model, replicas=number.replicas)
    if not step.runs and (front.is_settled or step.stage is Stage.RETURNED):
        # Before, a gateway may send requests there; one that was worse goes at once, and its requests to the other.
        draft.delete(DEPLOYMENT, name_of(name, CANARY), seen.canary)
    return tell(Outcome(situation, server, number, step, front, is_told), draft)


def _server(situation: Situation, model: ServedModel) -> Server:
    serve, spec, config = situation.serve, situation.spec, situation.config
    pool = config.pool(spec.compute.node_pool)
    assert pool is not None, "checked by acceptance"
    adapters = adapter_places(spec, situation.seen)
    return Server(
        serve.namespace, serve.name, serve.uid, spec, model, pool, config, engine_of(spec, pool), adapters
    )  # fmt: skip


def _is_told(situation: Situation, server: Server) -> bool:
    own = owned(situation.seen.deployment)
    return own is not None and own.applied == applied_hash(deployment(server, 0))


def _trial(situation: Situation, draft: ServeDraft, server: Server, number: Size, *, is_told: bool) -> Trial:
    seen, spec = situation.seen, situation.spec
    canary, key = owned(seen.canary), trial_key(server.model)
    told = spec.chosen()
    asked = {name: told[name] for name in told if name not in _BESIDE_THE_MODEL}
    is_stopped = not number.replicas and not scales_to_zero(spec)
    return Trial(
        target=server.model,
        spec=inputs_hash(asked, key),
        # Nobody is served, so that there is nothing to compare.
        rollout=Rollout() if is_stopped else spec.rollout,
        stable=owned(seen.deployment),
        is_stable_told=is_told,
        canary=canary,
        is_canary_told=canary is not None and canary.applied == applied_hash(deployment(server, 0, CANARY)),
        known=draft.before.canary,
        returned=draft.before.returned,
        sides=counted(one.document for one in seen.gateway_pods if one.trial == key and one.document is not None),
        now=situation.now,
    )


def _remember(draft: ServeDraft, step: Step) -> None:
    """Takes what is to be remembered into the status, and tells of what has begun."""
    before, report = draft.before.canary, step.report
    if report is not None and before is not None and not _is_news(before, report):
        report = before
    draft.state(canary=report, returned=step.returned)
    if step.stage is Stage.ASKED and (before is None or report is None or before.inputs != report.inputs):
        message = f"The canary of {step.report.model if step.report else ''} answers and gets {step.share} percent."
        draft.remarks.append(Notice("Normal", str(Reason.CANARY_RUNNING), message))


def _is_news(before: CanaryReport, report: CanaryReport) -> bool:
    same = (before.inputs, before.percent, before.errors) == (report.inputs, report.percent, report.errors)
    grown = report.requests - before.requests
    return not same or not 0 <= grown <= _WORTH_WRITING * before.requests


def _stable(
    situation: Situation, draft: ServeDraft, server: Server, number: Size, step: Step, *, is_told: bool
) -> None:
    """The Deployment of the model that serves. What is new to it shows with one replica at least that it works."""
    own = owned(situation.seen.deployment)
    if not step.moves_stable:
        keep_size(situation, draft, number)
    elif not is_told or own is None:
        fewest = 1 if scales_to_zero(situation.spec) and number.is_ours else 0
        draft.children.append(Apply(DEPLOYMENT, deployment(server, max(number.replicas, fewest))))
    elif number.is_ours and own.wanted != number.replicas:
        draft.children.append(Apply(DEPLOYMENT, deployment(server, number.replicas)))


def _canary(situation: Situation, draft: ServeDraft, server: Server, number: Size) -> None:
    """The Deployment of the new model, in as many replicas as its share of the requests needs."""
    known = owned(situation.seen.canary)
    if known is not None and known.terminating:
        draft.look_again_in(LEFTOVER_S)
        return
    share = situation.spec.rollout.canary_percent or 100
    wanted = max(1, math.ceil(number.replicas * share / 100))
    body = deployment(server, wanted, CANARY)
    if known is None or known.applied != applied_hash(body) or known.wanted != wanted:
        draft.children.append(Apply(DEPLOYMENT, body))
