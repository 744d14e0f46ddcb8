"""Rules about which AlignmentRuns are begun: spec -> (reason, exact message), before any GPU is taken."""

from __future__ import annotations

from typing import Any

import pytest

from alidade_operator.api import CLAIM, CONFIG_MAP, FINE_TUNE_JOB, PYTORCH_JOB
from alidade_operator.config import NodePool
from tests.operator.builders import CONFIG
from tests.operator.memory import HELPFULNESS, PROMPTS, SFT, MemoryCluster
from tests.operator.test_alignmentrun import PROGRAM, made

NO_CLAIM = (
    "names claim corpus, which namespace team-a does not have. Create the PersistentVolumeClaim; the job goes on by "
    "itself."
)
ELSEWHERE = "pvc://corpus/a.json"
PERPLEXITY = {"type": "perplexity", "dataset": "pvc://data/held-out.json"}
REWARD_SUITE = {"type": "reward", "dataset": "pvc://data/held-out.json"}


def sft(**blocks: Any) -> dict[str, Any]:
    """A stage sft whose template has these blocks too."""
    return {"sft": {"template": SFT["template"] | blocks}}


def reward(name: str = "helpfulness", **blocks: Any) -> dict[str, Any]:
    """One reward model whose template has these blocks too."""
    return {"rewardModels": [{"name": name, "template": {"dataset": {"uri": "pvc://data/p.json"}} | blocks}]}


def evaluation(*suites: Any, **blocks: Any) -> dict[str, Any]:
    """An evaluation of these suites."""
    return {"evaluation": {"template": {"suites": list(suites or [PERPLEXITY])} | blocks}}


def refused(blocks: dict[str, Any], cluster: MemoryCluster | None = None) -> tuple[str, str]:
    """Reason and message with which a run is not begun."""
    cluster = cluster or MemoryCluster()
    cluster.apply(**blocks)
    cluster.settle()
    assert made(cluster) == [], "nothing is made of a run that is refused"
    assert cluster.status()["phase"] == "Waiting"
    status, reason, message = cluster.condition("Accepted")
    assert status == "False"
    assert cluster.condition("Launched")[2] == "The spec is not accepted; see the condition Accepted."
    return reason, message


