"""FineTuneJob and RewardModel: resources that are one training job each."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from alidade_crds.base import Spec, spec_config
from alidade_crds.blocks import (
    Adapter,
    Checkpoint,
    Compute,
    Context,
    Dataset,
    DeepSpeed,
    Elastic,
    GhostAttention,
    Model,
    Output,
    Tracking,
    Training,
    Vocabulary,
)
from alidade_crds.publishing import Publish
from alidade_crds.status import JobStatus
from alidade_crds.text_dataset import CleanDataset, TextDataset


class Method(StrEnum):
    """What a FineTuneJob learns from."""

    PRETRAIN = "pretrain"
    SFT = "sft"


class RunPolicy(Spec):
    """When a job is stopped, retried and removed."""

    suspend: bool = Field(
        False, description="Whether the job's pods are taken away; training goes on from its checkpoint when unset."
    )
    backoff_limit: int = Field(
        3,
        ge=0,
        le=100,
        description="Failed attempts that are tried again before the job fails; one that its node was taken from is "
        "always tried again and not counted.",
    )
    active_deadline_seconds: int | None = Field(
        None, ge=1, description="Seconds from the first launch after which the job fails, suspended time not counted."
    )
    ttl_seconds_after_finished: int | None = Field(
        None, ge=0, description="Seconds after the end when the resource is deleted; the model stays. Default: never."
    )


class JobBlocks(RunPolicy):
    """What every resource has that is one job: where it runs, and where its result goes."""

    compute: Compute = Field(default_factory=Compute, description="Where the job runs.")
    output: Output | None = Field(None, description="Where the model goes; default: the workspace volume.")


class TrainingBlocks(JobBlocks):
    """The blocks that every training job has, but the model."""

    dataset: Dataset = Field(description="What is trained on.")
    adapter: Adapter = Field(default_factory=Adapter, description="LoRA, or all weights.")
    training: Training = Field(default_factory=Training, description="Optimisation.")
    deepspeed: DeepSpeed = Field(default_factory=DeepSpeed, description="How training is spread over processes.")
    checkpoint: Checkpoint = Field(default_factory=Checkpoint, description="What is kept to resume from.")
    elastic: Elastic | None = Field(
        None, description="Whether fewer workers go on where not all find a node; the loss curve stays the same."
    )
    tracking: Tracking | None = Field(None, description="Experiment tracker.")
    publish: Publish | None = Field(
        None, description="Where the finished model is made known beside its output, such as the Hugging Face hub."
    )


class TrainingJobSpec(TrainingBlocks):
    """The blocks that every training job has."""

    model: Model = Field(description="Where the weights come from.")


EARLY_STOPPING_RULE = (
    "!has(self.training.earlyStopping) || has(self.dataset.validation)",
    "training.earlyStopping needs dataset.validation",
)


PROCESSES = (
    "(self.compute.workers * (has(self.compute.processesPerWorker) ? self.compute.processesPerWorker : "
    "self.compute.gpusPerWorker > 0 ? self.compute.gpusPerWorker : 1))"
)
"""The training processes of a spec, in CEL."""
BATCH_RULES = (
    (
        f"self.training.globalBatchSize % {PROCESSES} == 0",
        "training.globalBatchSize must be a multiple of the training processes: compute.workers times "
        "processesPerWorker, which is gpusPerWorker, or 1 on CPUs, where it is not set",
    ),
    (
        "type(self.training.microBatchSize) != int || "
        f"(self.training.globalBatchSize / {PROCESSES}) % self.training.microBatchSize == 0",
        "training.microBatchSize must divide the sequences of each process: training.globalBatchSize over the "
        "training processes",
    ),
)


SCALE_RULES = (
    (
        "!has(self.deepspeed.zeroPlusPlus) || !has(self.deepspeed.zeroPlusPlus.partitionSize) || "
        f"{PROCESSES} % self.deepspeed.zeroPlusPlus.partitionSize == 0",
        "deepspeed.zeroPlusPlus.partitionSize must divide the training processes: compute.workers times "
        "processesPerWorker, which is gpusPerWorker, or 1 on CPUs, where it is not set",
    ),
    (
        "self.compute.gpusPerWorker > 0 || !has(self.deepspeed.zeroPlusPlus) || "
        "!(self.deepspeed.zeroPlusPlus.quantizedWeights || self.deepspeed.zeroPlusPlus.quantizedGradients)",
        "deepspeed.zeroPlusPlus.quantizedWeights and quantizedGradients need GPUs: set compute.gpusPerWorker",
    ),
    (
        "self.compute.gpusPerWorker > 0 || "
        "!(self.training.attention.startsWith('flash') || self.training.kernels == 'liger' || "
        "self.training.offloadActivations)",
        "training.attention flash_attention_2 and 3, training.kernels liger and training.offloadActivations need GPUs: "
        "set compute.gpusPerWorker",
    ),
    (
        "!self.training.compile || self.deepspeed.zeroStage < 3",
        "training.compile needs deepspeed.zeroStage 0 to 2: stage 3 fetches each weight between two operations",
    ),
)

ELASTIC_RULES = (
    (
        "!has(self.elastic) || self.elastic.minWorkers <= self.compute.workers",
        "elastic.minWorkers must not be greater than compute.workers, which is the most",
    ),
    (
        "!has(self.elastic) || !has(self.compute.queue)",
        "elastic cannot be used with compute.queue: a queue admits all pods of a job or none",
    ),
    (
        "!has(self.elastic) || !has(self.deepspeed.zeroPlusPlus) || !has(self.deepspeed.zeroPlusPlus.partitionSize) || "
        "self.compute.gpusPerWorker % self.deepspeed.zeroPlusPlus.partitionSize == 0",
        "deepspeed.zeroPlusPlus.partitionSize must divide compute.gpusPerWorker with elastic: it has to do with fewer "
        "workers, too",
    ),
)

ADAPTER_RULES = (
    (
        "self.adapter.type != 'qlora' || self.deepspeed.zeroStage < 3",
        "adapter.type qlora needs deepspeed.zeroStage 0 to 2: a base in 4 bits is whole on every process",
    ),
    (
        "self.adapter.type == 'none' || self.training.freeze.size() == 0",
        "training.freeze is for adapter.type none: lora and qlora leave all weights of the base as they are",
    ),
)

VOCABULARY_RULES = (
    (
        "!has(self.vocabulary) || !has(self.model.init)",
        "model.init trains a tokenizer of its own: set model.init.vocabSize in place of vocabulary",
    ),
    (
        "!has(self.vocabulary) || self.vocabulary.train != 'embeddings' || self.adapter.type == 'none'",
        "vocabulary.train embeddings trains nothing but embeddings and output head: adapter.type must be none",
    ),
    (
        "!has(self.vocabulary) || !has(self.ghostAttention)",
        "ghostAttention samples with the base's tokenizer: extend the vocabulary in a job before",
    ),
    (
        "!has(self.context) || !has(self.model.init)",
        "model.init has no context to stretch: set model.init.contextLength in place of context",
    ),
    (
        "!has(self.context) || !has(self.vocabulary)",
        "vocabulary and context cannot be set together, since perplexity before and after would not be of the same "
        "tokens: use one job after the other",
    ),
)


PERPLEXITY_RULES = (
    (
        "!has(self.dataset.filters) || !has(self.dataset.filters.perplexity) || !has(self.model.init)",
        "dataset.filters.perplexity needs a model that has learned: under the random weights of model.init all text is "
        "as unlikely",
    ),
    (
        "!has(self.dataset.filters) || !has(self.dataset.filters.perplexity) || "
        "!(has(self.vocabulary) || has(self.context))",
        "dataset.filters.perplexity needs the model as it has learned, without the new pieces of vocabulary and the "
        "stretched positions of context: filter in a job without them",
    ),
)


class FineTuneJobSpec(TrainingJobSpec):
    """One job that pretrains a model or fine-tunes it on demonstrations."""

    model_config = spec_config(
        EARLY_STOPPING_RULE,
        *BATCH_RULES,
        *SCALE_RULES,
        *ELASTIC_RULES,
        *ADAPTER_RULES,
        (
            "self.adapter.type == 'none' || !has(self.model.init)",
            "model.init starts from random weights, which need training as a whole: use adapter.type none",
        ),
        (
            "!has(self.ghostAttention) || (self.method == 'sft' && !has(self.model.init))",
            "ghostAttention samples answers from the start model: it needs method sft, and no model.init",
        ),
        *VOCABULARY_RULES,
        *PERPLEXITY_RULES,
    )

    dataset: TextDataset = Field(description="What is trained on.")
    method: Method = Field(
        Method.SFT, description="pretrain learns every token of plain text, sft the answers of demonstrations."
    )
    vocabulary: Vocabulary | None = Field(None, description="New pieces for the tokenizer.")
    context: Context | None = Field(None, description="A longer context, by stretched rotary positions.")
    ghost_attention: GhostAttention | None = Field(
        None, description="Instructions that hold for whole conversations; for method sft."
    )


class RankingLoss(Spec):
    """Pairwise ranking loss (InstructGPT, eq. 1; Llama 2, section 3.2.2)."""

    type: Literal["ranking"] = Field("ranking", description="Kind of loss.")
    margin: Literal["none", "fromStrength"] = Field(
        "none", description="Whether a stronger preference asks for a wider margin."
    )
    center: float = Field(0.01, ge=0, le=10, description="Weight of the term that keeps rewards around 0.")


class RewardTraining(Training):
    """Optimisation of a reward model: one epoch, since more overfit (Llama 2, section 3.2.2)."""

    epochs: float = Field(1, gt=0, le=10000, description="Passes over the dataset; a fraction stops within one.")
    learning_rate: float = Field(1e-5, gt=0, le=1, description="Peak learning rate of AdamW.")


NO_NEW_MODEL_RULE = (
    "!has(self.model) || !has(self.model.init)",
    "model.init has learned nothing yet: start a reward model from a fine-tuned one, by model.uri or model.from",
)


class RewardBlocks(TrainingBlocks):
    """The blocks of a reward model's training, but the model."""

    dataset: CleanDataset = Field(description="Preferences.")
    training: RewardTraining = Field(default_factory=RewardTraining, description="Optimisation; one epoch by default.")
    loss: RankingLoss = Field(default_factory=RankingLoss, description="What is minimised.")


class RewardModelSpec(RewardBlocks, TrainingJobSpec):
    """One job that trains a reward model on preferences."""

    model_config = spec_config(
        EARLY_STOPPING_RULE, *BATCH_RULES, *SCALE_RULES, *ELASTIC_RULES, *ADAPTER_RULES, NO_NEW_MODEL_RULE
    )


class RewardTemplate(RewardBlocks):
    """A RewardModel that an AlignmentRun makes."""

    model_config = spec_config(
        EARLY_STOPPING_RULE, *BATCH_RULES, *SCALE_RULES, *ELASTIC_RULES, *ADAPTER_RULES, NO_NEW_MODEL_RULE
    )

    model: Model | None = Field(None, description="The model it starts from; default: that of the run's SFT stage.")


class FineTuneJobStatus(JobStatus):
    """What a FineTuneJob has come to."""


class RewardModelStatus(JobStatus):
    """What a RewardModel has come to."""


__all__ = [
    "FineTuneJobSpec",
    "FineTuneJobStatus",
    "JobBlocks",
    "Method",
    "RankingLoss",
    "RewardModelSpec",
    "RewardModelStatus",
    "RewardTemplate",
    "RunPolicy",
    "TrainingBlocks",
    "TrainingJobSpec",
]
