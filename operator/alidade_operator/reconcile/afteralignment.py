"""What follows an alignment: the evaluation, the gate, serving; each only when the run asks for it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from alidade_crds.alignmentrun import StageStatus
from alidade_crds.blocks import Model
from alidade_crds.evaluation import EvaluatedModel, EvaluationResult, EvaluationSpec, Suite
from alidade_crds.reasons import ConditionType, Reason
from alidade_crds.status import ModelInfo
from alidade_operator.api import EVALUATION, MODEL_SERVE, JsonObject
from alidade_operator.config import OperatorConfig
from alidade_operator.reconcile import gate
from alidade_operator.reconcile.evaluationstage import leak_check_of, needs_reward
from alidade_operator.reconcile.gate import ALIGNED_MODEL, START_MODEL
from alidade_operator.reconcile.plan import Apply, Create, Delete, Plan
from alidade_operator.reconcile.run import (
    AlignmentRun,
    ResultView,
    RunObserved,
    child_name,
    inputs_hash,
    model_identity,
)
from alidade_operator.reconcile.runchildren import run_child, stage_output
from alidade_operator.reconcile.rundraft import RunDraft, end_failed
from alidade_operator.reconcile.stages import Stages, named_model, start_model

# Our own deletions come back as no event.
_AT_ONCE_S = 0.05

EVALUATION_STAGE, GATE_STAGE, SERVE_STAGE = "evaluation", "gate", "serve"


def plan_after_alignment(
    run: AlignmentRun, seen: RunObserved, config: OperatorConfig, draft: RunDraft, stages: Stages, model: ModelInfo
) -> Plan:
    """The plan for a run whose aligned model is there."""
    assert run.spec is not None, "an unreadable spec does not get here"
    draft.state(model=model)
    results: tuple[EvaluationResult, ...] = ()
    if run.spec.evaluation is None:
        draft.deletions += live_evaluations(seen)
        draft.conditions.set(ConditionType.EVALUATED, "True", Reason.NOT_ASKED_FOR, "The run has no evaluation.")
    else:
        made = _evaluation(run, seen, config, stages, model)
        evaluation = _evaluate(run, seen, draft, made)
        if isinstance(evaluation, Plan):
            return evaluation
        results = evaluation.results
    stopped = _pass_gate(run, results, draft)
    if stopped is not None:
        return stopped
    if run.spec.serve is None:
        draft.conditions.set(ConditionType.SERVED, "True", Reason.NOT_ASKED_FOR, "The run serves nothing.")
    else:
        unfinished = _serve(run, seen, draft, model)
        if unfinished is not None:
            return unfinished
    return _succeed(draft, model)


def _succeed(draft: RunDraft, model: ModelInfo) -> Plan:
    draft.state(finished_at=draft.now)
    message = f"The aligned model is at {model.uri} ({model.digest})."
    draft.conditions.set(ConditionType.SUCCEEDED, "True", Reason.COMPLETED, message)
    return draft.finish("Succeeded", "succeed", message)


def live_evaluations(seen: RunObserved, *, but: str = "") -> list[Delete]:
    """Deletions of Evaluations that nobody waits for any more, all but the one of a name."""
    return [
        Delete(EVALUATION, view.name, view.uid)
        for view in seen.evaluations
        if view.owned and not view.has_ended and not view.terminating and view.name != but
    ]


def _evaluation(
    run: AlignmentRun, seen: RunObserved, config: OperatorConfig, stages: Stages, model: ModelInfo
) -> JsonObject:
    """The Evaluation of the run: its start model and its aligned model, on the suites of the template."""
    assert run.spec is not None, "an unreadable spec does not get here"
    assert run.spec.evaluation is not None, "only called for a run that has one"
    template = run.spec.evaluation.template
    models = [
        EvaluatedModel(name=START_MODEL, model=start_model(run, seen, stages.sft)),
        EvaluatedModel(name=ALIGNED_MODEL, model=Model(uri=model.uri)),
        *template.models,
    ]
    reward = _first_reward(run, seen, stages)
    fields = {name: getattr(template, name) for name in type(template).model_fields if name != "models"}
    fields["suites"] = [_with_reward(suite, reward) for suite in template.suites]
    fields["leak_check"] = leak_check_of(run.spec)
    fields["suspend"] = run.spec.suspend
    whole = EvaluationSpec(models=models, **fields)
    chosen, spec = whole.chosen(), whole.to_dict()
    inputs = inputs_hash({name: chosen[name] for name in chosen if name != "models"}, model_identity(model), [
        one.chosen() for one in template.models
    ])  # fmt: skip
    if "output" not in spec:
        spec["output"] = {"uri": stage_output(run, config, f"{EVALUATION_STAGE}-{inputs}")}
    name = child_name(run.name, "eval", inputs)
    return run_child(run, EVALUATION, name, EVALUATION_STAGE, spec, inputs=inputs)


def _first_reward(run: AlignmentRun, seen: RunObserved, stages: Stages) -> dict[str, Any]:
    """The first of the run's rewards, as fields of a suite."""
    assert run.spec is not None, "an unreadable spec does not get here"
    first = next((one for one in run.spec.reward_models if one.entry_point is None), None)
    if first is None:
        return {}
    if first.function is not None:
        return {"function": first.function, "pattern": first.pattern}
    return {"reward_model": named_model(seen, stages.rewards[first.name]) or first.model}


