"""From a served model back to alignment: answers side by side, votes, and a RewardModel that learns from them."""

import http.client
import json
from typing import Any

import pytest

from tests.cluster_fixtures import RunningCluster as Cluster
from tests.cluster_fixtures import wait_until
from tests.e2e.jobs import PAIRS, TRAINING, apply, finetune_job, finished, read, service_address
from tests.e2e.test_modelserve import is_serving, model_serve

pytestmark = pytest.mark.slow
VOTES = 16


class Arena:
    """What the arena's page does."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address

    def _ask(self, method: str, path: str, body: object | None = None) -> str:
        connection = http.client.HTTPConnection(*self._address, timeout=60)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status == 200, f"{answer.status} {text}"
            return text
        finally:
            connection.close()

    def compare(self, message: str) -> dict[str, Any]:
        """The events of a comparison as one: id, whether both answered and alike, and both texts."""
        text = self._ask("POST", "/arena/api/comparisons", {"message": message})
        found: dict[str, Any] = {"left": "", "right": ""}
        for line in text.splitlines():
            if not line.startswith("data:"):
                continue
            event = json.loads(line.removeprefix("data:"))
            if "text" in event:
                found[event["side"]] += event["text"]
            elif "side" not in event:
                found |= event
        return found

    def vote(self, identifier: str, verdict: str) -> dict[str, Any]:
        """Who was who."""
        told: dict[str, Any] = json.loads(
            self._ask("POST", f"/arena/api/comparisons/{identifier}/vote", {"vote": verdict})
        )
        return told

    def ratings(self) -> dict[str, Any]:
        """Of both models."""
        told: dict[str, Any] = json.loads(self._ask("GET", "/arena/api/ratings"))
        return told


def test_votes_for_served_models_move_ratings_and_train_a_reward_model(trained_on_sums: Cluster) -> None:
    cluster = trained_on_sums
    apply(cluster, finetune_job("one-of-votes", steps=20), finetune_job("other-of-votes", steps=25))
    apply(cluster, model_serve("other-side", "other-of-votes"))
    apply(cluster, model_serve("judged", "one-of-votes", gateway={"arena": {"against": "other-side"}}))
    for name in ("other-side", "judged"):
        wait_until(
            lambda name=name: is_serving(cluster, name, 1),  # type: ignore[misc]
            lambda name=name: str(read(cluster, name, "modelserve")),  # type: ignore[misc]
            timeout_s=240,
        )
    wait_until(
        lambda: read(cluster, "judged", "modelserve")["status"]["gatewayReadyReplicas"] == 1, "the gateway is ready"
    )
    arena = Arena(service_address(cluster, "judged"))
    cast = 0
    for pair in PAIRS:
        made = arena.compare(pair["input"])
        assert made["answered"], made
        if made["alike"]:
            continue
        # Whoever says more is preferred: a rule that a reward model can learn.
        verdict = "left" if len(made["left"]) >= len(made["right"]) else "right"
        told = arena.vote(made["id"], verdict)
        assert {told["left"]["name"], told["right"]["name"]} == {"judged", "other-side"}
        cast += 1
        if cast == VOTES:
            break
    assert cast == VOTES
    standing = arena.ratings()
    assert standing["votes"] == VOTES
    assert {one["name"] for one in standing["ratings"]} == {"judged", "other-side"}

    reward_model = {
        "apiVersion": "alidade.dev/v1alpha1",
        "kind": "RewardModel",
        "metadata": {"name": "of-votes"},
        "spec": {
            "model": {"from": {"kind": "FineTuneJob", "name": "one-of-votes"}},
            "dataset": {"uri": "arena://judged", "maxLength": 64},
            "training": {**TRAINING, "learningRate": 0.003, "epochs": 1},
            "compute": {"workers": 1},
        },
    }
    apply(cluster, reward_model)
    finished(cluster, "of-votes", "rewardmodel")
    cluster.kubectl("delete", "modelserve", "judged", "other-side")
