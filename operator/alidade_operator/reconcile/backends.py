"""What runs a training job: the kinds of the cluster that it may be, behind one interface."""

from collections.abc import Mapping
from typing import Any, Protocol

from alidade_crds.blocks import Compute
from alidade_operator.api import PYTORCH_JOB, TRAIN_JOB, JsonObject, Kind
from alidade_operator.config import NodePool, OperatorConfig
from alidade_operator.resources import pytorchjob, trainjob
from alidade_operator.resources.attempt import Attempt
from alidade_operator.resources.observation import TrainingJobView
from alidade_operator.resources.trainingpod import Mounts


class Backend(Protocol):
    """How an attempt at a training job is written down, and read."""

    @property
    def kind(self) -> Kind:
        """What an attempt is in the cluster."""

    @property
    def needs(self) -> str:
        """What is to be installed where the cluster does not know the kind."""

    def longest_name(self, *, workers: int) -> int:
        """Most characters that the part of the names before the attempt may have."""

    def runtime(
        self, attempt: Attempt, *, compute: Compute, mounts: Mounts, pool: NodePool, config: OperatorConfig
    ) -> JsonObject | None:
        """What has to be there before the attempt; None for nothing."""

    def body(
        self, attempt: Attempt, *, compute: Compute, mounts: Mounts, pool: NodePool, config: OperatorConfig
    ) -> JsonObject:
        """The attempt, held back when it is for a queue."""

    def view(self, body: Mapping[str, Any], *, owner_uid: str) -> TrainingJobView | None:
        """An attempt as it is in the cluster, or None for what is none."""


class PyTorchJobs:
    """PyTorchJobs, for the training operator."""

    kind = PYTORCH_JOB
    needs = "the Kubeflow training operator 1.9"
    longest_name = staticmethod(pytorchjob.longest_name)
    body = staticmethod(pytorchjob.pytorch_job)
    view = staticmethod(pytorchjob.pytorch_job_view)

    def runtime(self, attempt: Attempt, **_: Any) -> None:
        """Nothing: a PyTorchJob holds its pods itself."""
        del attempt


class TrainJobs:
    """TrainJobs, for Trainer, each resource's with a TrainingRuntime of their own."""

    kind = TRAIN_JOB
    needs = "Kubeflow Trainer 2"
    longest_name = staticmethod(trainjob.longest_name)
    runtime = staticmethod(trainjob.training_runtime)
    view = staticmethod(trainjob.train_job_view)

    def body(self, attempt: Attempt, *, compute: Compute, **_: Any) -> JsonObject:
        """As `Backend.body`; all else is the runtime's."""
        return trainjob.train_job(attempt, compute=compute)


_ALL: tuple[Backend, ...] = (PyTorchJobs(), TrainJobs())
BACKENDS: Mapping[str, Backend] = {backend.kind.kind: backend for backend in _ALL}
"""By the kind's name."""
TRAINING_KINDS = tuple(backend.kind for backend in _ALL)


def backend_of(compute: Compute, config: OperatorConfig) -> Backend:
    """What runs training jobs where a spec wants them."""
    return BACKENDS[config.training_backend_of(compute.node_pool)]


def unused_kinds(config: OperatorConfig) -> tuple[Kind, ...]:
    """Kinds that no training job is by the configuration, though some may be left of another one."""
    return tuple(kind for kind in TRAINING_KINDS if kind.kind not in config.training_backends)
