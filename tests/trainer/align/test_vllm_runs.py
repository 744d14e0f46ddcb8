"""Alignments whose answers vLLM draws, the real one; docs/how-to/sample-with-vllm.md tells how to run them."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alidade_crds.contract import JobDocument
from alidade_engine.vllm_sampling import is_installed
from alidade_trainer.align.steps import check_steps
from alidade_trainer.failures import JobFailure

needs_vllm = pytest.mark.skipif(
    not is_installed(), reason="vllm is not installed; docs/how-to/sample-with-vllm.md tells how to run this"
)
quiet_vllm = pytest.mark.filterwarnings("ignore")

RAFT = {"iterations": 4, "promptsPerIteration": 16, "samplesPerPrompt": 6, "temperature": 1.0, "epochsPerIteration": 2}
PPO = {"iterations": 1, "rolloutBatchSize": 16, "miniBatchSize": 8, "epochs": 1, "kl": {"coefficient": 0.05}}
FREE = {"minDiversityRatio": 0, "minLengthRatio": 0}


@pytest.fixture(scope="session")
def guessing_model(guessing_model_of_one_head: Path) -> Path:
    """The model that jobs here start from."""
    return guessing_model_of_one_head


@pytest.fixture
def sampled_by_vllm(align_job: Callable[..., Path], run_job: Callable[..., Any]) -> Callable[..., Any]:
    """Runs steps whose answers vLLM draws; takes what else differs from the usual job, and how many processes train."""

    def run(steps: list[dict[str, Any]], *, processes: int = 1, **over: Any) -> Any:
        alignment = {"guardrails": FREE, "generation": {"maxNewTokens": 8, "engine": "vllm"}}
        done = run_job(align_job(steps, {"alignment": alignment, **over}), processes=processes)
        assert done.result.outcome == "succeeded", done.result.failure
        return done

    return run


@needs_vllm
@quiet_vllm
@pytest.mark.slow
@pytest.mark.parametrize(("processes", "zero"), [(1, 0), (2, 2), (2, 3)])
def test_samples_come_from_the_policy_as_it_is_trained(
    processes: int, zero: int, sampled_by_vllm: Callable[..., Any], iterations: Any
) -> None:
    """RAFT's samples become those that are rewarded; a policy of old would go on guessing among six words."""
    run = sampled_by_vllm([{"raft": RAFT}, {"ppo": PPO}], processes=processes, deepspeed={"zeroStage": zero})
    rows = iterations(run.output)
    assert rows[1]["reward"] < 0.4
    assert rows[4]["reward"] > 0.85
    assert len(rows) == 5 + 2


@needs_vllm
@quiet_vllm
@pytest.mark.slow
def test_lora_in_bf16_samples_from_what_it_has_added(sampled_by_vllm: Callable[..., Any], iterations: Any) -> None:
    training = {"precision": "bf16", "gradientCheckpointing": True, "microBatchSize": "auto"}
    run = sampled_by_vllm([{"raft": RAFT}], adapter={"type": "lora", "rank": 4}, training=training)
    rows = iterations(run.output)
    # Of 96 guesses among six words a sixth is right, and more than 0.4 six standard deviations away.
    assert rows[1]["reward"] < 0.4 < rows[4]["reward"]


@pytest.mark.parametrize("installed", [False, True])
def test_an_image_without_vllm_refuses_it_before_anything_is_loaded(
    installed: bool, align_job: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: installed or None if name == "vllm" else find(name))
    path = align_job([{"raft": RAFT}], {"alignment": {"generation": {"engine": "vllm"}}})
    job = JobDocument.model_validate_json(path.read_text())
    if installed:
        check_steps(job, 1)
        return
    with pytest.raises(JobFailure, match="this image lacks the Python package vllm"):
        check_steps(job, 1)
