"""Fewer workers: with how many an attempt goes on where there is no room for all of them (spec.elastic)."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from alidade_crds.jobs import JobBlocks, TrainingJobSpec
from alidade_crds.status import JobStatus
from alidade_operator.resources.observation import PodView, TrainingJobView


def with_present_workers(spec: JobBlocks, status: JobStatus) -> JobBlocks:
    """The spec with the workers of the present attempt, where they are fewer than it says."""
    fewer = status.workers
    elastic = spec.elastic if isinstance(spec, TrainingJobSpec) else None
    if elastic is None or fewer is None or not elastic.min_workers <= fewer < spec.compute.workers:
        return spec
    return spec.model_copy(update={"compute": spec.compute.model_copy(update={"workers": fewer})})


def fewer_workers(spec: JobBlocks, pods: Sequence[PodView], *, workers: int) -> int | None:
    """With how many workers an attempt of so many could go on now; None where all have nodes, or too few have."""
    elastic = spec.elastic if isinstance(spec, TrainingJobSpec) else None
    if elastic is None or not any(pod.node is None and not pod.ended for pod in pods):
        return None
    placed = sum(pod.ready_to_report for pod in pods)
    counts = range(min(placed, workers - 1), elastic.min_workers - 1, -1)
    return next((count for count in counts if spec.compute.workers % count == 0), None)


def patience_ends(spec: JobBlocks, attempt: TrainingJobView) -> datetime | None:
    """When an attempt has waited long enough for nodes."""
    began = attempt.active_since or attempt.created_at
    if not isinstance(spec, TrainingJobSpec) or spec.elastic is None or began is None:
        return None
    return began + timedelta(seconds=spec.elastic.patience_seconds)
