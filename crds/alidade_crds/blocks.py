"""Blocks that several kinds share, from `model` and `dataset` to `compute` and `output`."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from alidade_crds.base import (
    NO_CLIMBING,
    OF_THE_WEB,
    Digest,
    Name,
    Quantity,
    Spec,
    Text,
    Uri,
    VariableName,
    rules,
    spec_config,
)
from alidade_crds.uris import with_digest


class ModelSource(StrEnum):
    """The kinds whose output can be a model."""

    FINE_TUNE_JOB = "FineTuneJob"
    REWARD_MODEL = "RewardModel"
    ALIGNMENT_RUN = "AlignmentRun"


class ResourceRef(Spec):
    """A resource of the same namespace whose model is taken once it has succeeded."""

    kind: ModelSource = Field(description="Kind of the resource whose output is the model.")
    name: Name = Field(description="Its name, in the same namespace.")


class ModelInit(Spec):
    """A model from scratch, with random weights; its tokenizer is trained on the dataset."""

    model_config = spec_config(
        ("self.hiddenSize % self.heads == 0", "hiddenSize must be a multiple of heads"),
        (
            "!has(self.kvHeads) || self.heads % self.kvHeads == 0",
            "heads must be a multiple of kvHeads (grouped-query attention shares each key-value head evenly)",
        ),
    )

    architecture: Literal["llama"] = Field("llama", description="Architecture of the network.")
    hidden_size: int = Field(ge=8, le=16384, description="Width of the residual stream, in units.")
    layers: int = Field(ge=1, le=256, description="Number of transformer blocks.")
    heads: int = Field(ge=1, le=256, description="Attention heads per block.")
    kv_heads: int | None = Field(
        None, ge=1, le=256, description="Key-value heads per block; default: as many as heads."
    )
    intermediate_size: int | None = Field(
        None,
        ge=8,
        le=65536,
        description="Width of the feed-forward layer; default: 8/3 of hiddenSize, to a multiple of 8.",
    )
    vocab_size: int = Field(ge=300, le=262144, description="Most entries that the trained tokenizer may have.")
    context_length: int = Field(512, ge=16, le=131072, description="Longest sequence, in tokens.")
    tie_embeddings: bool = Field(True, description="Whether input embeddings and output head share their weights.")


class Model(Spec):
    """Where the weights come from: exactly one of uri, from, init."""

    model_config = spec_config(
        (
            "[has(self.uri), has(self.from), has(self.init)].filter(given, given).size() == 1",
            "exactly one of uri, from, init must be set",
        ),
        (
            "!has(self.uri) || self.uri.matches('^(hf|s3|gs|https?|pvc|file)://.+')",
            "uri must start with hf://, s3://, gs://, https://, http://, pvc:// or file://",
        ),
        (f"!has(self.uri) || {NO_CLIMBING[0]}", NO_CLIMBING[1]),
        OF_THE_WEB,
        (
            "!has(self.sha256) || (has(self.uri) && self.uri.matches('^https?://'))",
            "sha256 is that of an archive at an http(s):// uri; models elsewhere are folders",
        ),
    )

    uri: Uri | None = Field(
        None,
        description="A model in Hugging Face format: hf://ORG/NAME[@REVISION], s3://…, gs://…, pvc://CLAIM/PATH, "
        "https://HOST/ARCHIVE (.tar, .tar.gz, .tgz or .zip), or file:///PATH (local cluster only).",
    )
    sha256: Digest | None = Field(None, description="sha256 of the archive at an http(s):// uri, in hexadecimal.")
    from_: ResourceRef | None = Field(
        None, alias="from", description="The output of another resource of this namespace."
    )
    init: ModelInit | None = Field(None, description="A new model with random weights.")
    parameters: str | None = Field(
        None,
        pattern=r"^[0-9]+(\.[0-9]+)?[MBT]$",
        max_length=16,
        description="Size of the model at uri, such as 7B or 350M, for the memory estimate when its name tells none.",
    )
    trust_remote_code: bool = Field(False, description="Whether code that comes with the model may run.")

    @property
    def address(self) -> str | None:
        """The uri with the digest, where there is one; None for a model that is not at an address."""
        return with_digest(self.uri, self.sha256) if self.uri is not None else None


class DataFormat(StrEnum):
    """Shapes of records: LMFlow's JSON types and the hub's usual column names."""

    AUTO = "auto"
    TEXT_ONLY = "text_only"
    TEXT2TEXT = "text2text"
    CONVERSATION = "conversation"
    PAIRED_CONVERSATION = "paired_conversation"
    PREFERENCE = "preference"
    PROMPTS = "prompts"


class RewardFunction(StrEnum):
    """Rewards that a program gives."""

    EXACT_MATCH = "exact_match"
    CONTAINS = "contains"
    REGEX = "regex"
    LENGTH = "length"


_SHA256 = (
    "sha256 of the file at uri, in hexadecimal, with which what comes is compared; required for http(s)://. Folders "
    "have none."
)


class Validation(Spec):
    """Held-out data: exactly one of uri, fraction."""

    model_config = spec_config(
        ("has(self.uri) != has(self.fraction)", "exactly one of uri, fraction must be set"),
        OF_THE_WEB,
        ("!has(self.sha256) || has(self.uri)", "sha256 is that of the file at uri"),
    )

    uri: Uri | None = Field(None, description="A file or folder of held-out records, in the dataset's format.")
    sha256: Digest | None = Field(None, description=_SHA256)
    fraction: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of the dataset's records that is held out, chosen by the seed. A FineTuneJob holds it out "
        "of what it draws from each dataset in mix, too.",
    )

    @property
    def address(self) -> str | None:
        """The uri with the digest, where there is one; None for a share of the dataset."""
        return with_digest(self.uri, self.sha256) if self.uri is not None else None


class MixedDataset(Spec):
    """A further dataset mixed into the first."""

    model_config = spec_config(OF_THE_WEB)

    uri: Uri = Field(description="A file or folder of records.")
    sha256: Digest | None = Field(None, description=_SHA256)
    format: DataFormat = Field(DataFormat.AUTO, description="Shape of its records.")
    weight: float = Field(ge=0, le=1000, description="Samples drawn from it for each sample of the first dataset.")

    @property
    def address(self) -> str:
        """The uri with the digest, where there is one."""
        return with_digest(self.uri, self.sha256)


DATASET_RULES = (
    (
        "self.uri.matches('^(hf|s3|gs|https?|pvc|configmap|arena|file)://.+')",
        "uri must start with hf://, s3://, gs://, https://, http://, pvc://, configmap://, arena:// or file://",
    ),
    NO_CLIMBING,
    OF_THE_WEB,
    (
        "self.mix.size() == 0 || self.mix.exists(mixed, mixed.weight > 0.0)",
        "every weight in mix is 0, so nothing would be mixed in: give one a weight above 0, or remove mix",
    ),
)


class Dataset(Spec):
    """What is trained on, and how a record becomes tokens."""

    model_config = spec_config(*DATASET_RULES)

    uri: Uri = Field(
        description="A file or folder of .json, .jsonl, .parquet, .csv or .arrow: hf://ORG/NAME[@REVISION], s3://…, "
        "gs://…, https://HOST/FILE (also an archive of such files: .tar, .tar.gz, .tgz, .zip), pvc://CLAIM/PATH, "
        "configmap://NAME/KEY, arena://NAME (the votes in a ModelServe's arena), or file:///PATH (local cluster only)."
    )
    sha256: Digest | None = Field(None, description=_SHA256)
    format: DataFormat = Field(DataFormat.AUTO, description="Shape of the records; auto recognises it.")
    template: Text = Field(
        "auto",
        description="How a conversation becomes text: auto (the tokenizer's own, else chatml), alpaca, llama2, chatml, "
        "none, or an inline Jinja template.",
    )
    max_length: int = Field(
        1024, ge=8, le=131072, description="Longest sequence, in tokens; longer records are counted and reported."
    )
    packing: bool = Field(True, description="Whether several records share one sequence, without seeing one another.")
    validation: Validation | None = Field(None, description="Held-out data on which the loss is measured.")
    mix: list[MixedDataset] = Field([], max_length=16, description="Further datasets mixed in.")

    @property
    def address(self) -> str:
        """The uri with the digest, where there is one."""
        return with_digest(self.uri, self.sha256)


class AdapterType(StrEnum):
    """How much of the network is trained."""

    NONE = "none"
    LORA = "lora"
    QLORA = "qlora"


class Adapter(Spec):
    """Low-rank adaptation (Hu et al. 2021), or none for all weights."""

    model_config = spec_config(
        (
            "self.type != 'none' || !(self.rslora || self.dora)",
            "rslora and dora are ways of adding: they need type lora or qlora",
        )
    )

    type: AdapterType = Field(
        AdapterType.NONE,
        description="none trains all weights; lora trains low-rank additions; qlora trains them on a base whose linear "
        "layers are held in 4 bits (NF4, Dettmers et al. 2023).",
    )
    rank: int = Field(8, ge=1, le=1024, description="Rank of the additions.")
    alpha: float = Field(
        16, gt=0, le=4096, description="Scale: the additions are multiplied by alpha/rank, with rslora by alpha/√rank."
    )
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout on the additions' input, a probability.")
    target_modules: list[Annotated[str, StringConstraints(min_length=1, max_length=128)]] = Field(
        ["auto"],
        min_length=1,
        max_length=64,
        description="Modules that get additions, by the end of their names; auto takes the blocks' linear layers.",
    )
    train_embeddings: bool = Field(
        False, description="Whether embeddings and output head are trained whole beside the additions."
    )
    rslora: bool = Field(
        False,
        description="Whether alpha is divided by the rank's root, which keeps large ranks learning "
        "(Kalajdzievski 2023).",
    )
    dora: bool = Field(
        False,
        description="Whether the weights' magnitudes are trained beside their directions (DoRA, Liu et al. 2024): "
        "nearer to training all weights, and slower.",
    )


class EarlyStopping(Spec):
    """Ends training when a metric has not got better for a number of evaluations."""

    metric: Literal["eval_loss"] = Field("eval_loss", description="Metric that is watched; lower is better.")
    patience: int = Field(3, ge=1, le=1000, description="Evaluations without an improvement that are waited for.")


class SpikeRecovery(Spec):
    """Goes back to a checkpoint when the loss spikes, and passes over the data around it (PaLM, section 5.1)."""

    factor: float = Field(
        2.0,
        gt=1,
        le=1000,
        description="A loss above so many times the median of the last ones is a spike; NaN always is.",
    )
    window: int = Field(50, ge=5, le=10000, description="Steps whose median a loss is compared with.")
    skip_steps: int = Field(20, ge=0, le=100000, description="Steps whose data is passed over beyond the spike's own.")
    max_rewinds: int = Field(5, ge=1, le=1000, description="Times that training goes back before the job fails.")


class Schedule(StrEnum):
    """Course of the learning rate after the warm-up."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


