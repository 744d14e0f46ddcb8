"""Evaluation: measures models, or a served endpoint, and says which is better."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, StringConstraints

from alidade_crds.base import Count, Name, Report, Spec, Text, Uri, spec_config
from alidade_crds.blocks import Compute, DataFormat, Model, Output, Precision, RewardFunction
from alidade_crds.jobs import JobBlocks
from alidade_crds.status import JobStatus

EVERY_MODEL = "*"
"""Stands for the model in results that are the same for all, such as those of the leak check; no model has the name."""


class EvaluatedModel(Spec):
    """A model under a name that tables and comparisons use."""

    model_config = spec_config(
        ("!has(self.model.init)", "a model with random weights cannot be measured: use uri or from")
    )

    name: Name = Field(description="Name in tables and comparisons.")
    model: Model = Field(description="Where its weights come from.")


class EndpointApi(StrEnum):
    """How an endpoint is spoken to."""

    AUTO = "auto"
    TGI = "tgi"
    OPENAI = "openai"


class Endpoint(Spec):
    """A served model: exactly one of modelServe, url."""

    model_config = spec_config(
        ("has(self.modelServe) != has(self.url)", "exactly one of modelServe, url must be set"),
        ("!has(self.url) || self.url.matches('^https?://.+')", "url must start with http:// or https://"),
    )

    name: Name = Field("endpoint", description="Name in tables.")
    model_serve: Name | None = Field(None, description="A ModelServe of this namespace.")
    url: Uri | None = Field(None, description="Address of a text-generation-inference or OpenAI-compatible server.")
    api: EndpointApi = Field(
        EndpointApi.AUTO, description="tgi asks /generate, openai /v1/chat/completions; auto finds out which is there."
    )
    model: str | None = Field(
        None, max_length=256, description="Model that is asked for; default: the first that the server lists."
    )
    secret_name: Name | None = Field(None, description="Secret whose key api-key is sent as bearer token.")
    concurrency: int = Field(8, ge=1, le=256, description="Most questions that are asked at the same time.")
    timeout_seconds: int = Field(60, ge=1, le=3600, description="Seconds an answer may take.")
    retries: int = Field(
        4, ge=0, le=20, description="Times a question is asked again, with growing delays, when no answer came."
    )


class SuiteType(StrEnum):
    """What a suite measures."""

    GENERATION = "generation"
    RANKING = "ranking"
    PERPLEXITY = "perplexity"
    REWARD = "reward"
    DIVERSITY = "diversity"
    QUESTIONS = "questions"
    CUSTOM = "custom"
    HARNESS = "harness"
    ARENA = "arena"


LEAKED, FAILED, UNFINISHED = "leaked", "failed", "unfinished"
"""Metrics that any suite may have: share of prompts found in the training data, of samples without an answer, of
answers that the limit cut off."""
SUITE_METRICS: dict[SuiteType, tuple[str, ...]] = {
    SuiteType.GENERATION: ("bleu", "rouge1", "rouge2", "rougeL", "exact_match", "f1"),
    SuiteType.RANKING: ("mrr", "map", "hits1"),
    SuiteType.PERPLEXITY: ("perplexity", "bits_per_byte"),
    SuiteType.REWARD: ("mean",),
    SuiteType.DIVERSITY: ("msttr100", "distinct1", "distinct2", "unique1", "unique2", "mean_length"),
    SuiteType.QUESTIONS: ("correct",),
    SuiteType.ARENA: ("elo", "win_rate"),
}
"""Metrics of the suites; what a task of the harness or a function of the user's measures is not known beforehand."""


class Judge(Spec):
    """A model behind an OpenAI-compatible server that says which of two answers is better."""

    model_config = spec_config(("self.url.matches('^https?://.+')", "url must start with http:// or https://"))

    url: Uri = Field(description="Address of the server.")
    model: str | None = Field(
        None, max_length=256, description="Model that is asked for; default: the first that the server lists."
    )
    secret_name: Name | None = Field(None, description="Secret whose key api-key is sent as bearer token.")
    instructions: Text | None = Field(
        None, description="What makes an answer better, in words; default: helpful, correct, to the point."
    )
    concurrency: int = Field(8, ge=1, le=256, description="Most verdicts that are asked for at the same time.")


class Question(Spec):
    """A question with the answers that count as right."""

    ask: str = Field(min_length=1, max_length=4096, description="The question.")
    expect: list[Annotated[str, StringConstraints(min_length=1, max_length=1024)]] = Field(
        min_length=1, max_length=16, description="Answers of which one is enough."
    )
    match: Literal["exact", "contains", "regex"] = Field(
        "exact",
        description="Whether the answer has to be one of them, to have one in it, or to match one as a regular "
        "expression; exact and contains overlook case, outer punctuation and width of signs.",
    )