def _with_reward(suite: Suite, reward: dict[str, Any]) -> Suite:
    return suite.model_copy(update=reward) if needs_reward(suite) else suite


def _evaluate(run: AlignmentRun, seen: RunObserved, draft: RunDraft, made: JsonObject) -> Plan | ResultView:
    """The Evaluation once its results are there, till then the plan of the run that waits for it."""
    name = made["metadata"]["name"]
    draft.deletions += live_evaluations(seen, but=name)
    view = next((one for one in seen.evaluations if one.name == name), None)
    if view is None:
        return _begin_evaluation(run, draft, made)
    is_outdated = not view.owned or view.terminating or (view.has("Failed") and view.run_generation < run.generation)
    if is_outdated:
        return _remake(draft, view)
    _follow_suspension(run, draft, view, made)
    if view.has("Failed"):
        draft.add_stage(_entry(EVALUATION_STAGE, "Evaluation", name, "Failed"))
        message = f"Evaluation {name} has failed: {view.conditions['Failed'][1]}"
        draft.conditions.set(ConditionType.EVALUATED, "False", Reason.STAGE_FAILED, message)
        return end_failed(draft, Reason.STAGE_FAILED, message)
    if not view.has("Succeeded"):
        draft.add_stage(_entry(EVALUATION_STAGE, "Evaluation", name, "Running", metrics=view.done))
        message = f"Evaluation {name} has no results yet.{_stuck(view)}"
        draft.conditions.set(ConditionType.EVALUATED, "False", Reason.STAGE_RUNNING, message)
        return draft.finish("Suspended" if run.spec is not None and run.spec.suspend else "Running", "wait", message)
    metrics = {
        f"{one.suite}_{one.metric}": one.value for one in view.results if one.model == ALIGNED_MODEL
    }  # the first 64: the Evaluation has them all
    shown = dict(list(metrics.items())[:64])
    draft.add_stage(_entry(EVALUATION_STAGE, "Evaluation", name, "Succeeded", metrics=shown))
    draft.conditions.set(ConditionType.EVALUATED, "True", Reason.COMPLETED, f"Evaluation {name} has succeeded.")
    return view


def _begin_evaluation(run: AlignmentRun, draft: RunDraft, made: JsonObject) -> Plan:
    name = made["metadata"]["name"]
    if run.spec is not None and run.spec.suspend:
        message = f"Evaluation {name} is not made yet."
        draft.conditions.set(ConditionType.EVALUATED, "False", Reason.SUSPENDED_BY_USER, message)
        return draft.finish("Suspended", "wait", "spec.suspend is true")
    draft.add_stage(_entry(EVALUATION_STAGE, "Evaluation", name, "Starting"))
    draft.children.append(Create(EVALUATION, made))
    message = f"Evaluation {name} was made."
    draft.conditions.set(ConditionType.EVALUATED, "False", Reason.STAGE_RUNNING, message)
    return draft.finish("Running", "evaluate", message)


def _remake(draft: RunDraft, view: ResultView) -> Plan:
    """Waits for an Evaluation to go, so that another one of its name can be made."""
    why = "belongs to something else; waiting for it to go"
    if view.owned:
        why = "has failed before the spec was changed" if view.has("Failed") else "is being deleted"
        why += "; it is made anew"
    if view.owned and not view.terminating:
        draft.deletions.append(Delete(EVALUATION, view.name, view.uid))
        draft.look_again_in(_AT_ONCE_S)
    message = f"Evaluation {view.name} {why}."
    draft.add_stage(_entry(EVALUATION_STAGE, "Evaluation", view.name, "Waiting"))
    draft.conditions.set(ConditionType.EVALUATED, "False", Reason.WAITING, message)
    return draft.finish("Waiting", "wait", message)


def _follow_suspension(run: AlignmentRun, draft: RunDraft, view: ResultView, made: JsonObject) -> None:
    suspended = run.spec is not None and run.spec.suspend
    if bool(view.spec.get("suspend")) != suspended and not view.has("Succeeded") and not view.has("Failed"):
        draft.children.append(Apply(EVALUATION, made))


