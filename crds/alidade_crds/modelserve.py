"""ModelServe: a quantized model behind an inference server."""

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import Field

from alidade_crds.base import Count, Measured, Name, Report, Spec, Uri, spec_config
from alidade_crds.blocks import Compute, Model
from alidade_crds.status import JobStatus, ResourceStatus


class QuantizationMethod(StrEnum):
    """How weights are made smaller."""

    NONE = "none"
    INT8 = "int8"
    INT4 = "int4"
    GPTQ = "gptq"
    AWQ = "awq"
    FP8 = "fp8"
    NF4 = "nf4"
    GGUF = "gguf"


GGUF_TYPES = (
    "f32", "f16", "q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_1", "q5_0", "q4_k_m", "q4_k_s", "iq4_nl", "iq4_xs", "q4_1",
    "q4_0", "q3_k_m", "q3_k_s", "q2_k",
)  # fmt: skip
"""Types that a GGUF file can be written in, from the most bits to the fewest."""

CPU_TYPES = {QuantizationMethod.INT8: "q8_0", QuantizationMethod.INT4: "q4_0"}
"""What int8 and int4 are on a CPU: whole numbers of so many bits, each 32 weights with a scale of their own."""


class Calibration(Spec):
    """Text on which perplexity is measured; methods that are calibrated also measure activations on it."""

    uri: Uri = Field(description="A file of records.")
    samples: int = Field(256, ge=1, le=65536, description="Records that are used.")


class Quantization(Spec):
    """A job that makes the weights smaller and measures what that costs."""

    model_config = spec_config(
        ("has(self.type) == (self.method == 'gguf')", "type is set with method gguf, and only then"),
        (f"!has(self.type) || self.type in {list(GGUF_TYPES)}", f"type must be one of {', '.join(GGUF_TYPES)}"),
        (
            "self.method != 'none' || (!has(self.calibration) && !has(self.maxPerplexityIncrease))",
            "calibration and maxPerplexityIncrease need a method: with none, nothing is measured",
        ),
    )

    method: QuantizationMethod = Field(QuantizationMethod.NONE, description="How weights are made smaller.")
    type: str | None = Field(None, max_length=16, pattern=r"^[a-z0-9_]+$", description="GGUF type, such as q4_k_m.")
    calibration: Calibration | None = Field(None, description="Text for methods that are calibrated.")
    max_perplexity_increase: float | None = Field(
        None, gt=0, le=10, description="Refused when perplexity rises by more than this share, such as 0.05."
    )

    @property
    def gguf_type(self) -> str | None:
        """The GGUF type that the weights are quantized to; None where they are not written as GGUF."""
        return self.type if self.method is QuantizationMethod.GGUF else CPU_TYPES.get(self.method)


NO_REWARD_MODEL_RULE = (
    "!has(self.model.from) || self.model.from.kind != 'RewardModel'",
    "model.from must not name a RewardModel, which judges answers and gives none",
)


class ServedAdapter(Spec):
    """A LoRA adapter served beside the base."""

    model_config = spec_config(
        ("!has(self.model.init)", "model.init has learned nothing: name an adapter by model.uri or model.from"),
        NO_REWARD_MODEL_RULE,
        (
            "!has(self.model.uri) || self.model.uri.matches('^(pvc|file)://')",
            "model.uri must be on a volume, pvc://CLAIM/PATH: servers read adapters from there",
        ),
    )

    name: Name = Field(description="Name under which clients ask for it.")
    model: Model = Field(description="Where the adapter comes from.")


class AutoscalingTarget(Spec):
    """What the number of replicas follows."""

    queue_depth_per_replica: int = Field(4, ge=1, le=10000, description="Waiting requests per replica.")


class AutoscalingProvider(StrEnum):
    """Who sets the number of replicas."""

    OPERATOR = "operator"
    HPA = "hpa"
    KEDA = "keda"


class Autoscaling(Spec):
    """Replicas between two bounds."""

    model_config = spec_config(
        ("self.min <= self.max", "min must not be greater than max"),
        (
            "self.provider != 'hpa' || self.min >= 1",
            "provider hpa needs min of at least 1: a HorizontalPodAutoscaler does not scale to zero",
        ),
    )

    min: int = Field(1, ge=0, le=1000, description="Fewest replicas; 0 stops them while nobody asks.")
    max: int = Field(ge=1, le=1000, description="Most replicas.")
    target: AutoscalingTarget = Field(default_factory=AutoscalingTarget, description="What the number follows.")
    provider: AutoscalingProvider = Field(
        AutoscalingProvider.OPERATOR,
        description="Who sets the number: the operator itself, a HorizontalPodAutoscaler, or KEDA.",
    )
    scale_down_after_seconds: int = Field(
        300, ge=0, le=86400, description="Seconds without need of a replica before it goes."
    )


DEFAULT_TOTAL_TOKENS = 2048


