"""Alidade's resources from Python.

from alidade import Client, FineTuneJobSpec

client = Client(namespace="team-a")
job = client.fine_tune_jobs.apply("sums", {"model": {...}, "dataset": {"uri": "pvc://data/train.json"}})
job = client.fine_tune_jobs.wait("sums", timeout_s=3600)
print(job.status.model.uri)
"""

from alidade.client import Client
from alidade.errors import (
    AlidadeError,
    NotFoundError,
    RefusedError,
    ResourceFailedError,
    UnreachableError,
    WaitTimeoutError,
)
from alidade.resources import Change, Resource, Resources
from alidade_crds.alignmentrun import AlignmentRunSpec, AlignmentRunStatus
from alidade_crds.evaluation import EvaluationSpec, EvaluationStatus
from alidade_crds.jobs import FineTuneJobSpec, FineTuneJobStatus, RewardModelSpec, RewardModelStatus
from alidade_crds.modelserve import ModelServeSpec, ModelServeStatus

__all__ = [
    "AlidadeError",
    "AlignmentRunSpec",
    "AlignmentRunStatus",
    "Change",
    "Client",
    "EvaluationSpec",
    "EvaluationStatus",
    "FineTuneJobSpec",
    "FineTuneJobStatus",
    "ModelServeSpec",
    "ModelServeStatus",
    "NotFoundError",
    "RefusedError",
    "Resource",
    "ResourceFailedError",
    "Resources",
    "RewardModelSpec",
    "RewardModelStatus",
    "UnreachableError",
    "WaitTimeoutError",
]