class Precision(StrEnum):
    """Number format of the computation."""

    BF16 = "bf16"
    FP32 = "fp32"


class Attention(StrEnum):
    """Implementations of attention, by their names in transformers."""

    AUTO = "auto"
    EAGER = "eager"
    SDPA = "sdpa"
    FLASH_ATTENTION_2 = "flash_attention_2"
    FLASH_ATTENTION_3 = "flash_attention_3"


class Kernels(StrEnum):
    """Whose kernels compute norms, rotary positions and feed-forward layers."""

    TORCH = "torch"
    LIGER = "liger"


class Training(Spec):
    """Optimisation: AdamW with a warm-up and a schedule."""

    model_config = spec_config(
        (
            "self.gradientCheckpointing || (self.checkpointEveryLayers == 1 && !self.offloadActivations)",
            "checkpointEveryLayers and offloadActivations are ways of gradientCheckpointing: it must be true",
        ),
        (
            "!self.attention.startsWith('flash') || self.precision == 'bf16'",
            "attention flash_attention_2 and flash_attention_3 compute in 16 bits only: precision must be bf16",
        ),
    )

    epochs: float = Field(3, gt=0, le=10000, description="Passes over the dataset; a fraction stops within one.")
    max_steps: int | None = Field(
        None, ge=1, description="Optimizer steps after which training ends even within an epoch."
    )
    learning_rate: float = Field(2e-5, gt=0, le=1, description="Peak learning rate of AdamW.")
    schedule: Schedule = Field(Schedule.COSINE, description="Course of the learning rate after the warm-up.")
    warmup_ratio: float = Field(
        0.03, ge=0, lt=1, description="Share of the steps in which the learning rate rises from 0."
    )
    weight_decay: float = Field(0.1, ge=0, le=1, description="Decoupled weight decay of AdamW.")
    max_grad_norm: float = Field(1.0, gt=0, le=1000, description="Norm to which gradients are clipped.")
    global_batch_size: int = Field(64, ge=1, le=65536, description="Sequences per optimizer step over all processes.")
    micro_batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=4096)] = Field(
        "auto",
        description="Sequences per forward pass and process; auto takes the largest that the memory estimate allows.",
        json_schema_extra=rules(
            (
                "type(self) == int ? (self >= 1 && self <= 4096) : self == 'auto'",
                "must be auto or a number from 1 to 4096",
            )
        ),
    )
    precision: Precision = Field(
        Precision.BF16, description="Number format of the computation; bf16 is slower than fp32 on most CPUs."
    )
    gradient_checkpointing: bool = Field(
        True, description="Whether activations are computed again in the backward pass to save memory."
    )
    checkpoint_every_layers: int = Field(
        1,
        ge=1,
        le=256,
        description="Of so many transformer blocks, one has its activations computed again and the others keep theirs: "
        "more is faster and takes more memory.",
    )
    offload_activations: bool = Field(
        False, description="Whether the inputs of blocks that are computed again wait in the host's memory; for GPUs."
    )
    attention: Attention = Field(
        Attention.AUTO,
        description="Implementation of attention; auto is torch's own where the model has it (sdpa), which takes flash "
        "kernels on GPUs by itself. flash_attention_2 and 3 need GPUs and their package in the image.",
    )
    kernels: Kernels = Field(
        Kernels.TORCH,
        description="liger fuses norms, rotary positions and feed-forward layers (Hsu et al. 2024); needs GPUs and the "
        "package liger-kernel in the image.",
    )
    compile: bool = Field(
        False,
        description="Whether torch.compile fuses the model's operations: minutes at the start, faster steps; needs a "
        "C++ compiler in the image, and deepspeed.zeroStage 0 to 2.",
    )
    seed: int = Field(0, ge=0, le=4294967295, description="Seed of initial weights, shuffling and dropout.")
    freeze: list[Annotated[str, StringConstraints(min_length=1, max_length=256)]] = Field(
        [],
        max_length=64,
        description="Weights that stay as they are, by patterns of their names, such as model.layers.0.* or "
        "*embed_tokens*; for adapter.type none.",
    )
    neftune_alpha: float | None = Field(
        None, gt=0, le=100, description="Scale of the noise on embeddings (NEFTune, Jain et al. 2023)."
    )
    early_stopping: EarlyStopping | None = Field(None, description="Ends training early; needs dataset.validation.")
    spike_recovery: SpikeRecovery | None = Field(
        None, description="What is done about loss spikes; default: nothing, and a loss that is NaN fails the job."
    )
    deterministic: bool = Field(
        False,
        description="Whether only kernels are used that give the same bits every time; slower on GPUs, and an "
        "error where there is none.",
    )
    evaluate_every_steps: int | None = Field(
        None,
        ge=1,
        description="Optimizer steps between two evaluations on dataset.validation; default: once per epoch.",
    )