class ServingLimits(Spec):
    """Bounds on requests; what exceeds them is refused, never queued without end."""

    model_config = spec_config(
        (
            "!has(self.maxInputTokens) || self.maxInputTokens < "
            f"(has(self.maxTotalTokens) ? self.maxTotalTokens : {DEFAULT_TOTAL_TOKENS})",
            f"maxInputTokens must be less than maxTotalTokens, by default {DEFAULT_TOTAL_TOKENS}",
        )
    )

    max_input_tokens: int | None = Field(
        None, ge=1, le=1048576, description="Longest prompt, in tokens; by default half of maxTotalTokens."
    )
    max_total_tokens: int | None = Field(
        None,
        ge=2,
        le=1048576,
        description=f"Longest prompt and answer together, in tokens; by default {DEFAULT_TOTAL_TOKENS}, and under the "
        "embedded engine the model's context where that is shorter.",
    )
    max_concurrent_requests: int = Field(128, ge=1, le=65536, description="Requests at once; more are answered 429.")


class Auth(Spec):
    """Bearer keys."""

    secret_name: Name = Field(description="Secret whose values are the accepted keys.")


class CanaryAnalysis(Spec):
    """When a canary takes over, and when it is taken back."""

    min_requests: int = Field(50, ge=1, le=1000000, description="Requests that a canary answers before it takes over.")
    seconds: int = Field(300, ge=0, le=604800, description="Seconds that a canary serves before it takes over.")
    max_error_increase: float = Field(
        0.01, ge=0, le=1, description="Most by which its share of errors may lie above that of the model before."
    )
    max_latency_ratio: float = Field(
        1.5, ge=1, le=100, description="Most by which its 95th percentile of seconds may exceed the model before's."
    )


class Rollout(Spec):
    """How a new model takes over from the one before."""

    canary_percent: int = Field(
        0, ge=0, le=100, description="Share of requests that a new model gets at first, in percent; 0 and 100: all."
    )
    previous: Literal["keep", "delete"] = Field(
        "delete",
        description="What becomes of the model before: it goes once the canary has proved itself, or it stays beside "
        "the canary until canaryPercent is 0 or 100.",
    )
    surge: bool = Field(
        True,
        description="Whether a new replica starts before an old one ends; without, no more pods than replicas are "
        "needed, and a single replica does not serve while it is replaced.",
    )
    analysis: CanaryAnalysis = Field(default_factory=CanaryAnalysis, description="How a canary is judged.")


class Arena(Spec):
    """A page on which people compare two models' answers without knowing which is which."""

    against: Name | None = Field(
        None, description="Another ModelServe of the namespace. Without: the model before, beside its canary."
    )


class Gateway(Spec):
    """The process in front of the replicas: canaries, scaling to zero, pages for people."""

    model_config = spec_config(
        (
            "!has(self.arena) || self.replicas == 1",
            "replicas must be 1 with an arena: one process holds its comparisons",
        )
    )

    replicas: int = Field(1, ge=1, le=16, description="Replicas of the gateway.")
    chat: bool = Field(True, description="Whether it shows a page for chatting.")
    arena: Arena | None = Field(None, description="Whether it shows a page for comparing two models.")


REPLICAS_RULE = (
    "!(has(self.replicas) && has(self.autoscaling))",
    "at most one of replicas, autoscaling may be set; with autoscaling, change its min and max",
)
ARENA_RULE = (
    "!has(self.gateway) || !has(self.gateway.arena) || has(self.gateway.arena.against) || "
    "(self.rollout.previous == 'keep' && self.rollout.canaryPercent > 0 && self.rollout.canaryPercent < 100)",
    "gateway.arena needs `against`, or rollout.previous keep and a canaryPercent between 1 and 99: two models",
)


ADAPTERS_RULE = (
    "self.adapters.all(one, self.adapters.exists_one(other, other.name == one.name))",
    "adapters need names of their own",
)
ONE_POD_RULE = (
    "self.compute.workers == 1 && !has(self.compute.processesPerWorker)",
    "compute.workers and processesPerWorker cannot be set: a replica is one pod of one server; set replicas, and "
    "compute.gpusPerWorker to spread a replica over GPUs",
)


class ServingBlocks(Spec):
    """How a model is served."""

    quantization: Quantization = Field(default_factory=Quantization, description="How its weights are made smaller.")
    engine: Literal["auto", "tgi", "vllm", "embedded"] = Field(
        "auto", description="Inference server; auto picks by pool and format."
    )
    adapters: list[ServedAdapter] = Field([], max_length=64, description="LoRA adapters served beside it.")
    replicas: int | None = Field(None, ge=0, le=1000, description="Replicas; 0 stops serving. Default: 1.")
    autoscaling: Autoscaling | None = Field(None, description="Replicas that follow the load.")
    limits: ServingLimits = Field(default_factory=ServingLimits, description="Bounds on requests.")
    auth: Auth | None = Field(
        None, description="Bearer keys; without, every caller that reaches the service is served."
    )
    rollout: Rollout = Field(default_factory=Rollout, description="How a new model takes over.")
    gateway: Gateway | None = Field(
        None,
        description="A process in front of the replicas. There is one, too, with canaryPercent over 0 and with "
        "autoscaling.min 0.",
    )
    compute: Compute = Field(default_factory=Compute, description="Where it runs.")


