"""What operator and jobs say to each other: one document in, one progress and one result document out.

Each document carries `version`; a reader refuses a version it does not know instead of guessing.
"""

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict, Field

from alidade_crds.alignmentrun import AlignStep, Generation, Guardrails
from alidade_crds.base import Count, Measured, Report, Spec, Uri
from alidade_crds.blocks import (
    Adapter,
    Checkpoint,
    Context,
    DeepSpeed,
    GhostAttention,
    ModelInit,
    Precision,
    RewardFunction,
    Tracking,
    Training,
    Vocabulary,
)
from alidade_crds.evaluation import EndpointApi, LeakCheck, Suite
from alidade_crds.jobs import RankingLoss
from alidade_crds.modelserve import QuantizationReport
from alidade_crds.packed import PackedResults
from alidade_crds.publishing import Publish, Published
from alidade_crds.status import ModelInfo
from alidade_crds.text_dataset import TextDataset

JOB_VERSION = "alidade.dev/job/v1"
PROGRESS_VERSION = "alidade.dev/progress/v1"
RESULT_VERSION = "alidade.dev/result/v1"
EVALUATION_VERSION = "alidade.dev/evaluation/v1"
QUANTIZATION_VERSION = "alidade.dev/quantization/v1"

# The environment of a training container; paths are told, never assumed.
JOB_ENV = "ALIDADE_JOB"
VOLUMES_ENV = "ALIDADE_VOLUMES"
SCRATCH_ENV = "ALIDADE_SCRATCH"
CACHE_ENV = "ALIDADE_CACHE"
HOSTS_ENV = "ALIDADE_HOSTS"  # a HostPolicy as JSON, where it is not the strictest
TERMINATION_LOG_ENV = "ALIDADE_TERMINATION_LOG"
PORT_ENV = "ALIDADE_PORT"
POD_IP_ENV = "POD_IP"
WORKER_INDEX_ENV = "JOB_COMPLETION_INDEX"  # set by Kubernetes in the pods of an indexed Job
ENDPOINT_KEY_ENV = "ALIDADE_ENDPOINT_KEY"
# The address of a ModelServe that is measured, in the environment, where the local cluster resolves names of Services.
ENDPOINT_URL_ENV = "ALIDADE_ENDPOINT_URL"
HUB_TOKEN_ENV = "ALIDADE_HUB_TOKEN"
JUDGE_KEY_ENV = "ALIDADE_JUDGE_KEY_{}"  # with the place of the suite, from 0

# Kubernetes cuts a termination message at this length, in bytes.
TERMINATION_MESSAGE_LIMIT = 4096


class ExitCode:
    """How a training container ends."""

    SUCCEEDED = 0
    FAILED = 1  # final: trying again would fail again
    RETRY = 75  # EX_TEMPFAIL: the next attempt resumes from the newest complete checkpoint
    TERMINATED = 143  # SIGTERM was obeyed and a checkpoint saved


class Stage(StrEnum):
    """What a job does."""

    PRETRAIN = "pretrain"
    SFT = "sft"
    REWARD = "reward"
    ALIGN = "align"


class Owner(Report):
    """The resource that a job belongs to."""

    kind: str = Field(description="Its kind.")
    namespace: str = Field(description="Its namespace.")
    name: str = Field(description="Its name.")
    uid: str = Field(description="Its uid.")


class JobModel(Spec):
    """The model with references resolved: exactly one of uri, init."""

    uri: str | None = Field(None, description="A model in Hugging Face format.")
    digest: str | None = Field(None, description="Expected digest of the model at uri, when the platform made it.")
    init: ModelInit | None = Field(None, description="A new model with random weights.")
    trust_remote_code: bool = Field(False, description="Whether code that comes with the model may run.")


class JobReward(Spec):
    """One reward with references resolved: exactly one of uri, function, entryPoint."""

    name: str = Field(description="Name in metrics.")
    uri: str | None = Field(None, description="A reward model.")
    digest: str | None = Field(None, description="Expected digest of the reward model, when the platform made it.")
    function: RewardFunction | None = Field(None, description="A reward that a program gives.")
    entry_point: str | None = Field(None, description="A Python function inside the image, as module:function.")
    pattern: str | None = Field(None, description="The regular expression of function regex.")
    weight: float = Field(1.0, description="Factor in the weighted sum.")


class JobAlignment(Spec):
    """What stage align does; the job's dataset holds the prompts."""

    steps: list[AlignStep] = Field(description="Steps in order, each from the model of the one before.")
    rewards: list[JobReward] = Field([], description="The rewards; of gated ones the first is the safety reward.")
    combine: Literal["weightedSum", "gated"] = Field("weightedSum", description="How several rewards become one.")
    generation: Generation = Field(default_factory=Generation, description="How answers are sampled.")
    guardrails: Guardrails = Field(default_factory=Guardrails, description="What stops a step that goes wrong.")