class Offload(StrEnum):
    """What DeepSpeed keeps in host memory."""

    NONE = "none"
    OPTIMIZER = "optimizer"
    ALL = "all"


class ZeroPlusPlus(Spec):
    """Less traffic between nodes under ZeRO-3, for more memory or less precision (ZeRO++, Wang et al. 2023)."""

    quantized_weights: bool = Field(False, description="Whether weights are sent in 8 bits (qwZ); for GPUs.")
    partition_size: int | None = Field(
        None,
        ge=2,
        le=1024,
        description="So many processes, such as the GPUs of a node, share one more copy of the weights, from which the "
        "backward pass gathers (hpZ).",
    )
    quantized_gradients: bool = Field(
        False, description="Whether gradients are summed over processes in 4 bits (qgZ); for GPUs."
    )


class DeepSpeed(Spec):
    """How optimizer states, gradients and weights are spread over the processes (ZeRO, Rajbhandari et al. 2020)."""

    model_config = spec_config(
        (
            "!has(self.zeroPlusPlus) || self.zeroStage == 3",
            "zeroPlusPlus is about the traffic of weights that are spread: zeroStage must be 3",
        ),
        (
            "self.offload == 'none' || self.zeroStage > 0",
            "offload moves what ZeRO has spread: zeroStage must be 1 to 3",
        ),
        (
            "self.offload != 'all' || self.zeroStage == 3",
            "offload all moves the weights, too, which only zeroStage 3 spreads; set it, or offload optimizer",
        ),
    )

    zero_stage: int = Field(
        2, ge=0, le=3, description="0 spreads nothing, 1 optimizer states, 2 also gradients, 3 also weights."
    )
    offload: Offload = Field(
        Offload.NONE, description="What is kept in host memory: none, optimizer, or all (weights too; stage 3)."
    )
    zero_plus_plus: ZeroPlusPlus | None = Field(None, description="Less traffic between nodes under stage 3.")
    config: dict[str, Any] = Field({}, description="Raw DeepSpeed configuration, merged last.")