class ModelServeSpec(ServingBlocks):
    """A model and how it is served."""

    model_config = spec_config(
        REPLICAS_RULE,
        ARENA_RULE,
        ADAPTERS_RULE,
        ONE_POD_RULE,
        ("!has(self.model.init)", "model.init has learned nothing: name a trained model by model.uri or model.from"),
        NO_REWARD_MODEL_RULE,
    )

    model: Model = Field(description="The model that is served.")


class ModelServeTemplate(ServingBlocks):
    """A ModelServe that an AlignmentRun makes, of the aligned model."""

    model_config = spec_config(REPLICAS_RULE, ARENA_RULE, ADAPTERS_RULE, ONE_POD_RULE)


class QuantizationReport(Report):
    """What quantization did."""

    method: str = Field(max_length=32, description="Method.")
    type: str | None = Field(None, max_length=16, description="GGUF type of the file.")
    uri: Uri | None = Field(None, description="Where the quantized model is.")
    sha256: str | None = Field(None, max_length=64, description="Of the file, in hexadecimal.")
    size_bytes: Count = Field(description="Size of the quantized weights, in bytes.")
    size_bytes_before: Count | None = Field(None, description="Size of the weights as they came, in bytes.")
    perplexity_before: Measured = Field(None, description="Perplexity of the model as it came.")
    perplexity_after: Measured = Field(None, description="Perplexity of the quantized model.")
    measured_on: str | None = Field(None, max_length=2048, description="The text of the perplexities, and how.")
    seconds: Measured = Field(None, description="Time that quantizing took, measuring not counted.")

    @property
    def increase(self) -> float | None:
        """By what share perplexity has risen; None where it was not measured."""
        if not self.perplexity_before or self.perplexity_after is None:
            return None
        return self.perplexity_after / self.perplexity_before - 1


class QuantizationJobStatus(JobStatus):
    """What the quantization of the present model, by the present method, has come to."""

    inputs: str | None = Field(None, max_length=64, description="Hash of model and method.")
    quantization: QuantizationReport | None = Field(None, description="What it did.")


class CanaryReport(Report):
    """How a canary does beside the model before, since the gateway knows of it."""

    model: str = Field(max_length=1024, description="Address of its model.")
    inputs: str | None = Field(None, max_length=64, description="Hash of what is tried.")
    percent: int = Field(ge=0, le=100, description="Share of requests that it gets, in percent.")
    since: datetime = Field(description="When it began to be asked.")
    requests: int = Field(0, ge=0, description="Requests that it was given.")
    errors: int = Field(0, ge=0, description="Those of them that it answered with an error of the server.")
    stable_requests: int = Field(0, ge=0, description="Requests that the model before was given in the same time.")
    stable_errors: int = Field(0, ge=0, description="Those of them that it answered with an error of the server.")
    seconds_p95: float | None = Field(None, ge=0, description="95th percentile of the time of its answers, in seconds.")
    stable_seconds_p95: float | None = Field(None, ge=0, description="The same of the model before, in seconds.")


class ReturnedCanary(Report):
    """A canary that was worse than the model before; the same spec is not tried again."""

    inputs: str = Field(max_length=64, description="Hash of the spec that asked for it.")
    message: str = Field(max_length=2048, description="Why, with the numbers.")
    report: CanaryReport | None = Field(None, description="How it did.")


class ScalingReport(Report):
    """What the operator's autoscaling goes by."""

    replicas: int = Field(ge=0, description="Replicas that it has asked for.")
    needed: int = Field(ge=0, description="Most that were needed at any time since.")
    since: datetime = Field(description="When fewer than those began to be enough.")


class ModelServeStatus(ResourceStatus):
    """What a ModelServe has come to."""

    url: Uri | None = Field(None, description="Address of the endpoint, inside the cluster.")
    engine: str | None = Field(None, max_length=32, description="Inference server that was chosen.")
    replicas: int = Field(0, ge=0, description="Replicas there are.")
    ready_replicas: int = Field(0, ge=0, description="Replicas that answer.")
    selector: str | None = Field(
        None, max_length=1024, description="Label selector of the replicas, for the scale subresource."
    )
    quantization: QuantizationReport | None = Field(None, description="What quantization did to the present model.")
    quantization_job: QuantizationJobStatus | None = Field(None, description="How that job is.")
    model: str | None = Field(None, max_length=1024, description="Address of the model that every replica serves.")
    canary: CanaryReport | None = Field(None, description="The new model that serves beside the one before.")
    returned: ReturnedCanary | None = Field(None, description="The canary that was taken back last.")
    scaling: ScalingReport | None = Field(None, description="What autoscaling goes by, where the operator does it.")
    gateway_ready_replicas: int = Field(0, ge=0, description="Replicas of the gateway that answer.")
    adapters: list[str] = Field([], max_length=64, description="Adapters that every replica serves, by name.")