@pytest.mark.parametrize(
    ("blocks", "reason", "message"),
    [
        (
            reward("sft"),
            "InvalidSpec",
            "spec.rewardModels[0].name is sft, which is the name of another stage. Choose another one, such as "
            "helpfulness.",
        ),
        (
            {"rewardModels": [PROGRAM, {"name": "1-raft", "function": "length"}]},
            "InvalidSpec",
            "spec.rewardModels[1].name is 1-raft, which is the name of another stage. Choose another one, such as "
            "helpfulness.",
        ),
        (
            reward("v1.2"),
            "InvalidSpec",
            "spec.rewardModels[0].name is v1.2; pods are named after it: leave the dots out.",
        ),
        (
            reward("x" * 36),
            "NameTooLong",
            "spec.rewardModels[0].name has 36 characters; with metadata.name demo at most 35 leave the pods' names "
            "within 63. Choose a shorter one.",
        ),
        (
            evaluation() | {"gate": [{"metric": "perplexity", "atMost": {"baseline": "gpt"}}]},
            "InvalidSpec",
            "spec.gate[0].atMost.baseline is gpt; the evaluation measures sft, aligned. Name one of them, or add the "
            "model to spec.evaluation.template.models.",
        ),
        (
            evaluation(models=[{"name": "base", "model": {"uri": "hf://a/b"}}])
            | {
                "gate": [
                    {"metric": "perplexity", "atLeast": {"value": 1}},
                    {"metric": "perplexity.bits_per_byte", "atLeast": {"baseline": "gpt"}},
                ]
            },
            "InvalidSpec",
            "spec.gate[1].atLeast.baseline is gpt; the evaluation measures sft, aligned, base. Name one of them, or "
            "add the model to spec.evaluation.template.models.",
        ),
        (
            evaluation(models=[{"name": "aligned", "model": {"uri": "hf://a/b"}}]),
            "InvalidSpec",
            "spec.evaluation.template.models[0].name is aligned, which is one of the run's own models. Choose another "
            "one.",
        ),
        (
            evaluation(baseline="base"),
            "InvalidSpec",
            "spec.evaluation.template.baseline is base; the evaluation measures sft, aligned. Name one of them, or add "
            "the model to spec.evaluation.template.models.",
        ),
        (
            evaluation(PERPLEXITY, REWARD_SUITE) | {"rewardModels": [{"name": "own", "entryPoint": "mine:score"}]},
            "InvalidSpec",
            "spec.evaluation.template.suites[1].rewardModel is missing, and no reward of the run is a model or a "
            "function that could stand in for it. Name one, or leave the suite out.",
        ),
        (
            evaluation() | {"gate": [{"metric": "perplexity.perplexiti", "atMost": {"value": 9}}]},
            "MetricUnknown",
            "spec.gate[0].metric is perplexity.perplexiti, which the evaluation does not measure. Did you mean "
            "perplexity.perplexity or perplexity.leaked or perplexity.failed?",
        ),
        (
            evaluation(PERPLEXITY | {"metrics": ["bits"]}),
            "MetricUnknown",
            "spec.evaluation.template.suites[0].metrics names bits, which a suite of type perplexity does not have. "
            "Did you mean bits_per_byte?",
        ),
        (
            {"align": [{"raft": {}}, {"ppo": {"miniBatchSize": 64}}], "compute": {"workers": 3}},
            "InvalidSpec",
            "spec.align[1].ppo.miniBatchSize is 64; it must be a multiple of the 3 training processes.",
        ),
        (
            {"align": [{"raft": {"promptsPerIteration": 2}}], "compute": {"workers": 4}},
            "InvalidSpec",
            "spec.align[0].raft accepts at most 2 of 16 samples, fewer than the 4 training processes. Raise "
            "promptsPerIteration, samplesPerPrompt or acceptanceRatio, or use fewer workers.",
        ),
        (
            {
                "align": [{"raft": {"promptsPerIteration": 4, "acceptance": "globalTop", "acceptanceRatio": 0.1}}],
                "compute": {"workers": 2, "processesPerWorker": 4},
            },
            "InvalidSpec",
            "spec.align[0].raft accepts at most 4 of 32 samples, fewer than the 8 training processes. Raise "
            "promptsPerIteration, samplesPerPrompt or acceptanceRatio, or use fewer workers.",
        ),
        (
            sft(ttlSecondsAfterFinished=0),
            "InvalidSpec",
            "spec.sft.template.ttlSecondsAfterFinished is 0; a stage stays as long as its run. Leave it out, or set "
            "spec.ttlSecondsAfterFinished.",
        ),
        (
            sft(compute={"nodePool": "h100"}),
            "NodePoolUnknown",
            "spec.sft.template.compute.nodePool is h100; the configured pools are local, a100-80gb. Name one of them, "
            "or have the pool added to the operator's configuration.",
        ),
        (
            reward(compute={"nodePool": "a100-80gb", "gpusPerWorker": 16}),
            "TooManyGpus",
            "spec.rewardModels[0].template.compute.gpusPerWorker is 16; pool a100-80gb has nodes of 8. Use 2 workers "
            "of 8.",
        ),
        (
            {"compute": {"workers": 3}},
            "InvalidSpec",
            "spec.training.globalBatchSize is 64; it must be a multiple of the 3 training processes (3 workers of 1), "
            "such as 63.",
        ),
        (
            sft(training={"globalBatchSize": 10, "microBatchSize": 4}),
            "InvalidSpec",
            "spec.sft.template.training.microBatchSize is 4; it must divide the 10 sequences of each process "
            "(spec.sft.template.training.globalBatchSize of 10 over 1 processes). Set it to 2.",
        ),
        ({"prompts": {"uri": ELSEWHERE}}, "VolumeMissing", f"spec.prompts.uri {NO_CLAIM}"),
        (
            {"prompts": PROMPTS | {"validation": {"uri": ELSEWHERE}}},
            "VolumeMissing",
            f"spec.prompts.validation.uri {NO_CLAIM}",
        ),
        (sft(dataset={"uri": ELSEWHERE}), "VolumeMissing", f"spec.sft.template.dataset.uri {NO_CLAIM}"),
        (sft(model={"uri": ELSEWHERE}), "VolumeMissing", f"spec.sft.template.model.uri {NO_CLAIM}"),
        (sft(output={"uri": ELSEWHERE}), "VolumeMissing", f"spec.sft.template.output.uri {NO_CLAIM}"),
        ({"sft": {"model": {"uri": ELSEWHERE}}}, "VolumeMissing", f"spec.sft.model.uri {NO_CLAIM}"),
        ({"output": {"uri": ELSEWHERE}}, "VolumeMissing", f"spec.output.uri {NO_CLAIM}"),
        (
            reward(dataset={"uri": ELSEWHERE}),
            "VolumeMissing",
            f"spec.rewardModels[0].template.dataset.uri {NO_CLAIM}",
        ),
        (
            {"rewardModels": [PROGRAM, {"name": "rm", "model": {"uri": ELSEWHERE}}]},
            "VolumeMissing",
            f"spec.rewardModels[1].model.uri {NO_CLAIM}",
        ),
        (
            {"align": [{"raft": {}}, {"dpo": {"dataset": {"uri": ELSEWHERE}}}]},
            "VolumeMissing",
            f"spec.align[1].dpo.dataset.uri {NO_CLAIM}",
        ),
        (
            {"sft": {"model": {"uri": "file:///models/sft"}}},
            "FileUriNotAllowed",
            "spec.sft.model.uri is file:///models/sft; file:// addresses work on the local cluster only. Put the data "
            "on a volume and write pvc://CLAIM/PATH.",
        ),
        (
            {"prompts": {"uri": "configmap://prompts/a.json"}},
            "ConfigMapMissing",
            "spec.prompts.uri names ConfigMap prompts, which namespace team-a does not have. Create it; the job goes "
            "on by itself.",
        ),
        (
            {"output": {"uri": "pvc://data"}},
            "InvalidSpec",
            "spec.output.uri is pvc://data, the root of the volume. Name a folder of its own: pvc://data/NAME.",
        ),
    ],
)  # fmt: skip
def test_a_spec_that_cannot_be_carried_out_is_refused(blocks: dict[str, Any], reason: str, message: str) -> None:
    assert refused(blocks) == (reason, message)


