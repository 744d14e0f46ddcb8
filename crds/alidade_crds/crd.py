"""The CustomResourceDefinitions of the five kinds."""

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from alidade_crds import GROUP, VERSION
from alidade_crds.alignmentrun import AlignmentRunSpec, AlignmentRunStatus
from alidade_crds.evaluation import EvaluationSpec, EvaluationStatus
from alidade_crds.jobs import FineTuneJobSpec, FineTuneJobStatus, RewardModelSpec, RewardModelStatus
from alidade_crds.modelserve import ModelServeSpec, ModelServeStatus
from alidade_crds.schema import structural_schema

# Pods are named <resource>-<attempt>-worker-<index>, within the 63 characters of a label.
NAME_LIMIT = 45


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; priority 1 shows it with -o wide only."""

    name: str
    path: str
    type: str = "string"
    description: str = ""
    priority: int = 0


@dataclass(frozen=True)
class Kind:
    """One custom resource: its names, types, columns and the rules about changes to it."""

    kind: str
    plural: str
    short_name: str
    description: str
    spec: type[BaseModel]
    status: type[BaseModel]
    columns: tuple[Column, ...]
    change_rules: tuple[tuple[str, str], ...] = ()
    name_rules: tuple[tuple[str, str], ...] = ()
    scale: dict[str, str] = field(default_factory=dict)

    @property
    def singular(self) -> str:
        """Singular name in the API's paths."""
        return self.kind.lower()


def frozen(path: str, *, optional: bool = False) -> tuple[str, str]:
    """The rule that a field of the spec keeps its first value: a running job could not take up another one."""
    same = f"self.{path} == oldSelf.{path}"
    rule = f"has(self.{path}) == has(oldSelf.{path}) && (!has(self.{path}) || {same})" if optional else same
    return rule, f"{path} cannot change after creation: delete the resource first, or apply it under a new name"


def not_of_itself(kind: str, model: str, *, guard: str = "") -> tuple[str, str]:
    """The rule that a resource does not wait for its own model. guard: true where there is no such model."""
    source = f"self.spec.{model}.from"
    rule = f"{guard}!has({source}) || {source}.kind != '{kind}' || {source}.name != self.metadata.name"
    return rule, f"spec.{model}.from names the {kind} itself: name another resource, or a model by its uri"


# `compute` and the run policy may change: the next attempt takes them up. `deepspeed.config` is free-form, which CEL
# does not see; the job document of the first launch stays in force.
_FROZEN_JOB = (
    *(frozen(path) for path in ("model", "dataset", "adapter", "training", "checkpoint")),
    frozen("deepspeed.zeroStage"),
    frozen("deepspeed.offload"),
    frozen("deepspeed.zeroPlusPlus", optional=True),
    frozen("output", optional=True),
)
_AGE = Column("Age", ".metadata.creationTimestamp", "date", "Time since creation")
_PHASE = Column("Phase", ".status.phase", description="Summary of the conditions")

