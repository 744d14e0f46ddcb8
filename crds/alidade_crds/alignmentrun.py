"""AlignmentRun: SFT, reward models, RAFT or PPO or DPO, evaluation, gate and serving as one resource."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from alidade_crds.base import Name, Report, Spec, Uri, spec_config
from alidade_crds.blocks import (
    Adapter,
    Checkpoint,
    Compute,
    DeepSpeed,
    Model,
    Output,
    RewardFunction,
    Tracking,
    Training,
)
from alidade_crds.evaluation import EvaluationTemplate
from alidade_crds.jobs import (
    ADAPTER_RULES,
    BATCH_RULES,
    PROCESSES,
    SCALE_RULES,
    FineTuneJobSpec,
    RewardTemplate,
    RunPolicy,
)
from alidade_crds.modelserve import ModelServeTemplate
from alidade_crds.publishing import Publish
from alidade_crds.status import JobStatus, ModelInfo
from alidade_crds.text_dataset import CleanDataset


class LocalRef(Spec):
    """A resource of the same namespace."""

    name: Name = Field(description="Its name.")


# A stage that went before its run would be made again.
_LIFETIME_RULE = (
    "!has(self.template) || !has(self.template.ttlSecondsAfterFinished)",
    "template.ttlSecondsAfterFinished cannot be set: a stage stays as long as its run; set that of the run",
)


class SftStage(Spec):
    """The model that alignment starts from: exactly one of template, ref, model."""

    model_config = spec_config(
        (
            "[has(self.template), has(self.ref), has(self.model)].filter(given, given).size() == 1",
            "exactly one of template, ref, model must be set",
        ),
        (
            "!has(self.model) || !has(self.model.init)",
            "sft.model.init has learned nothing yet: train it in sft.template, or name a trained model",
        ),
        _LIFETIME_RULE,
    )

    template: FineTuneJobSpec | None = Field(None, description="A FineTuneJob that the run makes.")
    ref: LocalRef | None = Field(None, description="An existing FineTuneJob.")
    model: Model | None = Field(None, description="A model that needs no training.")


class RewardSource(Spec):
    """One reward: exactly one of template, ref, model, function, entryPoint."""

    model_config = spec_config(
        (
            # "function" is a word of CEL's own, which a rule escapes.
            "[has(self.template), has(self.ref), has(self.model), has(self.__function__), has(self.entryPoint)]"
            ".filter(given, given).size() == 1",
            "exactly one of template, ref, model, function, entryPoint must be set",
        ),
        (
            "(has(self.__function__) && self.__function__ == 'regex') == has(self.pattern)",
            "pattern is set with function regex, and only then",
        ),
        ("!has(self.model) || !has(self.model.init)", "a reward model needs trained weights: model.uri or model.from"),
        _LIFETIME_RULE,
        (
            "!(self.name in ['sft', 'align', 'evaluation', 'gate', 'serve', 'eval']) && "
            "!self.name.matches('(-raft|-ppo|-dpo)$')",
            "name is that of another stage; choose another one, such as helpfulness",
        ),
        ("!self.name.contains('.')", "name must have no dots: pods are named after it"),
    )

    name: Name = Field(description="Name in metrics.")
    template: RewardTemplate | None = Field(None, description="A RewardModel that the run makes.")
    ref: LocalRef | None = Field(None, description="An existing RewardModel.")
    model: Model | None = Field(None, description="A reward model that needs no training.")
    function: RewardFunction | None = Field(None, description="A reward that a program gives.")
    entry_point: str | None = Field(
        None,
        max_length=256,
        pattern=r"^[\w.]+:[\w.]+$",
        description="A Python function inside the image, as module:function.",
    )
    pattern: str | None = Field(None, max_length=1024, description="The regular expression of function regex.")
    weight: float = Field(1.0, ge=-1000, le=1000, description="Factor in the weighted sum.")


class RaftStep(Spec):
    """Reward-ranked fine-tuning (Dong et al. 2023, algorithm 1)."""

    model_config = spec_config(
        (
            "self.acceptance != 'bestOfK' || self.samplesPerPrompt >= 2",
            "acceptance bestOfK needs samplesPerPrompt of at least 2",
        )
    )

    iterations: int = Field(8, ge=1, le=10000, description="Rounds of sampling, ranking and fine-tuning.")
    prompts_per_iteration: int = Field(1024, ge=1, le=1048576, description="Prompts sampled in each round.")
    samples_per_prompt: int = Field(8, ge=1, le=1024, description="Answers sampled for each prompt.")
    acceptance: Literal["bestOfK", "globalTop"] = Field(
        "bestOfK",
        description="bestOfK keeps the best answer of each prompt, globalTop the best share of the whole batch.",
    )
    acceptance_ratio: float = Field(0.125, gt=0, le=1, description="Share of samples that globalTop keeps.")
    temperature: float = Field(0.85, gt=0, le=10, description="Sampling temperature.")
    replay_previous_iterations: bool = Field(
        True, description="Whether the best samples of earlier rounds stay in the data."
    )
    kl_coefficient: float = Field(
        0.0, ge=0, le=100, description="Weight of the divergence from the start model in the reward."
    )
    epochs_per_iteration: float = Field(1, gt=0, le=100, description="Passes over the accepted samples in each round.")


class KlPenalty(Spec):
    """Penalty on the divergence from the reference model."""

    coefficient: float = Field(0.01, ge=0, le=100, description="Weight; the start value when target is set.")
    target: float | None = Field(
        None, gt=0, le=1000, description="Divergence in nats per answer that an adaptive weight aims at."
    )
    estimator: Literal["k1", "k2", "k3"] = Field("k1", description="Estimator of the per-token divergence.")


class PpoStep(Spec):
    """Proximal policy optimization (Schulman et al. 2017; InstructGPT)."""

    model_config = spec_config(
        ("self.rolloutBatchSize % self.miniBatchSize == 0", "rolloutBatchSize must be a multiple of miniBatchSize")
    )

    iterations: int = Field(200, ge=1, le=1000000, description="Rounds of sampling and optimisation.")
    rollout_batch_size: int = Field(512, ge=1, le=1048576, description="Answers sampled in each round.")
    mini_batch_size: int = Field(64, ge=1, le=65536, description="Answers per optimizer step.")
    epochs: int = Field(1, ge=1, le=100, description="Passes over the answers of a round.")
    clip: float = Field(0.2, gt=0, lt=1, description="How far the probability ratio may leave 1.")
    value_clip: float = Field(0.2, gt=0, le=100, description="How far a value may leave the one at sampling time.")
    gamma: float = Field(1.0, gt=0, le=1, description="Discount per token.")
    lambda_: float = Field(0.95, ge=0, le=1, alias="lambda", description="Decay of generalized advantage estimation.")
    kl: KlPenalty = Field(default_factory=KlPenalty, description="Penalty on the divergence from the reference.")
    entropy_coefficient: float = Field(0.0, ge=0, le=10, description="Weight of the entropy bonus.")
    whiten_advantages: bool = Field(True, description="Whether advantages are scaled to mean 0 and variance 1.")
    whiten_rewards: bool = Field(False, description="Whether rewards are scaled to variance 1.")
    missing_eos_penalty: float = Field(
        1.0, ge=0, le=1000, description="Taken from the reward of an answer that does not end."
    )
    stop_at_kl: float | None = Field(
        None, gt=0, le=10000, description="Divergence in nats per answer at which the step stops."
    )
    temperature: float = Field(1.0, gt=0, le=10, description="Sampling temperature.")


class DpoStep(Spec):
    """Direct preference optimization (Rafailov et al. 2023)."""

    beta: float = Field(0.1, gt=0, le=100, description="Strength of the tie to the reference.")
    dataset: CleanDataset = Field(description="Preferences.")


class AlignStep(Spec):
    """One step of alignment: exactly one of raft, ppo, dpo."""

    model_config = spec_config(
        (
            "[has(self.raft), has(self.ppo), has(self.dpo)].filter(given, given).size() == 1",
            "exactly one of raft, ppo, dpo must be set",
        )
    )

    raft: RaftStep | None = Field(None, description="Reward-ranked fine-tuning.")
    ppo: PpoStep | None = Field(None, description="Proximal policy optimization.")
    dpo: DpoStep | None = Field(None, description="Direct preference optimization.")


class Generation(Spec):
    """How answers are sampled."""

    max_new_tokens: int = Field(256, ge=1, le=32768, description="Longest answer, in tokens.")
    engine: Literal["auto", "native", "vllm"] = Field("auto", description="Sampling engine.")


class OverOptimization(Spec):
    """Stops a step whose own reward rises while a score it does not train on falls (Gao et al. 2022)."""

    function: RewardFunction = Field(
        RewardFunction.EXACT_MATCH, description="Score of the answers to prompts.validation, against their references."
    )
    tolerance: float = Field(
        0.05, ge=0, le=1000, description="How far the score may fall below its best before that counts."
    )
    patience: int = Field(2, ge=1, le=1000, description="Iterations in a row that may be below.")


class Guardrails(Spec):
    """What stops an alignment step before it spoils the model; the newest sound iteration is kept."""

    kl_ceiling: float | None = Field(
        None, gt=0, le=10000, description="Divergence from the start model in nats per answer at which a step stops."
    )
    min_length_ratio: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of the first mean answer length below which answers have collapsed.",
    )
    min_diversity_ratio: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of the first rate of distinct bigrams below which answers have collapsed.",
    )
    over_optimization: OverOptimization | None = Field(
        None, description="Watches a score that is not trained on; needs prompts.validation with references."
    )


class EvaluationStage(Spec):
    """An Evaluation that the run makes."""

    template: EvaluationTemplate = Field(description="Its spec.")


class ServeStage(Spec):
    """A ModelServe that the run makes once the gate has passed."""

    template: ModelServeTemplate = Field(description="Its spec.")


class Bound(Spec):
    """A number, or one relative to a baseline model: exactly one of value, baseline."""

    model_config = spec_config(("has(self.value) != has(self.baseline)", "exactly one of value, baseline must be set"))

    value: float | None = Field(None, description="The bound itself.")
    baseline: Name | None = Field(None, description="The model whose value is the bound.")
    plus: float = Field(0.0, description="Added to the baseline's value.")
    times: float = Field(1.0, description="Multiplied with the baseline's value, before plus.")


class GateRule(Spec):
    """What a metric must reach: at least one of atLeast, atMost."""

    model_config = spec_config(("has(self.atLeast) || has(self.atMost)", "at least one of atLeast, atMost must be set"))

    metric: str = Field(
        max_length=127, description="Metric of the evaluation, alone or with its suite in front, as suite.metric."
    )
    at_least: Bound | None = Field(None, description="Lower bound.")
    at_most: Bound | None = Field(None, description="Upper bound.")
    significant: bool = Field(
        False,
        description="Whether the 95 % interval has to be within the bound, and not the value alone: that of the "
        "difference, where the bound is relative to the evaluation's baseline without times, else the metric's own.",
    )


class AlignmentRunSpec(RunPolicy):
    """The chain from demonstrations to a served, aligned model."""

    model_config = spec_config(
        ("self.gate.size() == 0 || has(self.evaluation)", "gate needs evaluation"),
        (
            "self.gate.size() == 0 || !has(self.publish)",
            "publish cannot be set with a gate, which has to be passed first: set it in the gate's place once it is",
        ),
        (
            "self.combine != 'gated' || self.rewardModels.size() == 2",
            "combine gated needs exactly two rewardModels: the safety reward, then the helpfulness reward",
        ),
        (
            "self.align.all(step, has(step.dpo)) || (self.rewardModels.size() > 0 && has(self.prompts))",
            "raft and ppo need rewardModels and prompts",
        ),
        (
            "self.rewardModels.all(one, self.rewardModels.exists_one(other, other.name == one.name))",
            "rewardModels need names of their own",
        ),
        (
            "!has(self.guardrails.overOptimization) || (has(self.prompts) && has(self.prompts.validation))",
            "guardrails.overOptimization needs prompts.validation: held-out prompts with their answers",
        ),
        (
            "!has(self.training.earlyStopping)",
            "training.earlyStopping is for training jobs; guardrails stop an alignment",
        ),
        (
            "!has(self.training.spikeRecovery)",
            "training.spikeRecovery is for training jobs; guardrails stop an alignment",
        ),
        (
            "!has(self.prompts) || self.prompts.mix.size() == 0",
            "prompts.mix cannot be used: an alignment takes one set of prompts",
        ),
        *BATCH_RULES,
        *SCALE_RULES,
        *ADAPTER_RULES,
        (
            "!self.training.compile && self.training.kernels == 'torch' && !has(self.deepspeed.zeroPlusPlus)",
            "training.compile, training.kernels liger and deepspeed.zeroPlusPlus are for FineTuneJobs and "
            "RewardModels: an alignment draws its answers from the weights themselves",
        ),
        (
            "self.adapter.type != 'qlora'",
            "adapter.type qlora is for FineTuneJobs and RewardModels: an alignment draws its answers from whole "
            "weights; use lora",
        ),
        (
            f"self.align.all(step, !has(step.ppo) || step.ppo.miniBatchSize % {PROCESSES} == 0)",
            "ppo.miniBatchSize must be a multiple of the training processes: compute.workers times processesPerWorker, "
            "which is gpusPerWorker, or 1 on CPUs, where it is not set",
        ),
    )

    sft: SftStage = Field(description="The model that alignment starts from.")
    reward_models: list[RewardSource] = Field([], max_length=8, description="The rewards.")
    combine: Literal["weightedSum", "gated"] = Field(
        "weightedSum",
        description="How several rewards become one; gated is Llama 2's rule of safety before helpfulness.",
    )
    prompts: CleanDataset | None = Field(None, description="Prompts that answers are sampled for.")
    align: list[AlignStep] = Field(
        min_length=1, max_length=8, description="Steps in order, each from the model of the one before."
    )
    generation: Generation = Field(default_factory=Generation, description="How answers are sampled.")
    guardrails: Guardrails = Field(default_factory=Guardrails, description="What stops a step that goes wrong.")
    training: Training = Field(default_factory=Training, description="Optimisation of the alignment stage.")
    adapter: Adapter = Field(default_factory=Adapter, description="LoRA, or all weights, in the alignment stage.")
    deepspeed: DeepSpeed = Field(
        default_factory=DeepSpeed, description="How the alignment stage is spread over processes."
    )
    compute: Compute = Field(default_factory=Compute, description="Where the alignment stage runs.")
    checkpoint: Checkpoint = Field(
        default_factory=Checkpoint, description="What the alignment stage keeps to resume from."
    )
    tracking: Tracking | None = Field(None, description="Experiment tracker of the alignment stage.")
    output: Output | None = Field(None, description="Where the aligned model goes; default: the workspace volume.")
    publish: Publish | None = Field(
        None, description="Where the aligned model is made known beside its output; not with a gate."
    )
    evaluation: EvaluationStage | None = Field(None, description="How the result is measured.")
    gate: list[GateRule] = Field([], max_length=32, description="What the result must reach to be served.")
    serve: ServeStage | None = Field(None, description="How the result is served.")


StageKind = Literal["FineTuneJob", "RewardModel", "AlignmentRun", "Alignment", "Evaluation", "Gate", "ModelServe"]


class StageStatus(Report):
    """One stage of a run."""

    name: str = Field(max_length=63, description="Stage.")
    kind: Literal["FineTuneJob", "RewardModel", "AlignmentRun", "Alignment", "Evaluation", "Gate", "ModelServe"] = (
        Field(description="What runs it.")
    )
    ref: str | None = Field(None, max_length=253, description="Name of the resource.")
    phase: str = Field(max_length=32, description="Summary.")
    reused: bool = Field(False, description="Whether an earlier result with the same inputs was taken.")
    inputs: str | None = Field(None, max_length=64, description="Hash of all that decides the stage's result.")
    model: ModelInfo | None = Field(None, description="The model that came out.")
    started_at: datetime | None = Field(None, description="When it began.")
    finished_at: datetime | None = Field(None, description="When it ended.")
    active_seconds: float | None = Field(None, ge=0, description="Seconds that it ran, suspended time not counted.")
    gpu_hours: float | None = Field(None, ge=0, description="GPUs times hours that this run has held for it.")
    cost: str | None = Field(None, max_length=64, description="gpuHours at the node pool's price, with the currency.")
    metrics: dict[str, float] = Field({}, description="Newest metrics.")


class DataDigest(Report):
    """What a ConfigMap's key held when the run took it up."""

    uri: Uri = Field(description="Address.")
    digest: str = Field(max_length=128, description="sha256 of the content.")


class AlignmentRunStatus(JobStatus):
    """What an AlignmentRun has come to; progress, attempts and failures are those of its alignment job."""

    steps: str | None = Field(None, max_length=128, description="Steps of the alignment in order, such as raft,ppo.")
    stage: str | None = Field(None, max_length=63, description="The stage that the run is at.")
    done: str | None = Field(
        None,
        max_length=63,
        description="What that stage has done of what it has to do: optimizer steps, or iterations of an alignment.",
    )
    reward: float | None = Field(None, description="Newest mean reward, on held-out prompts where there are any.")
    stages: list[StageStatus] = Field([], max_length=32, description="The stages in order.")
    data: list[DataDigest] = Field(
        [],
        max_length=64,
        description="ConfigMap data that the run was planned with; a change of it is taken up with the next change of "
        "the spec.",
    )

    def stage_named(self, name: str) -> StageStatus | None:
        """The stage of that name, or None."""
        return next((stage for stage in self.stages if stage.name == name), None)
