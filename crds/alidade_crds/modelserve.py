"""ModelServe: a quantized model behind an inference server."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from alidade_crds.base import Name, Report, Spec, Uri, spec_config
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
        ("has(self.type) == (self.method == 'gguf')", "type is set with method gguf, and only then")
    )

    method: QuantizationMethod = Field(QuantizationMethod.NONE, description="How weights are made smaller.")
    type: str | None = Field(None, max_length=16, pattern=r"^[a-z0-9_]+$", description="GGUF type, such as q4_k_m.")
    calibration: Calibration | None = Field(None, description="Text for methods that are calibrated.")
    max_perplexity_increase: float | None = Field(
        None, gt=0, le=10, description="Refused when perplexity rises by more than this share, such as 0.05."
    )


class ServedAdapter(Spec):
    """A LoRA adapter served beside the base."""

    name: Name = Field(description="Name under which clients ask for it.")
    model: Model = Field(description="Where the adapter comes from.")


class AutoscalingTarget(Spec):
    """What the number of replicas follows."""

    queue_depth_per_replica: int = Field(4, ge=1, le=10000, description="Waiting requests per replica.")


class Autoscaling(Spec):
    """Replicas between two bounds."""

    model_config = spec_config(("self.min <= self.max", "min must not be greater than max"))

    min: int = Field(1, ge=0, le=1000, description="Fewest replicas.")
    max: int = Field(ge=1, le=1000, description="Most replicas.")
    target: AutoscalingTarget = Field(default_factory=AutoscalingTarget, description="What the number follows.")


class ServingLimits(Spec):
    """Bounds on requests; what exceeds them is refused, never queued without end."""

    model_config = spec_config(
        ("self.maxInputTokens < self.maxTotalTokens", "maxInputTokens must be less than maxTotalTokens")
    )

    max_input_tokens: int = Field(1024, ge=1, le=1048576, description="Longest prompt, in tokens.")
    max_total_tokens: int = Field(2048, ge=2, le=1048576, description="Longest prompt and answer together, in tokens.")
    max_concurrent_requests: int = Field(128, ge=1, le=65536, description="Requests at once; more are answered 429.")


class Auth(Spec):
    """Bearer keys."""

    secret_name: Name = Field(description="Secret whose values are the accepted keys.")


class Rollout(Spec):
    """How a new model takes over from the one before."""

    canary_percent: int = Field(0, ge=0, le=100, description="Share of requests that the new model gets, in percent.")
    previous: Literal["keep", "delete"] = Field("delete", description="What becomes of the model before.")


REPLICAS_RULE = ("!(has(self.replicas) && has(self.autoscaling))", "at most one of replicas, autoscaling may be set")


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
    compute: Compute = Field(default_factory=Compute, description="Where it runs.")


class ModelServeSpec(ServingBlocks):
    """A model and how it is served."""

    model_config = spec_config(REPLICAS_RULE)

    model: Model = Field(description="The model that is served.")


class ModelServeTemplate(ServingBlocks):
    """A ModelServe that an AlignmentRun makes, of the aligned model."""

    model_config = spec_config(REPLICAS_RULE)


class QuantizationReport(Report):
    """What quantization did."""

    method: str = Field(max_length=32, description="Method.")
    type: str | None = Field(None, max_length=16, description="GGUF type of the file.")
    uri: Uri | None = Field(None, description="Where the quantized model is.")
    sha256: str | None = Field(None, max_length=64, description="Of the file, in hexadecimal.")
    size_bytes: int = Field(ge=0, description="Size of the quantized weights, in bytes.")
    size_bytes_before: int | None = Field(None, ge=0, description="Size of the weights as they came, in bytes.")
    perplexity_before: float | None = Field(None, description="Perplexity of the model as it came.")
    perplexity_after: float | None = Field(None, description="Perplexity of the quantized model.")
    measured_on: str | None = Field(None, max_length=2048, description="The text of the perplexities, and how.")
    seconds: float | None = Field(None, ge=0, description="Time that quantizing took, measuring not counted.")

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