KINDS: tuple[Kind, ...] = (
    Kind(
        kind="FineTuneJob",
        plural="finetunejobs",
        short_name="ftj",
        description="One training job: pretraining or supervised fine-tuning of a language model.",
        spec=FineTuneJobSpec,
        status=FineTuneJobStatus,
        columns=(
            Column("Method", ".spec.method", description="What it learns from"),
            Column("Model", ".spec.model.uri", description="Model it starts from", priority=1),
            _PHASE,
            Column("Step", ".status.progress.step", "integer", "Optimizer steps done"),
            Column("Of", ".status.progress.totalSteps", "integer", "Optimizer steps in all"),
            Column("Loss", ".status.progress.loss", "number", "Training loss, in nats per token"),
            Column("Tok/s", ".status.progress.tokensPerSecond", "number", "Tokens trained on per second"),
            Column("ETA", ".status.progress.eta", description="Time left"),
            Column("Attempts", ".status.attempts", "integer", "Times the job was launched", priority=1),
            Column("Output", ".status.model.uri", description="Where the model is", priority=1),
            _AGE,
        ),
        change_rules=(
            *_FROZEN_JOB,
            frozen("method"),
            frozen("vocabulary", optional=True),
            frozen("context", optional=True),
            frozen("ghostAttention", optional=True),
        ),
        name_rules=(not_of_itself("FineTuneJob", "model"),),
    ),
    Kind(
        kind="RewardModel",
        plural="rewardmodels",
        short_name="rm",
        description="One training job that makes a reward model from preferences.",
        spec=RewardModelSpec,
        status=RewardModelStatus,
        columns=(
            Column("Model", ".spec.model.uri", description="Model it starts from", priority=1),
            _PHASE,
            Column("Step", ".status.progress.step", "integer", "Optimizer steps done"),
            Column("Of", ".status.progress.totalSteps", "integer", "Optimizer steps in all"),
            Column("Loss", ".status.progress.loss", "number", "Ranking loss, in nats per pair"),
            Column("Accuracy", ".status.metrics.accuracy", "number", "Share of held-out pairs ranked rightly"),
            Column("ETA", ".status.progress.eta", description="Time left"),
            Column("Output", ".status.model.uri", description="Where the model is", priority=1),
            _AGE,
        ),
        change_rules=_FROZEN_JOB,
        name_rules=(not_of_itself("RewardModel", "model"),),
    ),
    Kind(
        kind="AlignmentRun",
        plural="alignmentruns",
        short_name="ar",
        description="A chain of SFT, reward models, RAFT or PPO or DPO, evaluation, gate and serving.",
        spec=AlignmentRunSpec,
        status=AlignmentRunStatus,
        columns=(
            Column("Steps", ".status.steps", description="Steps of the alignment"),
            Column("Stage", ".status.stage", description="The stage that the run is at"),
            _PHASE,
            Column("Done", ".status.done", description="Optimizer steps, or iterations, of that stage done"),
            Column("Reward", ".status.reward", "number", "Newest mean reward"),
            Column("Gate", '.status.conditions[?(@.type=="GatePassed")].status', description="Whether the gate passed"),
            Column("Cost", ".status.cost", description="Cost of all stages", priority=1),
            Column("Output", ".status.model.uri", description="Where the aligned model is", priority=1),
            _AGE,
        ),
        name_rules=(not_of_itself("AlignmentRun", "sft.model", guard="!has(self.spec.sft.model) || "),),
    ),
    Kind(
        kind="Evaluation",
        plural="evaluations",
        short_name="eval",  # "ev" is taken by Kubernetes' own events
        description="Measures models, or a served endpoint, and says which is better.",
        spec=EvaluationSpec,
        status=EvaluationStatus,
        columns=(
            Column("Baseline", ".status.baseline", description="Model that the others are compared with", priority=1),
            _PHASE,
            Column("Done", ".status.done", description="Samples measured of those there are"),
            Column("Verdict", ".status.verdict", description="Verdicts on the models, counted"),
            Column("Report", ".status.reportUri", description="Where the HTML report is", priority=1),
            _AGE,
        ),
        change_rules=(
            *(frozen(field) for field in ("models", "suites", "seed")),
            *(frozen(field, optional=True) for field in ("endpoint", "baseline", "leakCheck", "precision", "output")),
        ),
    ),
    Kind(
        kind="ModelServe",
        plural="modelserves",
        short_name="ms",
        description="A model, quantized if asked, behind an inference server.",
        spec=ModelServeSpec,
        status=ModelServeStatus,
        columns=(
            Column("Model", ".status.model", description="The model that is served", priority=1),
            Column("Engine", ".status.engine", description="Inference server"),
            Column("Quant", ".status.quantization.type", description="Type that the weights are quantized to"),
            Column("Phase", ".status.phase", description="Summary of the conditions"),
            Column("Ready", ".status.readyReplicas", "integer", "Replicas that answer"),
            Column("URL", ".status.url", description="Address of the endpoint"),
            _AGE,
        ),
        name_rules=(
            (
                "!has(self.spec.gateway) || !has(self.spec.gateway.arena) || !has(self.spec.gateway.arena.against) || "
                "self.spec.gateway.arena.against != self.metadata.name",
                "spec.gateway.arena.against names the ModelServe itself: name another one, or leave it out to compare "
                "a canary with the model before",
            ),
            (
                "self.spec.adapters.all(one, one.name != self.metadata.name)",
                "spec.adapters must not be named like the ModelServe itself, under which clients ask for its base",
            ),
        ),
        scale={
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    ),
)


def manifests() -> list[dict[str, Any]]:
    """The CustomResourceDefinitions of all kinds, ready to be applied."""
    return [crd_manifest(kind) for kind in KINDS]


def crd_manifest(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of one kind."""
    subresources: dict[str, Any] = {"status": {}}
    if kind.scale:
        subresources["scale"] = kind.scale
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{GROUP}",
            "labels": {"app.kubernetes.io/name": "alidade", "app.kubernetes.io/component": "crds"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.singular,
                "shortNames": [kind.short_name],
                "categories": ["alidade"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _root_schema(kind)},
                    "subresources": subresources,
                    "additionalPrinterColumns": [_column(column) for column in kind.columns],
                }
            ],
        },
    }


def _root_schema(kind: Kind) -> dict[str, Any]:
    spec = structural_schema(kind.spec)
    changes = [{"rule": rule, "message": message} for rule, message in kind.change_rules]
    spec["x-kubernetes-validations"] = [*spec.get("x-kubernetes-validations", []), *changes]
    if not spec["x-kubernetes-validations"]:
        del spec["x-kubernetes-validations"]
    return {
        "type": "object",
        "description": kind.description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Group and version of this type."},
            "kind": {"type": "string", "description": "Name of this type."},
            "metadata": {"type": "object"},
            "spec": spec,
            # Without, a resource that nobody has looked at yet would be as good as finished for kstatus.
            "status": structural_schema(kind.status) | {"default": {"observedGeneration": -1}},
        },
        "x-kubernetes-validations": [
            {
                "rule": f"self.metadata.name.size() <= {NAME_LIMIT}",
                "message": f"metadata.name may have at most {NAME_LIMIT} characters: names of pods are made from it",
            },
            {
                "rule": "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
                "message": "metadata.name must start with a letter and hold only lower-case letters, digits and '-': "
                "pods and Services are named after it",
            },
            *({"rule": rule, "message": message} for rule, message in kind.name_rules),
        ],
    }


def _column(column: Column) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": column.name, "jsonPath": column.path, "type": column.type}
    if column.description:
        entry["description"] = column.description
    if column.priority:
        entry["priority"] = column.priority
    return entry