class CredentialVariable(Spec):
    """An environment variable that is made of a key of a Secret."""

    name: VariableName = Field(description="The variable.")
    key: str = Field(
        min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="The Secret's key that it takes."
    )


class Credential(Spec):
    """A Secret of the same namespace that pods need to reach models and data, such as a token of the hub."""

    secret_name: Name = Field(description="The Secret; the operator itself never reads it.")
    variables: list[CredentialVariable] = Field(
        [],
        max_length=32,
        description="Environment variables that are made of keys; default: every key is one of its own name, or none "
        "where the keys are files.",
    )
    files: bool = Field(
        False,
        description="Whether the keys are mounted as files, in /etc/alidade/credentials/SECRET; a variable is then the "
        "path of its key's file.",
    )


class Compute(Spec):
    """Where the job runs and what it gets there."""

    model_config = spec_config(
        (
            "!has(self.processesPerWorker) || self.gpusPerWorker == 0 || self.processesPerWorker <= self.gpusPerWorker",
            "processesPerWorker must not be greater than gpusPerWorker: a process trains on a GPU of its own",
        )
    )

    node_pool: Name | None = Field(None, description="A pool of the operator's configuration; default: its first.")
    workers: int = Field(1, ge=1, le=1024, description="Pods.")
    gpus_per_worker: int = Field(0, ge=0, le=64, description="GPUs of each pod; 0 trains on the CPU.")
    processes_per_worker: int | None = Field(
        None, ge=1, le=64, description="Training processes of each pod; default: one for each GPU, or one on the CPU."
    )
    cpu: Quantity | None = Field(None, description="CPU request of each pod, in cores.")
    memory: Quantity | None = Field(None, description="Memory request and limit of each pod, in bytes.")
    image: str | None = Field(
        None, max_length=512, description="Container image; default: the release's trainer image."
    )
    queue: Name | None = Field(None, description="Kueue local queue that admits the job, or a ModelServe's replicas.")
    priority_class_name: Name | None = Field(None, description="PriorityClass of the pods.")
    credentials: list[Credential] = Field(
        [],
        max_length=8,
        description="Secrets with which pods reach models and data (HF_TOKEN, AWS_ACCESS_KEY_ID, …), beside those of "
        "the node pool.",
    )