def test_the_longest_reward_name_is_begun() -> None:
    cluster = MemoryCluster()
    cluster.apply(**reward("x" * 35, model={"uri": "hf://org/rm"}))
    cluster.settle()
    assert cluster.condition("Accepted")[0] == "True"


def test_a_runs_name_leaves_room_for_those_of_its_pods() -> None:
    cluster = MemoryCluster()
    name = "a" * 40
    cluster.apply(name)
    cluster.settle(name)
    reason, message = cluster.condition("Accepted", name)[1:]
    assert reason == "NameTooLong"
    assert message == (
        "metadata.name has 40 characters; with 1 worker at most 34 leave the pods' names within 63. Apply it "
        "under a shorter name."
    )


def test_a_spec_that_cannot_be_read_says_which_field() -> None:
    cluster = MemoryCluster()
    cluster.apply(align=[{"raft": {"iterations": "many"}}])
    cluster.settle()
    reason, message = cluster.condition("Accepted")[1:]
    assert reason == "InvalidSpec"
    assert message.startswith("spec.align.0.raft.iterations: Input should be a valid integer")


def test_a_cluster_without_the_training_operator_is_told_so() -> None:
    cluster = MemoryCluster()
    cluster.cache.missing_kinds.add(PYTORCH_JOB.kind)
    assert refused({}, cluster)[0] == "TrainingOperatorMissing"


def test_a_namespace_without_a_workspace_is_told_so() -> None:
    cluster = MemoryCluster()
    cluster.delete(CLAIM, "alidade-workspace")
    assert refused({}, cluster) == (
        "WorkspaceMissing",
        "Namespace team-a has no claim alidade-workspace, where outputs go. Create the PersistentVolumeClaim, or set "
        "spec.output.uri.",
    )


def test_a_claim_that_appears_lets_the_run_begin() -> None:
    cluster = MemoryCluster()
    refused({"prompts": {"uri": ELSEWHERE}}, cluster)
    cluster.put(CLAIM, "corpus")
    cluster.settle()
    assert cluster.condition("Accepted") == ("True", "Valid", "Nothing in the spec stands against it.")
    assert made(cluster) == ["FineTuneJob"]


def test_a_config_map_that_appears_is_looked_for_and_lets_the_run_begin() -> None:
    cluster = MemoryCluster()
    refused({"prompts": {"uri": "configmap://prompts/a.json"}}, cluster)
    assert cluster.look().look_again_s == 1.0
    cluster.put(CONFIG_MAP, "prompts", data={"b.json": "[]"})
    cluster.settle()
    assert cluster.condition("Accepted")[2] == (
        "spec.prompts.uri names key a.json of ConfigMap prompts, which has b.json. Add the key; the job goes on by "
        "itself."
    )
    cluster.api.objects["ConfigMap", "prompts"]["data"]["a.json"] = "[]"
    cluster.settle()
    assert made(cluster)[1:] == ["FineTuneJob"]