class JobDocument(Spec):
    """All that a training job is told. It holds no secret: those come by environment from Secrets."""

    version: Literal["alidade.dev/job/v1"] = "alidade.dev/job/v1"
    owner: Owner
    stage: Stage
    model: JobModel
    dataset: TextDataset
    adapter: Adapter = Adapter()
    training: Training = Training()
    deepspeed: DeepSpeed = DeepSpeed()
    checkpoint: Checkpoint = Checkpoint()
    vocabulary: Vocabulary | None = None
    context: Context | None = None
    ghost_attention: GhostAttention | None = None
    loss: RankingLoss | None = None
    alignment: JobAlignment | None = None
    tracking: Tracking | None = None
    publish: Publish | None = None
    output: str = Field(
        description="Folder for model/, checkpoints/, report.html, metrics.jsonl and result.json, as a URI."
    )
    peak_tflops: float | None = Field(
        None, description="Peak of one GPU in the training precision, for the MFU metric."
    )


class JobEvaluatedModel(Spec):
    """A model that is measured, with references resolved."""

    name: str = Field(description="Name in tables and comparisons.")
    model: JobModel = Field(description="Where its weights are.")


class JobEndpoint(Spec):
    """A served model that is measured; its key comes by environment (ALIDADE_ENDPOINT_KEY)."""

    name: str = Field(description="Name in tables.")
    url: str = Field(description="Address of the server.")
    api: EndpointApi = Field(EndpointApi.AUTO, description="How it is spoken to.")
    model: str | None = Field(None, description="Model that is asked for.")
    concurrency: int = Field(8, description="Most questions that are asked at the same time.")
    timeout_seconds: int = Field(60, description="Seconds an answer may take.")
    retries: int = Field(4, description="Times a question is asked again.")


class JobSuite(Suite):
    """A suite with its reward model resolved; a judge's key comes by environment (ALIDADE_JUDGE_KEY_<place>)."""

    reward: JobModel | None = Field(None, description="The reward model, in place of rewardModel.")


class EvaluationDocument(Spec):
    """All that an evaluation job is told. It holds no secret: those come by environment from Secrets."""

    version: Literal["alidade.dev/evaluation/v1"] = "alidade.dev/evaluation/v1"
    owner: Owner
    models: list[JobEvaluatedModel] = Field([], description="Models that are measured one after the other.")
    endpoint: JobEndpoint | None = Field(None, description="A served model that is measured.")
    baseline: str = Field(description="The model that the others are compared with.")
    suites: list[JobSuite] = Field(description="What is measured.")
    leak_check: LeakCheck | None = Field(None, description="Looks for test prompts in the training data.")
    precision: Precision | None = Field(None, description="Number format; default: bf16 on GPUs, fp32 on the CPU.")
    seed: int = Field(0, description="Seed of sampling and of the bootstrap.")
    workers: int = Field(1, description="Pods that share the prompts.")
    processes_per_worker: int = Field(1, description="Processes of each pod; on GPUs one for each.")
    output: str = Field(description="Folder for results.json, samples/, report.html and result.json, as a URI.")

    def model_names(self) -> list[str]:
        """Names of what is measured, in order."""
        return [self.endpoint.name] if self.endpoint is not None else [one.name for one in self.models]


class QuantizationDocument(Spec):
    """All that a quantization job is told."""

    version: Literal["alidade.dev/quantization/v1"] = "alidade.dev/quantization/v1"
    owner: Owner
    model: JobModel
    method: str = Field(description="The method as the user calls it.")
    type: str | None = Field(None, description="GGUF type of the file, such as q4_k_m; none for methods for GPUs.")
    texts: str | None = Field(
        None,
        description="Records on which the method is calibrated and perplexity is measured; default: a built-in text.",
    )
    samples: int = Field(256, description="Most records of it that are used.")
    output: str = Field(description="Folder for result.json and model.gguf or the folder model, as a URI.")


class ProgressDocument(Report):
    """How far a job is; answered by rank 0 at GET /progress."""

    version: Literal["alidade.dev/progress/v1"] = "alidade.dev/progress/v1"
    state: Literal["starting", "loading", "tokenizing", "training", "evaluating", "saving", "finished"]
    step: Count = Field(0, description="Optimizer steps done.")
    total_steps: Count = Field(0, description="Optimizer steps in all.")
    epoch: float = Field(0.0, ge=0, description="Passes over the dataset done.")
    loss: float | None = Field(None, description="Mean training loss since the last report, in nats per token.")
    eval_loss: float | None = Field(None, description="Newest loss on held-out data, in nats per token.")
    learning_rate: float | None = Field(None, description="Learning rate of the last step.")
    tokens_per_second: float | None = Field(None, description="Tokens trained on per second, over all processes.")
    eta_s: float | None = Field(None, ge=0, description="Seconds left at the present speed.")
    activity: str | None = Field(
        None, max_length=32, description="What an alignment step does now, such as sampling or scoring."
    )
    align_step: str | None = Field(None, max_length=32, description="The present alignment step, such as 1-raft.")
    iteration: Count | None = Field(None, description="Iterations of the present alignment step done.")
    total_iterations: Count | None = Field(None, description="Iterations of the present alignment step in all.")
    metrics: dict[str, float] = Field({}, description="Newest metrics of an alignment step, such as reward and kl.")
    resumed_from_step: Count | None = Field(None, description="Step of the checkpoint this attempt started from.")
    rewinds: Count = Field(0, description="Times that training went back because of a loss spike.")
    last_rewind: str | None = Field(None, description="What the newest of them was about, as a sentence.")
    tracking_warning: str | None = Field(
        None, description="Why the experiment tracker takes no metrics, if it does not."
    )
    updated_at: datetime = Field(description="When this was true.")


