"""The benchmark of reward models and DPO does not rot: its jobs are valid, and its preferences can be learned."""

import pytest

from alidade_crds.contract import JobDocument
from bench.preferences import Setting, _job, preferences


@pytest.mark.parametrize("method", ["reward", "dpo"])
def test_its_jobs_are_valid(method: str) -> None:
    job = JobDocument.model_validate(_job(Setting(method, "alidade", 0)))
    assert job.training.global_batch_size == 32


def test_its_preferences_follow_the_worths_but_for_chance() -> None:
    pairs, right = preferences(400)
    assert 0.8 < sum(right) / len(right) < 0.95
    assert all(pair["chosen"] != pair["rejected"] for pair in pairs)
