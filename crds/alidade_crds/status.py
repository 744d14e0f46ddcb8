"""Blocks that every kind's status has: conditions, progress, the model that came out."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from alidade_crds.base import Count, Report, Uri
from alidade_crds.publishing import Published


class Condition(Report):
    """One fact about a resource (metav1.Condition)."""

    type: str = Field(max_length=316, description="The fact, in CamelCase.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(max_length=1024, description="Why, as one CamelCase word that programs may rely on.")
    message: str = Field(max_length=32768, description="Why, as a sentence for people, with what to do.")
    observed_generation: int | None = Field(None, ge=0, description="Generation of the resource that was looked at.")
    last_transition_time: datetime = Field(description="When status last changed.")


class Progress(Report):
    """How far training is."""

    step: int = Field(ge=0, description="Optimizer steps done.")
    total_steps: int = Field(ge=0, description="Optimizer steps in all.")
    epoch: float = Field(ge=0, description="Passes over the dataset done.")
    loss: float | None = Field(None, description="Mean training loss since the last report, in nats per token.")
    eval_loss: float | None = Field(None, description="Newest loss on the held-out data, in nats per token.")
    learning_rate: float | None = Field(None, description="Learning rate of the last step.")
    tokens_per_second: float | None = Field(None, description="Tokens trained on per second, over all processes.")
    eta: str | None = Field(None, max_length=32, description="Time left at the present speed, such as 1h3m.")
    activity: str | None = Field(None, max_length=32, description="What an alignment does now, such as sampling.")
    align_step: str | None = Field(None, max_length=32, description="The present step of an alignment, such as 1-raft.")
    iteration: int | None = Field(None, ge=0, description="Iterations of the present alignment step done.")
    total_iterations: int | None = Field(None, ge=0, description="Iterations of the present alignment step in all.")
    rewinds: int | None = Field(None, ge=0, description="Times that training went back because of a loss spike.")
    tracking_warning: str | None = Field(
        None, max_length=1024, description="Why the experiment tracker takes no metrics, while it does not."
    )
    updated_at: datetime = Field(description="When this was read from the job.")


class ModelInfo(Report):
    """The model that a resource has made."""

    uri: Uri = Field(description="Folder of the model in Hugging Face format.")
    digest: str = Field(max_length=128, description="sha256 over the digests of its files.")
    base_model: str | None = Field(None, max_length=1152, description="Model that training started from.")
    parameters: Count = Field(description="Weights in all.")
    trainable_parameters: Count = Field(description="Weights that were trained.")
    hidden_size: Count | None = Field(None, description="Width of the residual stream, in units.")
    layers: Count | None = Field(None, description="Transformer blocks.")
    vocab_size: Count | None = Field(None, description="Entries of the tokenizer.")


class FailureInfo(Report):
    """The newest failed attempt."""

    attempt: int = Field(ge=1, description="Which attempt, from 1.")
    reason: str = Field(max_length=256, description="One CamelCase word.")
    message: str = Field(max_length=4096, description="What happened and what to do.")
    exit_code: int | None = Field(None, description="Exit code of the process.")
    interrupted: bool | None = Field(
        None, description="Whether its node, or the room on it, was taken away; set only then."
    )
    at: datetime = Field(description="When it was noticed.")


class ChildRef(Report):
    """An object that this resource owns."""

    kind: str = Field(max_length=63, description="Its kind.")
    name: str = Field(max_length=253, description="Its name, in the same namespace.")
    uid: str | None = Field(None, max_length=64, description="Its uid.")


class ResourceStatus(Report):
    """What every kind reports."""

    observed_generation: int | None = Field(
        None, ge=-1, description="Generation of the resource that this status describes; -1 before the first look."
    )
    phase: str | None = Field(None, max_length=32, description="Summary for people; programs read the conditions.")
    conditions: list[Condition] = Field(
        [],
        max_length=32,
        description="The facts.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )


class JobStatus(ResourceStatus):
    """What every kind that runs a training job reports."""

    progress: Progress | None = Field(None, description="How far training is.")
    model: ModelInfo | None = Field(None, description="The model, once there is one.")
    published: Published | None = Field(None, description="Where the model has been made known, if it was asked for.")
    metrics: dict[str, float] = Field({}, description="Final metrics.")
    attempts: int = Field(0, ge=0, description="Times the job was launched.")
    interruptions: int | None = Field(
        None,
        ge=0,
        description="Attempts that ended because their node, or the room on it, was taken away; spec.backoffLimit does "
        "not count them. Absent for none.",
    )
    last_failure: FailureInfo | None = Field(None, description="The newest failed attempt.")
    workers: int | None = Field(
        None, ge=1, description="Pods of the present attempt where there was no room for all of spec.compute.workers."
    )
    started_at: datetime | None = Field(None, description="When the first pod ran.")
    finished_at: datetime | None = Field(None, description="When the job succeeded or failed for good.")
    active_seconds: float | None = Field(
        None, ge=0, description="Seconds that launched attempts had before the present one, suspended time not counted."
    )
    gpu_hours: float | None = Field(None, ge=0, description="GPUs times hours held, over all attempts.")
    cost: str | None = Field(None, max_length=64, description="gpuHours at the node pool's price, with the currency.")
    job_ref: ChildRef | None = Field(None, description="The training job of the present attempt.")
    report_uri: Uri | None = Field(None, description="The HTML report beside the model.")
