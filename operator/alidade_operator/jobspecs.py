"""The specs that make a training job, and what differs between them: stage, addresses, particulars of the document."""

from collections.abc import Iterator, Sequence
from typing import Any

from alidade_crds.blocks import Dataset, Model, Tracking
from alidade_crds.contract import JobAlignment, Stage
from alidade_crds.evaluation import EvaluationSpec, Suite
from alidade_crds.jobs import FineTuneJobSpec, JobBlocks, Method, RewardModelSpec, TrainingJobSpec
from alidade_operator.api import EVALUATION, FINE_TUNE_JOB, REWARD_MODEL


class AlignmentJobSpec(TrainingJobSpec):
    """What an AlignmentRun's training job is told: the run's own blocks, and its stages' models by address."""

    alignment: JobAlignment
    judges: list[int] = []
    """Weights of each reward model, as far as they are known; for the memory estimate."""


class QuantizationJobSpec(JobBlocks):
    """What a ModelServe's quantization is told: the model by address, and how."""

    model: Model
    digest: str | None = None
    """Of the model, when the platform made it."""
    weights: int | None = None
    """Number of the model's weights, as far as it is known; for the memory estimate."""
    method: str
    type: str | None = None
    texts: str | None = None
    samples: int = 256


JOB_SPECS: dict[str, type[JobBlocks]] = {
    FINE_TUNE_JOB.kind: FineTuneJobSpec,
    REWARD_MODEL.kind: RewardModelSpec,
    EVALUATION.kind: EvaluationSpec,
}
"""The kinds that are one job each."""

_METHODS = {Method.PRETRAIN: Stage.PRETRAIN, Method.SFT: Stage.SFT}


def particulars(spec: TrainingJobSpec) -> dict[str, Any]:
    """The fields of the job document that only one kind of job has, and its stage."""
    if isinstance(spec, FineTuneJobSpec):
        return {
            "stage": _METHODS[spec.method],
            "vocabulary": spec.vocabulary,
            "context": spec.context,
            "ghost_attention": spec.ghost_attention,
        }
    if isinstance(spec, RewardModelSpec):
        return {"stage": Stage.REWARD, "loss": spec.loss}
    assert isinstance(spec, AlignmentJobSpec), "there is no fourth kind"
    return {"stage": Stage.ALIGN, "alignment": spec.alignment}


def addresses(spec: JobBlocks, field: str = "spec") -> Iterator[tuple[str, str]]:
    """Every address of a job's spec, with the field that holds it; field: where the spec itself stands."""
    if spec.output is not None:
        yield f"{field}.output.uri", spec.output.uri
    if isinstance(spec, EvaluationSpec):
        yield from _evaluated_uris(spec, field)
        return
    if isinstance(spec, QuantizationJobSpec):
        assert spec.model.address is not None, "a quantization is told its model's address"
        yield f"{field}.model.uri", spec.model.address
        if spec.texts is not None:
            yield f"{field}.quantization.calibration.uri", spec.texts
        return
    assert isinstance(spec, TrainingJobSpec), "there is no fourth sort of job"
    if isinstance(spec, AlignmentJobSpec):
        if spec.model.address is not None:
            yield f"{field}.sft.model.uri", spec.model.address
        yield from dataset_uris(spec.dataset, f"{field}.prompts")
        yield from _alignment_uris(spec.alignment, field)
        return
    if spec.model.address is not None:
        yield f"{field}.model.uri", spec.model.address
    vocabulary = spec.vocabulary if isinstance(spec, FineTuneJobSpec) else None
    if vocabulary is not None and vocabulary.extend_with.uri is not None:
        yield f"{field}.vocabulary.extendWith.uri", vocabulary.extend_with.uri
    yield from dataset_uris(spec.dataset, f"{field}.dataset")


def _evaluated_uris(spec: EvaluationSpec, field: str) -> Iterator[tuple[str, str]]:
    for index, one in enumerate(spec.models):
        if one.model.address is not None:
            yield f"{field}.models[{index}].model.uri", one.model.address
    for index, suite in enumerate(spec.suites):
        reward = suite.reward_model.address if suite.reward_model is not None else None
        for name, uri in (("dataset", suite.dataset), ("taskFolder", suite.task_folder), ("rewardModel.uri", reward)):
            if uri is not None:
                yield f"{field}.suites[{index}].{name}", uri
    for index, uri in enumerate(spec.leak_check.training_data if spec.leak_check is not None else ()):
        yield f"{field}.leakCheck.trainingData[{index}]", uri


def urls(spec: JobBlocks, field: str = "spec") -> Iterator[tuple[str, str]]:
    """Every server that the pods of a job's spec ask, with the field that holds its address."""
    if isinstance(spec, EvaluationSpec):
        if spec.endpoint is not None and spec.endpoint.url is not None:
            yield f"{field}.endpoint.url", spec.endpoint.url
        yield from judge_urls(spec.suites, field)
    if isinstance(spec, TrainingJobSpec) and spec.tracking is not None:
        yield from tracker_urls(spec.tracking, field)
    if isinstance(spec, TrainingJobSpec) and spec.publish is not None and spec.publish.mlflow is not None:
        yield f"{field}.publish.mlflow.trackingUri", spec.publish.mlflow.tracking_uri


def tracker_urls(tracking: Tracking, field: str) -> Iterator[tuple[str, str]]:
    """The server that metrics are told to. field: where the spec of the tracking stands."""
    if tracking.mlflow is not None:
        yield f"{field}.tracking.mlflow.uri", tracking.mlflow.uri
    if tracking.wandb is not None and tracking.wandb.uri is not None:
        yield f"{field}.tracking.wandb.uri", tracking.wandb.uri


def judge_urls(suites: Sequence[Suite], field: str) -> Iterator[tuple[str, str]]:
    """The servers that suites ask for verdicts. field: where the spec of the suites stands."""
    for index, suite in enumerate(suites):
        if suite.judge is not None:
            yield f"{field}.suites[{index}].judge.url", suite.judge.url


def _alignment_uris(alignment: JobAlignment, field: str) -> Iterator[tuple[str, str]]:
    for index, step in enumerate(alignment.steps):
        if step.dpo is not None:
            yield from dataset_uris(step.dpo.dataset, f"{field}.align[{index}].dpo.dataset")
    for index, reward in enumerate(alignment.rewards):
        if reward.uri is not None:
            yield f"{field}.rewardModels[{index}].model.uri", reward.uri


def dataset_uris(dataset: Dataset, field: str) -> Iterator[tuple[str, str]]:
    """Every address of a dataset, with the field that holds it."""
    yield f"{field}.uri", dataset.address
    if dataset.validation is not None and dataset.validation.address is not None:
        yield f"{field}.validation.uri", dataset.validation.address
    for index, part in enumerate(dataset.mix):
        yield f"{field}.mix[{index}].uri", part.address