class Suite(Spec):
    """One set of measurements."""

    model_config = spec_config(
        (
            "self.type in ['harness', 'questions'] || has(self.dataset)",
            "dataset is needed by every suite but harness and questions",
        ),
        (
            "self.type != 'harness' || self.tasks.size() > 0",
            "tasks is needed by the harness suite",
        ),
        ("self.type == 'harness' || self.tasks.size() == 0", "tasks is for the harness suite"),
        (
            "(self.type == 'questions') == (self.questions.size() > 0)",
            "questions is needed by, and only for, type questions",
        ),
        ("(self.type == 'custom') == has(self.entryPoint)", "entryPoint is needed by, and only for, type custom"),
        ("self.type == 'arena' || !has(self.judge)", "judge is for the arena suite"),
        (
            "!has(self.rewardModel) || !has(self.rewardModel.init)",
            "rewardModel.init has learned nothing: name a trained reward model by uri or from",
        ),
        (
            "self.template in ['auto', 'alpaca', 'llama2', 'chatml', 'none'] || self.template.contains('{')",
            "template must be auto, alpaca, llama2, chatml, none, or a Jinja template",
        ),
        (
            "self.type in ['reward', 'arena'] || (!has(self.rewardModel) && !has(self.__function__))",
            "rewardModel and function are for the suites reward and arena",
        ),
        (
            "[has(self.rewardModel), has(self.__function__), has(self.judge)].filter(given, given).size() <= 1",
            "at most one of rewardModel, function, judge can be set",
        ),
        (
            "(has(self.__function__) && self.__function__ == 'regex') == has(self.pattern)",
            "pattern is set with function regex, and only then",
        ),
    )

    name: Name | None = Field(None, description="Name in the results; default: its type.")
    type: SuiteType = Field(description="What is measured.")
    dataset: Uri | None = Field(
        None,
        description="A file or folder of prompts with what the suite needs: answers (generation), candidate answers "
        "with scores (ranking), or texts (perplexity). Addresses as of a training job's dataset.",
    )
    format: DataFormat = Field(DataFormat.AUTO, description="Shape of its records.")
    template: Text = Field(
        "auto",
        description="How a conversation becomes text: auto (the tokenizer's own, else chatml), alpaca, llama2, chatml, "
        "none, or an inline Jinja template.",
    )
    limit: int | None = Field(None, ge=1, description="Most records that are measured: the first ones.")
    metrics: list[Annotated[str, StringConstraints(min_length=1, max_length=63)]] = Field(
        [], max_length=32, description="Metrics that are reported; default: all that the suite has."
    )
    max_new_tokens: int = Field(256, ge=1, le=32768, description="Longest answer, in tokens.")
    temperature: float = Field(0.0, ge=0, le=10, description="Sampling temperature; 0 takes the likeliest tokens.")
    top_p: float = Field(1.0, gt=0, le=1, description="Probability that the tokens drawn from reach together.")
    normalization: Literal["tokens", "bytes", "none"] = Field(
        "tokens", description="What a candidate's log-likelihood is divided by before candidates are ranked."
    )
    window: int | None = Field(
        None, ge=2, le=4194304, description="Tokens seen at once by perplexity; default: the model's context."
    )
    stride: int | None = Field(
        None, ge=1, le=4194304, description="Tokens the window moves on; default: half of the window."
    )
    reward_model: Model | None = Field(None, description="Reward model of the suites reward and arena.")
    function: RewardFunction | None = Field(None, description="A reward that a program gives, instead of a model.")
    pattern: str | None = Field(None, max_length=1024, description="The regular expression of function regex.")
    judge: Judge | None = Field(None, description="Judge of the arena, instead of a reward.")
    tie_margin: float = Field(
        0.0, ge=0, le=1000, description="Difference of rewards up to which the arena calls two answers a tie."
    )
    questions: list[Question] = Field([], max_length=64, description="Questions of type questions.")
    entry_point: str | None = Field(
        None,
        max_length=256,
        pattern=r"^[\w.]+:[\w.]+$",
        description="A Python function inside the image, as module:function, that scores answers.",
    )
    tasks: list[Annotated[str, StringConstraints(min_length=1, max_length=128)]] = Field(
        [], max_length=64, description="Tasks of lm-evaluation-harness."
    )
    task_folder: Uri | None = Field(None, description="A folder of own tasks for lm-evaluation-harness, in YAML.")
    few_shot: int | None = Field(
        None, ge=0, le=64, description="Examples in front of each harness question; default: what the task says."
    )

    @property
    def title(self) -> str:
        """Its name in the results."""
        return self.name or str(self.type)


class LeakCheck(Spec):
    """Looks for the suites' prompts in the data that the models were trained on."""

    training_data: list[Uri] = Field(
        [],
        max_length=16,
        description="Files or folders that were trained on; a run's own data by default.",
    )
    ngram: int = Field(
        8, ge=2, le=64, description="Words, or signs of scripts without spaces, that are compared at once."
    )
    similarity: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity of n-grams from which a prompt counts as a near-duplicate."
    )


