"""The model that a ModelServe is to serve: quantized if asked, and within its bounds."""

from typing import Literal

from alidade_crds.modelserve import ModelServeSpec, QuantizationJobStatus, QuantizationReport
from alidade_crds.reasons import ConditionType, Reason
from alidade_crds.status import Condition
from alidade_operator.api import JOB
from alidade_operator.reconcile.acceptance import Refusal
from alidade_operator.reconcile.plan import Delete, TrainingJob
from alidade_operator.reconcile.serve import model_address, quantization_job, quantized_model
from alidade_operator.reconcile.servedraft import Held, ServeDraft, Situation, still
from alidade_operator.reconcile.trainingjob import plan_training_job
from alidade_operator.resources.engines.server import ServedModel


def prepared(situation: Situation, draft: ServeDraft) -> ServedModel | Refusal | Held:
    """The model once it is there and within bounds; what stands against its job; or what it waits for."""
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
    draft.look_again_in(plan.look_again_s)
    return status


def _quantizing(situation: Situation, draft: ServeDraft, status: QuantizationJobStatus) -> Held | Refusal:
    known = {one.type: one for one in status.conditions}
    accepted, fits = known[ConditionType.ACCEPTED], known[ConditionType.FITS]
    if accepted.status == "False":
        return Refusal(_reason(accepted), accepted.message)
    told = known[ConditionType.LAUNCHED]
    is_stuck = fits.status == "False"
    if is_stuck:
        told = fits
    draft.state(quantization=None)
    draft.conditions.set(ConditionType.QUANTIZED, "False", told.reason, told.message)
    draft.has_not_failed()
    progressing: Literal["True", "False"] = "False" if is_stuck else "True"
    message = f"The model is being quantized.{still(situation.seen)}" if not is_stuck else told.message
    draft.conditions.set(ConditionType.PROGRESSING, progressing, told.reason, message)
    return Held("Waiting" if is_stuck else "Quantizing", "quantize", told.message)


def _reason(condition: Condition) -> Reason:
    return next(reason for reason in Reason if reason == condition.reason)


def _fail(situation: Situation, draft: ServeDraft, reason: Reason, message: str) -> Held:
    """States that the model cannot be served; what is served stays."""
    whole = message + still(situation.seen)
    draft.conditions.set(ConditionType.QUANTIZED, "False", reason, message)
    draft.fail(reason, whole)
    return Held("Failed", "fail", f"{reason}: {whole}")


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