class Elastic(Spec):
    """How few workers a training goes on with where there is no room for all of them."""

    min_workers: int = Field(
        ge=1,
        le=1024,
        description="Fewest pods. Of what there is room for, the largest number is taken that divides compute.workers, "
        "so that each process gets a whole multiple of its sequences.",
    )
    patience_seconds: int = Field(
        300,
        ge=10,
        le=1500,
        description="Seconds that an attempt's pods wait for nodes before fewer go on; training processes wait half an "
        "hour for one another.",
    )


class Checkpoint(Spec):
    """What is kept to resume from; a restarted worker always resumes from the newest complete one."""

    every_steps: int = Field(200, ge=1, description="Optimizer steps between two checkpoints.")
    keep: int = Field(2, ge=1, le=100, description="Newest complete checkpoints that are kept.")


class Output(Spec):
    """Where the model goes."""

    model_config = spec_config(
        ("self.uri.matches('^(s3|gs|pvc|file)://.+')", "uri must start with s3://, gs://, pvc:// or file://"),
        NO_CLIMBING,
        (
            "!self.uri.matches('^pvc://[^/]+/*$')",
            "uri must not be the root of a volume: name a folder of its own, pvc://CLAIM/PATH",
        ),
    )

    uri: Uri = Field(description="A folder: pvc://CLAIM/PATH, s3://…, gs://…, or file:///PATH (local cluster only).")


