"""What differs between resources that are one job each: how they are checked, told, launched, and what comes out."""

from dataclasses import dataclass
from typing import Any, Protocol

from alidade_crds.contract import JobDocument, JobModel, Owner, ResultDocument
from alidade_crds.jobs import JobBlocks, TrainingJobSpec
from alidade_crds.status import Progress
from alidade_crds.text_dataset import TextDataset
from alidade_operator.api import EVALUATION, MODEL_SERVE, JsonObject, Kind
from alidade_operator.config import NodePool, OperatorConfig
from alidade_operator.jobspecs import particulars
from alidade_operator.reconcile import acceptance, evaluating, progress, quantizing
from alidade_operator.reconcile.backends import TRAINING_KINDS, backend_of
from alidade_operator.reconcile.draft import Draft
from alidade_operator.reconcile.fit import Verdict, fit_verdict
from alidade_operator.reconcile.launching import Launch, default_output
from alidade_operator.reconcile.plan import TrainingJob
from alidade_operator.resources.attempt import Attempt
from alidade_operator.resources.jobdocument import Document, document_mounts, document_name
from alidade_operator.resources.observation import Observed


class Craft(Protocol):
    """One sort of job."""

    @property
    def workloads(self) -> tuple[Kind, ...]:
        """What attempts may be in the cluster."""

    @property
    def component(self) -> str:
        """What its objects are labelled as."""

    @property
    def saves_memory(self) -> str:
        """The setting that takes less memory."""

    @property
    def image_setting(self) -> str:
        """The operator's setting of its image."""

    @property
    def warning(self) -> str:
        """Reason of the events that its warnings become."""

    def refusal(
        self, job: TrainingJob, spec: JobBlocks, observed: Observed, config: OperatorConfig
    ) -> acceptance.Refusal | None:
        """The first objection to launching, or None."""

    def verdict(self, spec: JobBlocks, observed: Observed, pool: NodePool) -> Verdict:
        """Whether it fits into memory."""

    def document(self, launch: Launch) -> Document:
        """What the job is told."""

    def workload(self, launch: Launch) -> Kind:
        """What the next attempt is."""

    def runtime(self, launch: Launch, attempt: Attempt, document: Document) -> JsonObject | None:
        """The TrainingRuntime that has to be there before it; None for nothing."""

    def body(self, launch: Launch, attempt: Attempt, document: Document) -> JsonObject:
        """The workload of an attempt."""

    def has_result(self, result: ResultDocument) -> bool:
        """Whether a successful end has brought what the job is for."""

    def take(self, draft: Draft, result: ResultDocument, spec: JobBlocks | None) -> str:
        """States what has come out; answers the sentence that says so. spec: None where it cannot be read any more."""

    def shown(self, progress: Progress) -> dict[str, Any]:
        """Fields of the status that say how far it is, beside the progress itself."""


@dataclass(frozen=True)
class Training:
    """A training job, which makes a model."""

    workloads: tuple[Kind, ...] = TRAINING_KINDS
    component: str = "trainer"
    saves_memory: str = "lower spec.training.microBatchSize"
    image_setting: str = "trainerImage"
    warning: str = "TrainingWarning"

    def refusal(
        self, job: TrainingJob, spec: JobBlocks, observed: Observed, config: OperatorConfig
    ) -> acceptance.Refusal | None:
        """As `Craft.refusal`."""
        return acceptance.refusal(acceptance.Candidate(job, _training(spec), observed, config))

    def verdict(self, spec: JobBlocks, observed: Observed, pool: NodePool) -> Verdict:
        """As `Craft.verdict`."""
        return fit_verdict(_training(spec), source=observed.source, pool=pool)

    def document(self, launch: Launch) -> JobDocument:
        """As `Craft.document`."""
        job, spec = launch.job, _training(launch.spec)
        uri, digest = acceptance.model_of(spec.model, launch.observed.source)
        training = spec.training
        if launch.micro_batch_size is not None:
            training = training.model_copy(update={"micro_batch_size": launch.micro_batch_size})
        return JobDocument(
            owner=Owner(kind=job.kind.kind, namespace=job.namespace, name=job.name, uid=job.uid),
            model=JobModel(
                uri=uri, digest=digest, init=spec.model.init, trust_remote_code=spec.model.trust_remote_code
            ),
            dataset=TextDataset.of(spec.dataset),
            adapter=spec.adapter,
            training=training,
            deepspeed=spec.deepspeed,
            checkpoint=spec.checkpoint,
            tracking=spec.tracking,
            publish=spec.publish,
            output=spec.output.uri if spec.output is not None else default_output(job, launch.config),
            peak_tflops=launch.pool.peak_tflops if spec.compute.gpus_per_worker else None,
            **particulars(spec),
        )

    def workload(self, launch: Launch) -> Kind:
        """As `Craft.workload`."""
        return backend_of(launch.spec.compute, launch.config).kind

    def runtime(self, launch: Launch, attempt: Attempt, document: Document) -> JsonObject | None:
        """As `Craft.runtime`."""
        return backend_of(launch.spec.compute, launch.config).runtime(attempt, **_pods(launch, document))

    def body(self, launch: Launch, attempt: Attempt, document: Document) -> JsonObject:
        """As `Craft.body`."""
        return backend_of(launch.spec.compute, launch.config).body(attempt, **_pods(launch, document))

    def has_result(self, result: ResultDocument) -> bool:
        """As `Craft.has_result`."""
        return result.model is not None

    def take(self, draft: Draft, result: ResultDocument, spec: JobBlocks | None) -> str:  # noqa: ARG002
        """As `Craft.take`."""
        assert result.model is not None, "asked before by has_result"
        draft.state(model=result.model, metrics=progress.readable(result.metrics), published=result.published)
        message = f"The model is at {result.model.uri} ({result.model.digest})."
        if result.published is not None:
            message += f" {result.published.sentence()}"
        return f"{result.stopped.message} {message}" if result.stopped is not None else message

    def shown(self, progress: Progress) -> dict[str, Any]:  # noqa: ARG002
        """As `Craft.shown`."""
        return {}


def _pods(launch: Launch, document: Document) -> dict[str, Any]:
    """What decides how the pods of a launch are."""
    return {
        "compute": launch.spec.compute,
        "mounts": document_mounts(document, document_name(launch.job.base), launch.config),
        "pool": launch.pool,
        "config": launch.config,
    }


def _training(spec: JobBlocks) -> TrainingJobSpec:
    assert isinstance(spec, TrainingJobSpec), "the kind tells the spec's type"
    return spec


TRAINING: Craft = Training()
EVALUATING: Craft = evaluating.Evaluating()
QUANTIZING: Craft = quantizing.Quantizing()
_CRAFTS = {EVALUATION: EVALUATING, MODEL_SERVE: QUANTIZING}


def craft_of(job: TrainingJob) -> Craft:
    """The sort of job that a resource is."""
    return _CRAFTS.get(job.kind, TRAINING)


def workloads_of(kind: Kind) -> tuple[Kind, ...]:
    """What attempts of a kind's resource may be in the cluster."""
    return _CRAFTS.get(kind, TRAINING).workloads
