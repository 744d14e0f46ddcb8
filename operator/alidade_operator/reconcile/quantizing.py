"""A ModelServe's quantization as a job: what it is told, the Job that it is, and what comes out."""

from dataclasses import dataclass
from typing import Any

from alidade_crds.contract import JobModel, Owner, QuantizationDocument, ResultDocument
from alidade_crds.jobs import JobBlocks
from alidade_crds.reasons import Reason
from alidade_crds.status import Progress
from alidade_operator.api import JOB, JsonObject, Kind
from alidade_operator.config import NodePool, OperatorConfig
from alidade_operator.fits import FIXED_CPU_BYTES, GIB
from alidade_operator.jobspecs import QuantizationJobSpec
from alidade_operator.reconcile import acceptance
from alidade_operator.reconcile.acceptance import Refusal
from alidade_operator.reconcile.draft import Draft
from alidade_operator.reconcile.fit import Verdict, parse_quantity
from alidade_operator.reconcile.launching import Launch
from alidade_operator.reconcile.plan import TrainingJob
from alidade_operator.resources.attempt import Attempt
from alidade_operator.resources.batchjob import batch_job, longest_name
from alidade_operator.resources.jobdocument import Document, document_mounts, document_name
from alidade_operator.resources.observation import QUANTIZATION_CONTAINER, Observed
from alidade_operator.resources.trainingpod import Program

# For CPUs perplexity is measured in fp32; one weight at a time is decoded beside the model. For GPUs the model is held
# in 16 bit, and one layer at a time is moved to a GPU.
_CPU_BYTES_PER_WEIGHT, _GPU_BYTES_PER_WEIGHT = 4, 2
_BESIDE = 1.2


@dataclass(frozen=True)
class Quantizing:
    """A quantization: a Job of one pod of the trainer's image."""

    workloads: tuple[Kind, ...] = (JOB,)
    component: str = "quantization"
    saves_memory: str = "name a smaller model"
    image_setting: str = "trainerImage, quantizationImage"
    warning: str = "QuantizationWarning"

    def refusal(self, job: TrainingJob, spec: JobBlocks, observed: Observed, config: OperatorConfig) -> Refusal | None:
        """As `Craft.refusal`."""
        return (
            acceptance.name_refusal(job, longest_name(workers=1), workers=1)
            or _workspace(job, observed, config)
            or acceptance.uris_refusal(spec, "spec", job.namespace, observed, config)
        )

    def verdict(self, spec: JobBlocks, observed: Observed, pool: NodePool) -> Verdict:  # noqa: ARG002
        """As `Craft.verdict`."""
        weights, memory = _quantization(spec).weights, spec.compute.memory or pool.memory
        if weights is None:
            return Verdict("Unknown", Reason.SIZE_UNKNOWN, "The size of the model is not known before it is loaded.")
        in_files = _quantization(spec).type is None
        each = _GPU_BYTES_PER_WEIGHT if in_files else _CPU_BYTES_PER_WEIGHT
        needed = weights * each * _BESIDE + FIXED_CPU_BYTES
        told = f"{'Quantizing the model in 16 bit' if in_files else 'Measuring the model in fp32'} needs about "
        told += f"{needed / GIB:.1f} GiB"
        if memory is None:
            return Verdict("Unknown", Reason.SIZE_UNKNOWN, f"{told}, and no memory limit is set.")
        has = parse_quantity(memory)
        if needed > has:
            advice = f"Set spec.compute.memory to at least {needed / GIB + 1:.0f}Gi."
            return Verdict("False", Reason.EXCEEDS_MEMORY, f"{told}; the pod has {has / GIB:.1f} GiB. {advice}")
        return Verdict("True", Reason.WITHIN_MEMORY, f"{told}; the pod has {has / GIB:.1f} GiB.")

    def document(self, launch: Launch) -> QuantizationDocument:
        """As `Craft.document`."""
        job, spec = launch.job, _quantization(launch.spec)
        assert spec.output is not None, "a quantization is told its place"
        return QuantizationDocument(
            owner=Owner(kind=job.kind.kind, namespace=job.namespace, name=job.name, uid=job.uid),
            model=JobModel(uri=spec.model.uri, digest=spec.digest),
            method=spec.method,
            type=spec.type,
            texts=spec.texts,
            samples=spec.samples,
            output=spec.output.uri,
        )

    def workload(self, launch: Launch) -> Kind:  # noqa: ARG002
        """As `Craft.workload`."""
        return JOB

    def runtime(self, launch: Launch, attempt: Attempt, document: Document) -> None:
        """As `Craft.runtime`."""

    def body(self, launch: Launch, attempt: Attempt, document: Document) -> JsonObject:
        """As `Craft.body`."""
        config = launch.config
        image = config.trainer_image if _quantization(launch.spec).type is not None else config.quantization_image
        program = Program(QUANTIZATION_CONTAINER, ("alidade-trainer", "quantize"), image)
        return batch_job(
            attempt,
            program,
            component=self.component,
            compute=launch.spec.compute,
            mounts=document_mounts(document, document_name(launch.job.base), launch.config),
            pool=launch.pool,
            config=launch.config,
        )

    def has_result(self, result: ResultDocument) -> bool:
        """As `Craft.has_result`."""
        return result.quantization is not None

    def take(self, draft: Draft, result: ResultDocument, spec: JobBlocks | None) -> str:  # noqa: ARG002
        """As `Craft.take`."""
        report = result.quantization
        assert report is not None, "asked before by has_result"
        draft.state(quantization=report)
        return f"The quantized model is at {report.uri}."

    def shown(self, progress: Progress) -> dict[str, Any]:  # noqa: ARG002
        """As `Craft.shown`."""
        return {}


def _quantization(spec: JobBlocks) -> QuantizationJobSpec:
    assert isinstance(spec, QuantizationJobSpec), "the kind tells the spec's type"
    return spec


def _workspace(job: TrainingJob, observed: Observed, config: OperatorConfig) -> Refusal | None:
    if config.workspace_claim in observed.claims:
        return None
    return Refusal(
        Reason.WORKSPACE_MISSING,
        f"Namespace {job.namespace} has no claim {config.workspace_claim}, where quantized models go. Create the "
        "PersistentVolumeClaim.",
    )