class MlflowTracking(Spec):
    """Metrics go to an MLflow server."""

    model_config = spec_config(("self.uri.matches('^https?://.+')", "uri must start with https:// or http://"))

    uri: Uri = Field(description="Tracking server.")
    experiment: str | None = Field(
        None, min_length=1, max_length=250, description="Experiment; made when there is none; default: the namespace."
    )
    secret_name: Name | None = Field(
        None,
        description="Secret with the keys that MLflow's client takes from the environment: MLFLOW_TRACKING_TOKEN, or "
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.",
    )


class WandbTracking(Spec):
    """Metrics go to Weights & Biases."""

    model_config = spec_config(
        ("has(self.secretName) != self.offline", "exactly one of secretName and offline: true must be set"),
        (
            "!has(self.uri) || (self.uri.matches('^https?://.+') && !self.offline)",
            "uri must start with https:// or http://, and goes with secretName only",
        ),
    )

    uri: Uri | None = Field(None, description="A server of your own; default: Weights & Biases'.")
    project: str = Field(min_length=1, max_length=128, description="Project.")
    entity: str | None = Field(None, max_length=128, description="Team or user; default: the key's own.")
    secret_name: Name | None = Field(None, description="Secret with the key WANDB_API_KEY.")
    offline: bool = Field(
        False, description="Whether the run is only written beside the model, in wandb/, for `wandb sync` later."
    )


class TensorboardTracking(Spec):
    """Metrics are written as TensorBoard events beside the model."""


class Tracking(Spec):
    """Experiment tracker: exactly one."""

    model_config = spec_config(
        (
            "[has(self.mlflow), has(self.wandb), has(self.tensorboard)].filter(given, given).size() == 1",
            "exactly one of mlflow, wandb, tensorboard must be set",
        )
    )

    mlflow: MlflowTracking | None = Field(None, description="An MLflow server.")
    wandb: WandbTracking | None = Field(None, description="Weights & Biases.")
    tensorboard: TensorboardTracking | None = Field(None, description="TensorBoard events beside the model.")


class VocabularyTraining(StrEnum):
    """What is trained beside the new rows of a longer vocabulary."""

    ALL = "all"
    EMBEDDINGS = "embeddings"


