"""The steps of an alignment as stages of the status: what each is at, with its newest metrics."""

from collections.abc import Mapping
from datetime import datetime

from alidade_crds.alignmentrun import StageStatus
from alidade_crds.contract import ProgressDocument
from alidade_crds.reasons import ConditionType
from alidade_crds.status import JobStatus
from alidade_operator.reconcile import progress
from alidade_operator.reconcile.alignmentjob import KIND, step_names
from alidade_operator.reconcile.run import AlignmentRun


def _names(run: AlignmentRun) -> list[str]:
    assert run.spec is not None, "an unreadable spec does not get here"
    return step_names(run.spec)


def pending(run: AlignmentRun) -> list[StageStatus]:
    """Steps of which nothing has begun."""
    return [StageStatus(name=name, kind=KIND, phase="Waiting") for name in _names(run)]


def reused(run: AlignmentRun, inputs: str, other: str, stage: StageStatus) -> list[StageStatus]:
    """Steps whose result another run has come to before."""
    names = _names(run)
    return [
        StageStatus(
            name=name,
            kind=KIND,
            ref=other,
            phase="Succeeded",
            reused=True,
            inputs=inputs,
            model=stage.model if name == names[-1] else None,
            finished_at=stage.finished_at,
            metrics=stage.metrics if name == names[-1] else {},
        )
        for name in names
    ]


def followed(run: AlignmentRun, inputs: str, status: JobStatus, document: ProgressDocument | None) -> list[StageStatus]:
    """Steps as the job tells of them; status: the job's, in which what was read of the document may be newer."""
    names = _names(run)
    present = _present(names, status)
    return [_followed(run, name, index, present, inputs, status, document) for index, name in enumerate(names)]


def _present(names: list[str], status: JobStatus) -> int:
    """The place of the step that the job is at."""
    step = status.progress.align_step if status.progress is not None else None
    return names.index(step) if step in names else 0


def _followed(
    run: AlignmentRun,
    name: str,
    index: int,
    present: int,
    inputs: str,
    status: JobStatus,
    document: ProgressDocument | None,
) -> StageStatus:
    known = run.status.stage_named(name)
    if known is None or known.inputs != inputs:
        known = StageStatus(name=name, kind=KIND, phase="Waiting", inputs=inputs)
    is_first, is_present = index == 0, index == present
    metrics = known.metrics
    if document is not None and status.progress is not None and document.align_step == name:
        metrics = metrics | progress.rounded(document.metrics)
    is_over = status.model is not None
    if is_over and index <= present:
        metrics = metrics | _final(progress.rounded(status.metrics), name, is_last=is_present)
    # The time and the GPUs of a job are told by its first step: its pods hold them for all.
    return known.model_copy(
        update={
            "ref": status.job_ref.name if status.job_ref is not None else None,
            "phase": _phase(index, present, status),
            "model": status.model if is_present else None,
            "started_at": _started(known, status, is_first=is_first, has_begun=index <= present),
            "finished_at": status.finished_at if is_over and is_present else known.finished_at,
            "active_seconds": status.active_seconds if is_over and is_present else None,
            "gpu_hours": status.gpu_hours if is_first else None,
            "cost": status.cost if is_first else None,
            "metrics": metrics,
        }
    )


def _final(metrics: Mapping[str, float], name: str, *, is_last: bool) -> dict[str, float]:
    """A step's metrics among the job's: those of the last step have no prefix; settings of the trainer are left out."""
    prefix = f"{name}."
    own = {key.removeprefix(prefix): value for key, value in metrics.items() if key.startswith(prefix)}
    if is_last:
        own |= {key: value for key, value in metrics.items() if _is_of_a_step(key)}
    return own


_OF_THE_JOB = frozenset({"tokens", "iterations"})


def _is_of_a_step(metric: str) -> bool:
    return not set(metric) & set("._") and not metric.endswith("AtStart") and metric not in _OF_THE_JOB


def _started(known: StageStatus, status: JobStatus, *, is_first: bool, has_begun: bool) -> datetime | None:
    if is_first:
        return status.started_at
    read_at = status.progress.updated_at if status.progress is not None and has_begun else None
    return known.started_at or read_at


def _phase(index: int, present: int, status: JobStatus) -> str:
    """A step before the present one is done, one after it waits, or is left out when a guard rail has ended the job."""
    ended = {str(item.type) for item in status.conditions if item.status == "True"}
    if index < present:
        return "Succeeded"
    if index == present:
        return status.phase or "Waiting"
    return "Skipped" if ended & {str(ConditionType.SUCCEEDED), str(ConditionType.FAILED)} else "Waiting"