def serves_its_spec(view: ResultView) -> bool:
    """Whether a ModelServe answers with the newest model it was told, and not with the one before."""
    on_its_way = view.has("Progressing") or view.has("Failed") or view.conditions.get("Accepted", ("",))[0] == "False"
    return view.is_current and view.has("Available") and not on_its_way


def _stuck(view: ResultView) -> str:
    """What keeps a resource from going on, if it says so."""
    status, message = view.conditions.get("Accepted", ("", ""))
    return f" It is not accepted: {message}" if status == "False" else ""


def _entry(
    name: str,
    kind: Literal["Evaluation", "Gate", "ModelServe"],
    ref: str | None,
    phase: str,
    *,
    metrics: Mapping[str, float] | None = None,
) -> StageStatus:
    return StageStatus(name=name, kind=kind, ref=ref, phase=phase, metrics=dict(metrics or {}))


def _pass_gate(run: AlignmentRun, results: Sequence[EvaluationResult], draft: RunDraft) -> Plan | None:
    """Judges the results; None when the run may go on."""
    assert run.spec is not None, "an unreadable spec does not get here"
    if not run.spec.gate:
        draft.conditions.set(ConditionType.GATE_PASSED, "True", Reason.NOT_ASKED_FOR, "The run has no gate.")
        return None
    compared = run.spec.evaluation.template.baseline if run.spec.evaluation is not None else None
    verdict = gate.judge(run.spec.gate, results, baseline=compared or START_MODEL)
    truth: Literal["True", "False"] = "True" if verdict.passed else "False"
    draft.conditions.set(ConditionType.GATE_PASSED, truth, verdict.reason, verdict.message)
    draft.add_stage(_entry(GATE_STAGE, "Gate", None, "Passed" if verdict.passed else "Failed"))
    if verdict.passed:
        return None
    served = " What was served before stays served." if run.spec.serve is not None else ""
    return end_failed(draft, verdict.reason, f"The gate stops the run: {verdict.message}{served}")


def _serve(run: AlignmentRun, seen: RunObserved, draft: RunDraft, model: ModelInfo) -> Plan | None:
    """Gives the aligned model to the run's ModelServe; None once it answers.

    The name is the run's own: a new model takes over from the one before by the ModelServe's own rollout.
    """
    assert run.spec is not None, "an unreadable spec does not get here"
    assert run.spec.serve is not None, "only called for a run that serves"
    template = run.spec.serve.template.to_dict()
    spec = template | {"model": Model(uri=model.uri).to_dict()}
    body, view = run_child(run, MODEL_SERVE, run.name, SERVE_STAGE, spec), seen.serving
    if view is not None and not view.owned:
        draft.add_stage(_entry(SERVE_STAGE, "ModelServe", run.name, "Waiting"))
        message = f"ModelServe {run.name} belongs to something else; delete it, or apply the run under another name."
        draft.conditions.set(ConditionType.SERVED, "False", Reason.WAITING, message)
        return draft.finish("Waiting", "wait", message)
    is_told = view is not None and view.run_generation == run.generation and view.spec.get("model") == spec["model"]
    if not is_told and run.spec.suspend:
        message = f"ModelServe {run.name} is not given the aligned model yet."
        draft.conditions.set(ConditionType.SERVED, "False", Reason.SUSPENDED_BY_USER, message)
        return draft.finish("Suspended", "wait", "spec.suspend is true")
    if not is_told:
        draft.children.append(Apply(MODEL_SERVE, body))
    if view is not None and is_told and serves_its_spec(view):
        draft.add_stage(_entry(SERVE_STAGE, "ModelServe", run.name, "Serving"))
        message = f"ModelServe {run.name} answers with the aligned model."
        draft.conditions.set(ConditionType.SERVED, "True", Reason.COMPLETED, message)
        return None
    if view is not None and is_told and view.is_current and view.has("Failed"):
        draft.add_stage(_entry(SERVE_STAGE, "ModelServe", run.name, "Failed"))
        message = f"ModelServe {run.name} has failed: {view.conditions['Failed'][1]}"
        draft.conditions.set(ConditionType.SERVED, "False", Reason.STAGE_FAILED, message)
        return end_failed(draft, Reason.STAGE_FAILED, message)
    draft.add_stage(_entry(SERVE_STAGE, "ModelServe", run.name, "Starting"))
    message = f"ModelServe {run.name} does not answer with the aligned model yet.{_stuck(view) if view else ''}"
    draft.conditions.set(ConditionType.SERVED, "False", Reason.STAGE_RUNNING, message)
    return draft.finish("Running", "serve", message)