class VocabularySource(Spec):
    """Exactly one of uri, trainOnDataset."""

    model_config = spec_config(
        (
            "has(self.uri) != (has(self.trainOnDataset) && self.trainOnDataset)",
            "exactly one of uri, trainOnDataset must be set",
        ),
        (
            "!has(self.trainOnDataset) || !self.trainOnDataset || has(self.size)",
            "trainOnDataset needs size, the number of pieces to learn",
        ),
        (
            "!has(self.uri) || self.uri.matches('^(hf|s3|gs|pvc|configmap|file)://.+')",
            "uri must start with hf://, s3://, gs://, pvc://, configmap:// or file://",
        ),
        (f"!has(self.uri) || {NO_CLIMBING[0]}", NO_CLIMBING[1]),
    )

    uri: Uri | None = Field(
        None,
        description="A sentencepiece model (.model), a tokenizer.json, or a folder with one of them.",
    )
    train_on_dataset: bool | None = Field(
        None, description="Whether the base tokenizer's own byte pair encoding goes on learning, on the dataset."
    )
    size: int | None = Field(
        None,
        ge=16,
        le=262144,
        description="Most entries that are added; needed with trainOnDataset, default with uri: all that are new.",
    )


class Vocabulary(Spec):
    """New pieces for the tokenizer; each new row of embeddings and head starts at the mean of the pieces it replaces.

    Embeddings and output head are trained whole, whatever the adapter.
    """

    extend_with: VocabularySource = Field(description="Where the new pieces come from.")
    train: VocabularyTraining = Field(
        VocabularyTraining.ALL,
        description="all trains what the adapter says; embeddings trains embeddings and output head alone, as the "
        "first of two stages (adapter.type none).",
    )
    pad_to_multiple_of: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Rows of the embeddings are made a multiple of this, such as 64 for tensor cores; default: one "
        "row for each entry.",
    )


class ContextScaling(StrEnum):
    """How positions beyond the trained context are represented."""

    LINEAR = "linear"
    NTK = "ntk"
    YARN = "yarn"


class Context(Spec):
    """A context longer than the base model's, by stretching its rotary position embedding (RoPE)."""

    length: int = Field(ge=16, le=4194304, description="Longest sequence after training, in tokens.")
    scaling: ContextScaling = Field(
        ContextScaling.LINEAR,
        description="How rotary positions are stretched: linear interpolation (Chen et al. 2023), ntk, a larger base, "
        "or yarn (Peng et al. 2023).",
    )
    factor: float | None = Field(
        None,
        gt=1,
        le=4096,
        description="How far positions are stretched; default: length over the base's context, as far as the scaling "
        "has been shown to hold.",
    )


class GhostAttention(Spec):
    """An instruction that holds for a whole conversation (Llama 2, section 3.3): exactly one of instructions, field.

    The start model answers the last turn with the instruction on every turn of the user; what is trained on has it on
    the first one only, and loss on that answer alone.
    """

    model_config = spec_config(
        ("(self.instructions.size() > 0) != has(self.field)", "exactly one of instructions, field must be set")
    )

    instructions: list[Annotated[str, StringConstraints(min_length=1, max_length=1024)]] = Field(
        [], max_length=256, description="Instructions, one of which the seed draws for each conversation."
    )
    field: str | None = Field(
        None,
        min_length=1,
        max_length=128,
        description="Field of a record that holds its own instruction; records without it are trained on as they are.",
    )
    share: float = Field(
        1.0, gt=0, le=1, description="Share of the dataset's conversations it is applied to, chosen by the seed."
    )
    max_new_tokens: int = Field(
        256, ge=1, le=32768, description="Longest sampled answer, in tokens; one that does not end within is left out."
    )
    temperature: float = Field(1.0, ge=0, le=10, description="Sampling temperature; 0 takes the likeliest tokens.")
    top_p: float = Field(
        1.0, gt=0, le=1, description="Probability that the tokens drawn from reach together (nucleus sampling)."
    )
