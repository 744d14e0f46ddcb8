"""What acceptance would refuse without looking at the cluster, the schemas refuse already."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alidade_crds.modelserve import GGUF_TYPES
from tests.crds.schemas import errors

DATA = {"uri": "pvc://data/a.json"}
WEB = {"uri": "https://example.org/train.jsonl"}
WANDB = {"project": "kbqa", "secretName": "wandb"}
MLFLOW = {"trackingUri": "https://mlflow.example.org", "name": "kbqa"}
JOB: dict[str, Any] = {"model": {"uri": "hf://org/base"}, "dataset": DATA}
SERVE: dict[str, Any] = {"model": {"uri": "pvc://models/a"}}
RUN: dict[str, Any] = {
    "sft": {"model": {"uri": "hf://org/sft"}},
    "rewardModels": [{"name": "exact", "function": "exact_match"}],
    "prompts": DATA,
    "align": [{"raft": {}}],
}
GENERATION = {"type": "generation", "dataset": "pvc://data/q.json"}
EVALUATION: dict[str, Any] = {"models": [{"name": "a", "model": {"uri": "hf://org/a"}}], "suites": [GENERATION]}
INIT = {"init": {"hiddenSize": 64, "layers": 2, "heads": 4, "vocabSize": 512}}
SPECS = {"FineTuneJob": JOB, "RewardModel": JOB, "AlignmentRun": RUN, "Evaluation": EVALUATION, "ModelServe": SERVE}
LEARNED = {"extendWith": {"trainOnDataset": True, "size": 4000}}
REWARD = {"name": "r", "template": {"dataset": DATA}}
THREE = {"compute": {"workers": 3}}
TTL = {"ttlSecondsAfterFinished": 1}
MEASURED = {"template": {"suites": [GENERATION], "models": [EVALUATION["models"][0] | {"name": "sft"}]}}
SMALL_PPO = {"align": [{"ppo": {"miniBatchSize": 32, "rolloutBatchSize": 64}}], "compute": {"workers": 64}}


def of_kind(kind: str, name: str = "demo") -> dict[str, Any]:
    return {"from": {"kind": kind, "name": name}}


def asking(perplexity: dict[str, Any]) -> dict[str, Any]:
    return DATA | {"filters": {"perplexity": perplexity}}


def adapter(name: str = "a", model: Any = None) -> dict[str, Any]:
    return {"name": name, "model": model or {"uri": "pvc://models/a"}}


@pytest.mark.parametrize("kind", SPECS)
def test_what_makes_sense_is_let_in(kind: str) -> None:
    assert errors(kind, SPECS[kind]) == []


def test_files_of_the_web_are_let_in_with_their_digest() -> None:
    known = WEB | {"sha256": "0" * 64}
    data = known | {"validation": known, "mix": [known | {"weight": 1}]}
    model = {"uri": "https://example.org/model.tar.gz", "sha256": "0" * 64}
    assert errors("FineTuneJob", {"model": model, "dataset": data}) == []


def test_what_is_learned_of_a_dataset_can_be_chosen() -> None:
    near = {"method": "near", "similarity": 0.9}
    filters = {"minTokens": 4, "languages": ["en"]}
    cleaned = {"deduplication": near, "filters": filters}
    asked = filters | {"perplexity": {"minimum": 5, "maximumQuantile": 0.9}}
    chosen = cleaned | {"filters": asked, "packing": False}
    mixed = {"lengthGrouping": True, "mix": [DATA | {"weight": 0}, DATA | {"weight": 0.5}]}
    assert errors("FineTuneJob", JOB | {"dataset": DATA | chosen | mixed}) == []
    assert errors("RewardModel", SPECS["RewardModel"] | {"dataset": DATA | cleaned}) == []
    assert errors("AlignmentRun", SPECS["AlignmentRun"] | {"prompts": DATA | cleaned}) == []


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("name", ["7b", "a.b", "-a", "a-", "A"])
def test_a_name_that_pods_and_services_cannot_have_is_refused(kind: str, name: str) -> None:
    assert any("metadata.name must start with a letter" in error for error in errors(kind, SPECS[kind], name=name))


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("FineTuneJob", {"training": {"gradientCheckpointing": False, "checkpointEveryLayers": 2}}, "it must be true"),
        ("FineTuneJob", {"training": {"attention": "flash_attention_2", "precision": "fp32"}}, "in 16 bits only"),
        ("FineTuneJob", {"training": {"attention": "flash_attention_2"}}, "need GPUs: set compute.gpusPerWorker"),
        ("RewardModel", {"training": {"kernels": "liger"}}, "need GPUs: set compute.gpusPerWorker"),
        ("RewardModel", {"training": {"offloadActivations": True}}, "need GPUs: set compute.gpusPerWorker"),
        ("FineTuneJob", {"training": {"compile": True}, "deepspeed": {"zeroStage": 3}}, "needs deepspeed.zeroStage 0"),
        ("FineTuneJob", {"deepspeed": {"zeroPlusPlus": {"partitionSize": 8}}}, "zeroStage must be 3"),
        ("FineTuneJob", {"deepspeed": {"zeroStage": 0, "offload": "optimizer"}}, "zeroStage must be 1 to 3"),
        ("FineTuneJob", {"deepspeed": {"offload": "all"}}, "which only zeroStage 3 spreads"),
        (
            "FineTuneJob",
            {"deepspeed": {"zeroStage": 3, "zeroPlusPlus": {"partitionSize": 8}}, "compute": {"workers": 4}},
            "partitionSize must divide the training processes",
        ),
        (
            "RewardModel",
            {"deepspeed": {"zeroStage": 3, "zeroPlusPlus": {"quantizedGradients": True}}},
            "quantizedWeights and quantizedGradients need GPUs",
        ),
        ("AlignmentRun", {"training": {"compile": True}}, "an alignment draws its answers from the weights"),
        ("FineTuneJob", {"elastic": {"minWorkers": 2}}, "elastic.minWorkers must not be greater than compute.workers"),
        ("RewardModel", {"elastic": {"minWorkers": 1}, "compute": {"queue": "q"}}, "admits all pods of a job or none"),
        ("AlignmentRun", {"tracking": {"tensorboard": {}, "wandb": WANDB}}, "exactly one of mlflow"),
        ("FineTuneJob", {"tracking": {"mlflow": {"uri": "sqlite:///a"}}}, "uri must start with https:// or http://"),
        ("FineTuneJob", {"tracking": {"wandb": WANDB | {"offline": True}}}, "exactly one of secretName and offline"),
        ("RewardModel", {"tracking": {"wandb": {"project": "kbqa"}}}, "exactly one of secretName and offline"),
        (
            "RewardModel",
            {"tracking": {"wandb": {"project": "kbqa", "offline": True, "uri": "https://wandb.example.org"}}},
            "uri must start with https:// or http://, and goes with secretName only",
        ),
        ("FineTuneJob", {"publish": {}}, "at least one of hub, mlflow must be set"),
        ("FineTuneJob", {"publish": {"hub": {"repository": "kbqa"}}}, "repository"),
        ("RewardModel", {"publish": {"mlflow": MLFLOW | {"trackingUri": "sqlite:///a"}}}, "trackingUri must start"),
        ("RewardModel", {"publish": {"mlflow": MLFLOW | {"alias": "v1"}}}, "alias must not be latest or like v1"),
        (
            "AlignmentRun",
            {"publish": {"mlflow": MLFLOW}, "evaluation": MEASURED, "gate": [{"metric": "a", "atLeast": {"value": 1}}]},
            "publish cannot be set with a gate",
        ),
        ("FineTuneJob", {"dataset": WEB}, "sha256 must be set with an http(s):// uri"),
        ("FineTuneJob", {"dataset": DATA | {"validation": WEB}}, "sha256 must be set with an http(s):// uri"),
        ("RewardModel", {"dataset": DATA | {"mix": [WEB | {"weight": 1}]}}, "sha256 must be set with an http"),
        ("FineTuneJob", {"model": {"uri": "http://host/m.tar"}}, "sha256 must be set with an http(s):// uri"),
        ("FineTuneJob", {"model": {"uri": "hf://org/a", "sha256": "0" * 64}}, "models elsewhere are folders"),
        ("FineTuneJob", {"dataset": WEB | {"sha256": "ABC"}}, "sha256"),
        ("FineTuneJob", {"model": of_kind("FineTuneJob")}, "names the FineTuneJob itself"),
        ("RewardModel", {"model": of_kind("RewardModel")}, "names the RewardModel itself"),
        ("AlignmentRun", {"sft": {"model": of_kind("AlignmentRun")}}, "names the AlignmentRun itself"),
        ("FineTuneJob", {"adapter": {"rslora": True}}, "rslora and dora are ways of adding"),
        ("RewardModel", {"adapter": {"dora": True}}, "rslora and dora are ways of adding"),
        ("FineTuneJob", {"adapter": {"type": "qlora"}, "deepspeed": {"zeroStage": 3}}, "qlora needs deepspeed"),
        ("FineTuneJob", {"adapter": {"type": "lora"}, "model": INIT}, "random weights, which need training as a whole"),
        ("FineTuneJob", {"adapter": {"type": "lora"}, "training": {"freeze": ["a"]}}, "is for adapter.type none"),
        ("AlignmentRun", {"adapter": {"type": "qlora"}}, "an alignment draws its answers from whole weights"),
        ("ModelServe", {"gateway": {"arena": {"against": "demo"}}}, "names the ModelServe itself"),
        ("ModelServe", {"adapters": [adapter("demo")]}, "must not be named like the ModelServe itself"),
        ("FineTuneJob", {"model": {"uri": "pvc://a/../b"}}, "must not climb out of its volume"),
        ("FineTuneJob", {"dataset": {"uri": "pvc://a/.."}}, "must not climb out of its volume"),
        ("FineTuneJob", {"output": {"uri": "pvc://../b"}}, "must not climb out of its volume"),
        ("FineTuneJob", {"output": {"uri": "pvc://a/"}}, "must not be the root of a volume"),
        ("Evaluation", {"output": {"uri": "pvc://a"}}, "must not be the root of a volume"),
        ("FineTuneJob", {"compute": {"gpusPerWorker": 2, "processesPerWorker": 4}}, "must not be greater than gpus"),
        ("FineTuneJob", {"compute": {"workers": 3}}, "globalBatchSize must be a multiple of the training processes"),
        ("RewardModel", {"compute": {"gpusPerWorker": 3}}, "globalBatchSize must be a multiple"),
        ("AlignmentRun", {"compute": {"workers": 3}}, "globalBatchSize must be a multiple"),
        ("AlignmentRun", {"rewardModels": [{"name": "r", "template": {"dataset": DATA} | THREE}]}, "multiple"),
        ("FineTuneJob", {"dataset": DATA | {"mix": [DATA | {"weight": 0}] * 2}}, "every weight in mix is 0"),
        ("RewardModel", {"dataset": DATA | {"mix": [DATA | {"weight": 0}]}}, "every weight in mix is 0"),
        ("FineTuneJob", {"dataset": DATA | {"lengthGrouping": True}}, "set packing: false"),
        ("FineTuneJob", {"dataset": DATA | {"filters": {}}}, "at least one of minTokens, maxTokens, languages"),
        ("RewardModel", {"dataset": DATA | {"filters": {}}}, "at least one of minTokens, maxTokens, languages"),
        ("RewardModel", {"dataset": asking({"maximum": 9})}, "at least one of minTokens, maxTokens, languages must"),
        ("FineTuneJob", {"dataset": asking({})}, "at least one of minimum, maximum, minimumQuantile, maximumQuantile"),
        ("FineTuneJob", {"dataset": asking({"minimum": 9, "maximum": 9})}, "minimum must be below maximum"),
        ("FineTuneJob", {"dataset": asking({"minimumQuantile": 0.5, "maximumQuantile": 0.1})}, "must be below max"),
        ("FineTuneJob", {"dataset": asking({"minimum": 0.5})}, "minimum"),
        ("FineTuneJob", {"dataset": asking({"maximum": 9}), "model": INIT}, "under the random weights of model.init"),
        ("FineTuneJob", {"dataset": asking({"maximum": 9}), "vocabulary": LEARNED}, "filter in a job without them"),
        ("FineTuneJob", {"dataset": asking({"maximum": 9}), "context": {"length": 4096}}, "filter in a job without"),
        ("FineTuneJob", {"dataset": DATA | {"filters": {"minTokens": 9, "maxTokens": 8}}}, "must not be above maxT"),
        ("FineTuneJob", {"dataset": DATA | {"filters": {"minTokens": 2000}}}, "must not be above maxLength"),
        ("FineTuneJob", {"dataset": DATA | {"filters": {"languages": ["English"]}}}, "languages"),
        ("FineTuneJob", {"dataset": DATA | {"deduplication": {"method": "exact", "similarity": 1}}}, "of method near"),
        ("FineTuneJob", {"vocabulary": LEARNED, "model": INIT}, "model.init trains a tokenizer of its own"),
        ("FineTuneJob", {"vocabulary": LEARNED | {"train": "embeddings"}, "adapter": {"type": "lora"}}, "must be none"),
        ("FineTuneJob", {"vocabulary": {"extendWith": {"trainOnDataset": True}}}, "trainOnDataset needs size"),
        ("FineTuneJob", {"vocabulary": {"extendWith": {"size": 64}}}, "exactly one of uri, trainOnDataset"),
        ("FineTuneJob", {"vocabulary": {"extendWith": {"uri": "pvc://a/../b"}}}, "must not climb out of its volume"),
        ("FineTuneJob", {"vocabulary": {"extendWith": {"uri": "sp.model"}}}, "uri must start with hf://"),
        ("FineTuneJob", {"vocabulary": LEARNED, "ghostAttention": {"field": "rule"}}, "samples with the base's"),
        ("FineTuneJob", {"context": {"length": 4096}, "model": INIT}, "model.init has no context to stretch"),
        ("FineTuneJob", {"context": {"length": 4096}, "vocabulary": LEARNED}, "cannot be set together"),
        ("FineTuneJob", {"training": {"microBatchSize": 12}}, "microBatchSize must divide the sequences"),
        ("AlignmentRun", SMALL_PPO, "miniBatchSize must be a multiple"),
        ("AlignmentRun", {"rewardModels": [REWARD | {"name": "align"}]}, "that of another stage"),
        ("AlignmentRun", {"rewardModels": [REWARD | {"name": "x-ppo"}]}, "that of another stage"),
        ("AlignmentRun", {"rewardModels": [REWARD | {"name": "x.y"}]}, "must have no dots"),
        ("AlignmentRun", {"sft": {"template": JOB | {"ttlSecondsAfterFinished": 1}}}, "stays as long as its run"),
        ("AlignmentRun", {"rewardModels": [{"name": "r", "template": {"dataset": DATA} | TTL}]}, "stays as"),
        ("AlignmentRun", {"evaluation": MEASURED}, "sft or aligned"),
        ("Evaluation", {"compute": {"workers": 2}, "output": {"uri": "s3://a/b"}}, "output.uri must be a volume"),
        ("Evaluation", {"suites": [GENERATION | {"type": "reward", "rewardModel": INIT}]}, "rewardModel.init has"),
        ("ModelServe", {"model": INIT}, "model.init has learned nothing"),
        ("ModelServe", {"model": of_kind("RewardModel", "a")}, "must not name a RewardModel"),
        ("ModelServe", {"adapters": [adapter(model=INIT)]}, "model.init has learned nothing"),
        ("ModelServe", {"adapters": [adapter(model=of_kind("RewardModel", "a"))]}, "must not name a RewardModel"),
        ("ModelServe", {"adapters": [adapter(model={"uri": "hf://org/a"})]}, "must be on a volume"),
        ("ModelServe", {"adapters": [adapter(), adapter()]}, "adapters need names of their own"),
        ("ModelServe", {"compute": {"workers": 2}}, "a replica is one pod of one server"),
        ("ModelServe", {"compute": {"processesPerWorker": 1}}, "a replica is one pod of one server"),
        ("ModelServe", {"quantization": {"method": "gguf", "type": "q9"}}, "type must be one of f32, f16"),
        ("ModelServe", {"quantization": {"maxPerplexityIncrease": 0.1}}, "with none, nothing is measured"),
        ("ModelServe", {"quantization": {"calibration": DATA}}, "with none, nothing is measured"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_anywhere_is_refused_in_a_sentence(kind: str, changes: dict[str, Any], said: str) -> None:
    found = errors(kind, SPECS[kind] | changes)
    assert any(said in error for error in found), found


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("FineTuneJob", {"model": of_kind("FineTuneJob", "other")}),
        ("FineTuneJob", {"model": of_kind("AlignmentRun")}),
        ("AlignmentRun", {"sft": {"ref": {"name": "demo"}}}),
        ("FineTuneJob", {"model": {"uri": "pvc://a/b..c/..d"}, "output": {"uri": "s3://bucket"}}),
        ("FineTuneJob", {"compute": {"processesPerWorker": 4}}),
        ("FineTuneJob", {"compute": {"gpusPerWorker": 8, "processesPerWorker": 4}}),
        ("Evaluation", {"compute": {"workers": 2}, "output": {"uri": "pvc://a/b"}}),
        ("FineTuneJob", {"vocabulary": LEARNED, "adapter": {"type": "lora"}}),
        ("FineTuneJob", {"vocabulary": {"extendWith": {"uri": "configmap://a/sp.model"}, "train": "embeddings"}}),
        ("FineTuneJob", {"context": {"length": 4096, "scaling": "yarn", "factor": 4}}),
        ("Evaluation", {"compute": {"workers": 3}}),
        ("ModelServe", {"adapters": [adapter(), adapter("b")], "compute": {"gpusPerWorker": 2}}),
        ("ModelServe", {"gateway": {"arena": {"against": "other"}}}),
        *(("ModelServe", {"quantization": {"method": "gguf", "type": one}}) for one in GGUF_TYPES),
    ],
)
def test_what_makes_sense_somewhere_is_let_in(kind: str, changes: dict[str, Any]) -> None:
    assert errors(kind, SPECS[kind] | changes) == []


@given(
    size=st.integers(1, 64),
    micro=st.one_of(st.just("auto"), st.integers(1, 16)),
    workers=st.integers(1, 4),
    gpus=st.integers(0, 4),
    processes=st.one_of(st.none(), st.integers(1, 4)),
)
def test_the_rule_of_batches_is_that_of_the_trainer(
    size: int, micro: Any, workers: int, gpus: int, processes: Any
) -> None:
    compute = {"workers": workers, "gpusPerWorker": gpus} | ({"processesPerWorker": processes} if processes else {})
    found = errors(
        "FineTuneJob", JOB | {"compute": compute, "training": {"globalBatchSize": size, "microBatchSize": micro}}
    )
    if processes and gpus and processes > gpus:
        assert found
        return
    share, rest = divmod(size, workers * (processes or gpus or 1))
    assert bool(found) == bool(rest or (micro != "auto" and share % micro)), found