class Failure(Report):
    """Why a job ended without a model."""

    reason: str = Field(max_length=128, description="One CamelCase word (alidade_crds.reasons.FailureReason).")
    message: str = Field(max_length=3000, description="Field or file, what was found, what to do.")
    retryable: bool = Field(description="Whether another attempt could succeed without a change by the user.")


class ResultDocument(Report):
    """How a job ended; the container's termination message, and result.json beside the model."""

    # A metric that is no number is written as the string "NaN"; as null, it would make the whole result unreadable.
    model_config = ConfigDict(ser_json_inf_nan="strings")

    version: Literal["alidade.dev/result/v1"] = "alidade.dev/result/v1"
    outcome: Literal["succeeded", "failed", "terminated"]
    model: ModelInfo | None = Field(None, description="The model that came out.")
    metrics: dict[str, float] = Field({}, description="Final metrics; snake_case names with units.")
    failure: Failure | None = Field(None, description="Why there is no model.")
    stopped: Failure | None = Field(
        None, description="The guard rail that ended an alignment early; the model is its newest sound iteration's."
    )
    step: Count | None = Field(None, description="Last optimizer step done.")
    align_step: str | None = Field(
        None, max_length=32, description="The alignment step that the model comes from, such as 2-ppo."
    )
    report_uri: Uri | None = Field(None, description="The HTML report.")
    published: Published | None = Field(None, description="Where the model has been made known.")
    warnings: list[str] = Field([], description="What a person should know, such as records that were left out.")
    evaluation: PackedResults | None = Field(None, description="What an evaluation has measured.")
    quantization: QuantizationReport | None = Field(None, description="What a quantization has done.")

    def to_termination_message(self) -> str:
        """The document as JSON of at most 4096 bytes.

        Warnings, then metrics, then an evaluation's last results are left out when it is longer.
        """
        for one in self._shortened():
            text = one.model_dump_json(by_alias=True, exclude_none=True)
            if len(text.encode()) <= TERMINATION_MESSAGE_LIMIT:
                return text
        assert self.failure is not None, "model and report alone stay below the limit"
        cut = self.failure.model_copy(update={"message": self.failure.message[:600]})
        return self.model_copy(update={"warnings": [], "metrics": {}, "failure": cut}).model_dump_json(
            by_alias=True, exclude_none=True
        )

    def _shortened(self) -> Iterator["ResultDocument"]:
        """The document whole, then with less and less in it."""
        yield self
        yield self.model_copy(update={"warnings": []})
        bare = self.model_copy(update={"warnings": [], "metrics": {}})
        yield bare
        kept = self.evaluation
        while kept is not None and kept.rows:
            kept = kept.shorter()
            yield bare.model_copy(update={"evaluation": kept})


class BackendCounts(Report):
    """What one side of a gateway has been given since the gateway's start. Percentiles are over the newest 1000
    requests, null without any."""

    requests: Count = Field(0, description="Requests sent to it.")
    errors: int = Field(
        0, ge=0, description="Answers with a 5xx code and connections that broke; 4xx are the client's."
    )
    first_byte_seconds_p50: Measured = Field(None, description="Median time to the first byte, in seconds.")
    first_byte_seconds_p95: Measured = Field(None, description="95th percentile of the same, in seconds.")
    seconds_p50: Measured = Field(None, description="Median time of a whole answer, in seconds.")
    seconds_p95: Measured = Field(None, description="95th percentile of the same, in seconds.")


class GatewayBackends(Report):
    """Both sides of a gateway."""

    stable: BackendCounts = Field(default_factory=BackendCounts, description="The model before.")
    canary: BackendCounts | None = Field(None, description="The new model; absent while there is none.")


class GatewayDocument(Report):
    """What a gateway has seen; answered at GET /internal/status."""

    started_at: datetime = Field(description="When the process started; its counts begin there.")
    waiting: Count = Field(0, description="Requests that are held because no replica answers.")
    running: Count = Field(0, description="Requests that are being answered.")
    last_request_at: datetime | None = Field(None, description="When the newest request came.")
    backends: GatewayBackends = Field(default_factory=GatewayBackends, description="Counts of each side.")
    votes: Count = Field(0, description="Votes cast in the arena.")