def test_a_pool_that_is_configured_lets_the_run_begin() -> None:
    cluster = MemoryCluster()
    refused(sft(compute={"nodePool": "h100"}), cluster)
    cluster.config = CONFIG.model_copy(update={"node_pools": [*CONFIG.node_pools, NodePool(name="h100")]})
    cluster.settle()
    assert made(cluster) == ["FineTuneJob"]


def test_a_spec_that_is_mended_lets_the_run_begin() -> None:
    cluster = MemoryCluster()
    refused(reward("sft"), cluster)
    cluster.apply(**reward("helpfulness"))
    cluster.settle()
    assert made(cluster) == ["FineTuneJob"]


def test_an_alignment_that_cannot_fit_is_refused_before_the_sft_is_paid_for() -> None:
    cluster = MemoryCluster()
    gpu = {"nodePool": "a100-80gb", "gpusPerWorker": 1}
    cluster.apply(**sft(model={"uri": "hf://meta-llama/Llama-2-7b-hf"}), align=[{"ppo": {}}], compute=gpu)
    cluster.settle()
    assert made(cluster) == []
    assert cluster.condition("Accepted")[0] == "True"
    assert cluster.condition("Fits")[:2] == ("False", "ExceedsMemory")
    assert cluster.status()["phase"] == "Waiting"
    cluster.apply(
        **sft(model={"uri": "hf://meta-llama/Llama-2-7b-hf"}), align=[{"ppo": {}}], compute=gpu,
        adapter={"type": "lora"},
    )  # fmt: skip
    cluster.settle()
    assert cluster.condition("Fits")[:2] == ("True", "WithinMemory")
    assert made(cluster) == ["FineTuneJob"]


def test_what_runs_is_not_refused_afterwards() -> None:
    cluster = MemoryCluster()
    cluster.apply()
    cluster.settle()
    cluster.delete(CLAIM, "data")
    assert cluster.settle() == []
    cluster.train(cluster.names(FINE_TUNE_JOB)[0])
    cluster.settle()
    assert cluster.condition("Accepted")[0] == "True"


def test_a_launch_that_is_refused_does_not_take_up_other_data() -> None:
    """The claim of the prompts is gone when the alignment is due: the run waits, and its stages stay what they are."""
    cluster = MemoryCluster()
    cluster.put(CLAIM, "corpus")
    cluster.put(CONFIG_MAP, "sums", data={"a.json": "[1]"})
    cluster.apply(**sft(dataset={"uri": "configmap://sums/a.json"}), rewardModels=[PROGRAM], prompts={"uri": ELSEWHERE})
    cluster.settle()
    cluster.delete(CLAIM, "corpus")
    cluster.train(cluster.names(FINE_TUNE_JOB)[0])
    cluster.settle()
    assert cluster.condition("Accepted") == ("False", "VolumeMissing", f"spec.prompts.uri {NO_CLAIM}")
    cluster.api.objects["ConfigMap", "sums"]["data"]["a.json"] = "[2]"
    cluster.put(CLAIM, "corpus")
    cluster.settle()
    assert made(cluster)[1:] == ["FineTuneJob", "ConfigMap", "PyTorchJob"]
    assert cluster.condition("Launched")[0] == "True"


def test_a_reward_model_that_is_referred_to_gives_the_estimate_its_size() -> None:
    cluster = MemoryCluster()
    gpu = {"nodePool": "a100-80gb", "gpusPerWorker": 1}
    start = {"model": {"uri": "hf://org/small", "parameters": "1B"}}
    cluster.apply(sft=start, rewardModels=[HELPFULNESS], compute=gpu, adapter={"type": "lora"})
    cluster.settle()
    assert "reference and reward models 1.9" in cluster.condition("Fits")[2]


def test_a_judge_at_a_private_host_is_refused_before_any_gpu_is_taken() -> None:
    suite = {"type": "arena", "dataset": "pvc://data/a.json", "judge": {"url": "http://169.254.169.254/v1"}}
    reason, message = refused(evaluation(suite))
    assert reason == "HostNotAllowed"
    assert message.startswith("spec.evaluation.template.suites[0].judge.url points to 169.254.169.254, the metadata")
