"""From serving back to alignment: what people voted in an arena is what a reward model learns."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alidade_operator.arenas import with_arenas_resolved
from alidade_operator.config import OperatorConfig
from tests.gateway.talking import Arena, Talkers

VOTES = 32


@pytest.mark.slow
def test_votes_of_an_arena_train_a_reward_model(
    make_job: Callable[..., Path], run_job: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People like what `two` says; now and then nobody is better, and the gateway was killed in a write."""
    resource = {"spec": {"dataset": {"uri": "arena://tiny", "validation": {"uri": None, "fraction": 0.25}}}}
    dataset = with_arenas_resolved(resource, OperatorConfig())["spec"]["dataset"]
    claim, _, folder = dataset["uri"].removeprefix("pvc://").partition("/")
    volumes = tmp_path / "volumes"
    votes = volumes / claim / folder
    with Talkers() as talkers, Arena(talkers, votes) as arena:
        for number in range(VOTES + 4):
            compared = arena.compare(f"number{number} of train")
            verdict = compared.side_of("two") if number < VOTES else ("both_bad", "tie")[number % 2]
            assert arena.vote(compared.id, verdict).status == 200
        last = arena.compare("a follow-up", after=compared.id)
        assert arena.vote(last.id, last.side_of("two")).status == 200
        arena.gateway.kill()
        (path,) = votes.glob("votes-*.jsonl")
        with path.open("ab") as torn:
            torn.write(b'{"prompt":')
        arena.gateway = arena.another_gateway()
        assert arena.ratings()["votes"] == VOTES + 5
    monkeypatch.setenv("ALIDADE_VOLUMES", str(volumes))
    job = make_job(
        {
            "stage": "reward",
            "dataset": {**dataset, "format": "preference"},
            "training": {"maxSteps": 12, "evaluateEverySteps": 12, "epochs": 9},
            "checkpoint": {"everySteps": 12},
        }
    )
    run = run_job(job)
    assert run.result.outcome == "succeeded", run.result.failure
    pairs = run.result.metrics["heldOutPairs"]
    assert 0 < pairs < VOTES
    assert run.result.metrics["accuracy"] == 1.0