class EvaluationBlocks(JobBlocks):
    """What an evaluation measures, but the models."""

    baseline: Name | None = Field(None, description="The model that the others are compared with; default: the first.")
    suites: list[Suite] = Field(min_length=1, max_length=32, description="What is measured.")
    leak_check: LeakCheck | None = Field(None, description="Looks for test prompts in the training data.")
    precision: Precision | None = Field(
        None, description="Number format of the models; default: bf16 on GPUs, fp32 on the CPU."
    )
    seed: int = Field(0, ge=0, le=4294967295, description="Seed of sampling and of the bootstrap.")
    compute: Compute = Field(default_factory=Compute, description="Where the job runs; workers share the prompts.")
    output: Output | None = Field(None, description="Where the results go; default: the workspace volume.")


SHARED_OUTPUT_RULE = (
    "self.compute.workers == 1 || !has(self.output) || !self.output.uri.matches('^(s3|gs)://')",
    "output.uri must be a volume (pvc://) with more than one of compute.workers: they share their samples there",
)
UNIQUE_SUITES_RULE = (
    "self.suites.all(one, self.suites.exists_one(other, "
    "(has(other.name) ? other.name : other.type) == (has(one.name) ? one.name : one.type)))",
    "suites need names of their own; a suite without one is named by its type",
)


class EvaluationSpec(EvaluationBlocks):
    """Models or an endpoint, and the suites they are measured on."""

    model_config = spec_config(
        ("(self.models.size() > 0) != has(self.endpoint)", "exactly one of models, endpoint must be set"),
        (
            "self.suites.all(suite, suite.type != 'reward' || has(suite.rewardModel) || has(suite.__function__))",
            "rewardModel or function is needed by the reward suite",
        ),
        (
            "self.suites.all(suite, suite.type != 'arena' || has(suite.rewardModel) || has(suite.__function__) || "
            "has(suite.judge))",
            "rewardModel, function or judge is needed by the arena suite",
        ),
        (
            "self.models.size() >= 2 || self.suites.all(suite, suite.type != 'arena')",
            "the arena suite needs at least two models",
        ),
        (
            "!has(self.endpoint) || self.suites.all(suite, !(suite.type in ['ranking', 'perplexity', 'harness']))",
            "ranking, perplexity and harness need log-probabilities that an endpoint does not give: name the model "
            "itself in models",
        ),
        (
            "!has(self.baseline) || self.models.exists(one, one.name == self.baseline)",
            "baseline must be the name of one of the models",
        ),
        (
            "self.models.all(one, self.models.exists_one(other, other.name == one.name))",
            "models need names of their own",
        ),
        UNIQUE_SUITES_RULE,
        SHARED_OUTPUT_RULE,
    )

    models: list[EvaluatedModel] = Field([], max_length=32, description="Models that are measured one after the other.")
    endpoint: Endpoint | None = Field(None, description="A served model that is measured.")

    def model_names(self) -> list[str]:
        """Names of what is measured, in order."""
        return [self.endpoint.name] if self.endpoint is not None else [one.name for one in self.models]

    def compared_with(self) -> str:
        """Name of the model that the others are compared with."""
        return self.baseline or self.model_names()[0]


class EvaluationTemplate(EvaluationBlocks):
    """An Evaluation that an AlignmentRun makes, of its models `sft` and `aligned`.

    A reward or arena suite that names no reward takes the run's first. A leak check that names no training data takes
    the run's.
    """

    model_config = spec_config(
        UNIQUE_SUITES_RULE,
        SHARED_OUTPUT_RULE,
        (
            "self.models.all(one, !(one.name in ['sft', 'aligned']))",
            "models must not be named sft or aligned, as the run's own are",
        ),
    )

    models: list[EvaluatedModel] = Field([], max_length=30, description="Further models that are measured.")


Verdict = Literal["better", "worse", "indistinguishable"]


class EvaluationResult(Report):
    """One measured number."""

    suite: str = Field(max_length=63, description="Suite.")
    metric: str = Field(max_length=63, description="Metric.")
    model: str = Field(max_length=63, description="Model; * for what is the same for all.")
    value: FiniteFloat = Field(description="The measured value.")
    low: FiniteFloat | None = Field(None, description="Lower end of the 95 % interval.")
    high: FiniteFloat | None = Field(None, description="Upper end of the 95 % interval.")
    n: Count = Field(description="Samples.")
    verdict: Verdict | None = Field(None, description="Against the baseline, at the 95 % level.")
    difference_low: FiniteFloat | None = Field(
        None, description="Lower end of the 95 % interval of the difference from the baseline, on the same samples."
    )
    difference_high: FiniteFloat | None = Field(None, description="Upper end of that interval.")


class EvaluationStatus(JobStatus):
    """What an Evaluation has come to."""

    baseline: str | None = Field(None, max_length=63, description="The model that the others are compared with.")
    results: list[EvaluationResult] = Field([], max_length=1024, description="The measured numbers.")
    omitted: int | None = Field(
        None, ge=0, description="Numbers that results.json has and that found no room here; the last ones."
    )
    verdict: str | None = Field(
        None, max_length=256, description="Verdicts counted, such as `aligned: 7 better, 1 worse, 2 indistinguishable`."
    )
    done: str | None = Field(None, max_length=63, description="Samples measured of those there are, such as 120/960.")
