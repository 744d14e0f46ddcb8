"""What an alignment cannot be done with, each in a sentence that says what to do; and what looks bad and works."""

import json
import multiprocessing
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from alidade_crds.contract import JobDocument
from alidade_engine.digests import model_digest
from alidade_engine.tokenization import train_tokenizer
from alidade_trainer.align.steps import check_steps
from alidade_trainer.failures import JobFailure
from alidade_trainer.jobs import read_job

RAFT = {"raft": {"iterations": 2, "promptsPerIteration": 8, "samplesPerPrompt": 4}}
PPO = {"ppo": {"iterations": 1, "rolloutBatchSize": 16, "miniBatchSize": 8}}
Job = Callable[..., Path]


@pytest.mark.parametrize(
    ("step", "over", "said"),
    [
        ({"dpo": {"dataset": {"uri": "file:///x"}}}, {}, "DataNotFound: "),
        ({"raft": {"samplesPerPrompt": 1}}, {}, "ConfigInvalid: align.0..raft.samplesPerPrompt is 1"),
        (RAFT, {"alignment": {"rewards": []}}, "ConfigInvalid: align.0. needs rewardModels"),
        (RAFT, {"alignment": {"generation": {"maxNewTokens": 90}}}, "DataTooLong: .*generation.maxNewTokens 90"),
        (
            RAFT,
            {"alignment": {"generation": {"maxNewTokens": 96}}},
            "ConfigInvalid: generation.maxNewTokens is 96, the model's context 96 tokens; nothing is left for a prompt",
        ),
        (
            {"ppo": {"rolloutBatchSize": 12, "miniBatchSize": 8}},
            {},
            "ConfigInvalid: align.0..ppo.rolloutBatchSize is 12",
        ),
        (
            RAFT,
            {"alignment": {"rewards": [{"name": "no", "function": "regex", "pattern": "zebra"}]}},
            "RewardInvalid: The reward is 0 for all 32 samples .*'What is number",
        ),
        (
            RAFT,
            {"dataset": {"validation": None}, "alignment": {"guardrails": {"overOptimization": {}}}},
            "ConfigInvalid: .*set prompts.validation",
        ),
    ],
    ids=[
        "dpo",
        "one sample",
        "no rewards",
        "long prompts",
        "long answers",
        "odd rollout",
        "constant reward",
        "nothing held out",
    ],
)
def test_what_cannot_be_aligned_is_said_in_a_sentence(
    align_job: Callable[..., Path], run_job: Callable[..., Any], step: dict[str, Any], over: dict[str, Any], said: str
) -> None:
    run = run_job(align_job([step], over))
    assert run.result.failure is not None
    found = f"{run.result.failure.reason}: {run.result.failure.message}"
    assert re.search(said, found), found


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (
            {"raft": {"promptsPerIteration": 3, "samplesPerPrompt": 8}},
            "align[0].raft.promptsPerIteration is 3; each of the 4 training processes needs an accepted sample: raise "
            "promptsPerIteration, or use fewer workers.",
        ),
        (
            {
                "raft": {
                    "promptsPerIteration": 8,
                    "samplesPerPrompt": 4,
                    "acceptance": "globalTop",
                    "acceptanceRatio": 0.05,
                }
            },
            "align[0].raft keeps 2 of 32 samples (acceptanceRatio 0.05 x promptsPerIteration x samplesPerPrompt); each "
            "of the 4 training processes needs an accepted sample: raise one of the three, or use fewer workers.",
        ),
        (
            {"ppo": {"rolloutBatchSize": 18, "miniBatchSize": 6}},
            "align[0].ppo.miniBatchSize is 6; it must be a multiple of the 4 training processes, such as 8.",
        ),
    ],
    ids=["best of K", "global top", "mini-batch"],
)
def test_what_leaves_a_process_without_work_is_refused_before_anything_is_loaded(
    align_job: Job, step: dict[str, Any], said: str
) -> None:
    job: JobDocument = read_job(align_job([step]))
    with pytest.raises(JobFailure) as refused:
        check_steps(job, processes=4)
    assert refused.value.message == said
    check_steps(job, processes=2)


def test_two_processes_say_it_before_they_sample(align_job: Job, run_job: Callable[..., Any]) -> None:
    run = run_job(align_job([{"raft": {"promptsPerIteration": 1}}]), processes=2)
    assert [outcome.result.failure.reason for outcome in run.outcomes] == ["ConfigInvalid"] * 2
    assert "each of the 2 training processes needs an accepted sample" in run.result.failure.message
    assert not (run.output / "metrics.jsonl").exists()


@pytest.fixture
def odd_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A reward that is not a number for one answer."""
    (tmp_path / "odd_rewards.py").write_text(
        "def judge(prompts, answers, references):\n    return [float('nan') if a == 'tin' else 1.0 for a in answers]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "odd_rewards:judge"
    sys.modules.pop("odd_rewards", None)


def test_a_reward_that_is_no_number_is_said_with_the_sample_before_anything_is_trained(
    align_job: Job, run_job: Callable[..., Any], odd_reward: str
) -> None:
    over = {"alignment": {"rewards": [{"name": "odd", "entryPoint": odd_reward}]}}
    run = run_job(align_job([RAFT], over))
    assert run.result.failure.reason == "RewardInvalid"
    assert re.match(
        r"The reward odd gives nan to the answer 'tin' to 'What is number \d+\?'", run.result.failure.message
    )
    assert run.losses == []


def test_a_reward_model_with_another_tokenizer_reads_the_answers_as_text(
    align_job: Job, run_job: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    child = multiprocessing.get_context("fork").Process(target=_write_other_reward_model, args=(tmp_path / "other",))
    child.start()
    child.join()
    assert child.exitcode == 0
    over = {"alignment": {"rewards": [{"name": "other", "uri": f"file://{tmp_path}/other"}]}}
    run = run_job(align_job([PPO], over))
    assert run.result.outcome == "succeeded", run.result.failure
    assert "The critic starts from the policy's weights" in capfd.readouterr().out
    assert run.result.metrics["reward"] != 0
    lineage = json.loads((run.output / "model" / "lineage.json").read_text())
    uri, digest = f"file://{tmp_path}/other", model_digest(tmp_path / "other")
    assert lineage["parents"][1] == {"role": "reward", "name": "other", "uri": uri, "digest": digest}
    assert digest in (run.output / "report.html").read_text()


def _write_other_reward_model(folder: Path) -> None:
    tokenizer = train_tokenizer(["A text of quite other words, zebra and yak."] * 9, 280, model_max_length=64)
    torch.manual_seed(4)
    config = LlamaConfig(
        vocab_size=280,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
