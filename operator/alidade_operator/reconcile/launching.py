"""A launch: a job that may be started, and as what."""

from dataclasses import dataclass

from alidade_crds.jobs import JobBlocks
from alidade_operator.config import NodePool, OperatorConfig
from alidade_operator.reconcile.plan import TrainingJob
from alidade_operator.resources.observation import Observed


@dataclass(frozen=True)
class Launch:
    """A job that may be launched, and as what."""

    job: TrainingJob
    spec: JobBlocks
    observed: Observed
    config: OperatorConfig
    pool: NodePool
    attempt: int
    micro_batch_size: int | None


def default_output(job: TrainingJob, config: OperatorConfig) -> str:
    """The folder of the workspace volume that is this resource's own; a new one of the same name gets another."""
    return f"pvc://{config.workspace_claim}/{job.kind.plural}/{job.name}-{job.uid[:8]}"
