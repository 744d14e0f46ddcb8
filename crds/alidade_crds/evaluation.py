"""Evaluation: measures models, or a served endpoint, and says which is better."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from alidade_crds.base import Name, Report, Spec, Uri, spec_config
from alidade_crds.blocks import Compute, DataFormat, Model, Output
from alidade_crds.jobs import RunPolicy
from alidade_crds.status import ChildRef, ResourceStatus


class EvaluatedModel(Spec):
    """A model under a name that tables and comparisons use."""

    name: Name = Field(description="Name in tables and comparisons.")
    model: Model = Field(description="Where its weights come from.")


class Endpoint(Spec):
    """A served model: exactly one of modelServe, url."""

    model_config = spec_config(("has(self.modelServe) != has(self.url)", "exactly one of modelServe, url must be set"))

    model_serve: Name | None = Field(None, description="A ModelServe of this namespace.")
    url: Uri | None = Field(None, description="Address of a text-generation-inference or OpenAI-compatible server.")


class SuiteType(StrEnum):
    """What a suite measures."""

    GENERATION = "generation"
    RANKING = "ranking"
    PERPLEXITY = "perplexity"
    REWARD = "reward"
    DIVERSITY = "diversity"
    HARNESS = "harness"
    ARENA = "arena"


class Suite(Spec):
    """One set of measurements."""

    model_config = spec_config(
        ("self.type == 'harness' || has(self.dataset)", "dataset is needed by every suite but harness"),
        (
            "self.type != 'harness' || (has(self.tasks) && self.tasks.size() > 0)",
            "tasks is needed by the harness suite",
        ),
    )

    name: Name | None = Field(None, description="Name in the results; default: its type.")
    type: SuiteType = Field(description="What is measured.")
    dataset: Uri | None = Field(None, description="Prompts with what the suite needs: references, candidates, texts.")
    format: DataFormat = Field(DataFormat.AUTO, description="Shape of its records.")
    limit: int | None = Field(None, ge=1, description="Most samples that are measured.")
    reward_model: Model | None = Field(None, description="Reward model of the reward and arena suites.")
    tasks: list[Annotated[str, StringConstraints(min_length=1, max_length=128)]] = Field(
        [], max_length=64, description="Tasks of lm-evaluation-harness."
    )
    few_shot: int = Field(0, ge=0, le=64, description="Examples in front of each harness question.")
    max_new_tokens: int = Field(256, ge=1, le=32768, description="Longest answer, in tokens.")


class EvaluationBlocks(RunPolicy):
    """What an evaluation measures, but the models."""

    baseline: Name | None = Field(None, description="The model that the others are compared with; default: the first.")
    suites: list[Suite] = Field(min_length=1, max_length=32, description="What is measured.")
    compute: Compute = Field(default_factory=Compute, description="Where the job runs.")
    output: Output | None = Field(None, description="Where the results go; default: the workspace volume.")


class EvaluationSpec(EvaluationBlocks):
    """Models or an endpoint, and the suites they are measured on."""

    model_config = spec_config(
        ("(self.models.size() > 0) != has(self.endpoint)", "exactly one of models, endpoint must be set"),
        (
            "self.suites.all(suite, suite.type != 'reward' || has(suite.rewardModel))",
            "rewardModel is needed by the reward suite",
        ),
    )

    models: list[EvaluatedModel] = Field([], max_length=32, description="Models that are measured one after the other.")
    endpoint: Endpoint | None = Field(None, description="A served model that is measured.")


class EvaluationTemplate(EvaluationBlocks):
    """An Evaluation that an AlignmentRun makes, of its models `sft` and `aligned`.

    A reward suite that names no reward model takes the run's first.
    """

    models: list[EvaluatedModel] = Field([], max_length=30, description="Further models that are measured.")


class EvaluationResult(Report):
    """One measured number."""

    suite: str = Field(max_length=63, description="Suite.")
    metric: str = Field(max_length=63, description="Metric.")
    model: str = Field(max_length=63, description="Model.")
    value: float = Field(description="The measured value.")
    low: float | None = Field(None, description="Lower end of the 95 % interval.")
    high: float | None = Field(None, description="Upper end of the 95 % interval.")
    n: int = Field(ge=0, description="Samples.")
    verdict: Literal["better", "worse", "indistinguishable"] | None = Field(None, description="Against the baseline.")


class EvaluationStatus(ResourceStatus):
    """What an Evaluation has come to."""

    results: list[EvaluationResult] = Field([], max_length=1024, description="The measured numbers.")
    report_uri: Uri | None = Field(None, description="The HTML report.")
    job_ref: ChildRef | None = Field(None, description="The job of the present attempt.")
