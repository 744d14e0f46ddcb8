"""arena://NAME in specs: what it stands for, and that nothing else is touched."""

import copy

from alidade_operator.api import REWARD_MODEL
from alidade_operator.arenas import votes_folder, with_arenas_resolved
from alidade_operator.config import OperatorConfig
from alidade_operator.reconcile.plan import TrainingJob

CONFIG = OperatorConfig(workspace_claim="space")


def reward_model() -> dict:
    return {
        "metadata": {"namespace": "default", "name": "taste", "uid": "1", "generation": 1},
        "spec": {
            "model": {"from": {"kind": "FineTuneJob", "name": "sft"}},
            "dataset": {
                "uri": "arena://kbqa",
                "template": "arena://is not an address when it is a sentence",
                "mix": [{"uri": "arena://other", "weight": 0.5}, {"uri": "pvc://data/pairs.json", "weight": 1}],
            },
        },
    }


def test_votes_are_read_from_the_folder_of_the_arena() -> None:
    body = reward_model()
    before = copy.deepcopy(body)
    dataset = with_arenas_resolved(body, CONFIG)["spec"]["dataset"]
    assert dataset["uri"] == "pvc://space/arenas/kbqa" == votes_folder("kbqa", CONFIG)
    assert [part["uri"] for part in dataset["mix"]] == ["pvc://space/arenas/other", "pvc://data/pairs.json"]
    assert dataset["template"] == before["spec"]["dataset"]["template"]
    assert body == before, "the cache's own object is left as it is"


def test_the_resolved_resource_is_a_job_like_any_other() -> None:
    job = TrainingJob.parse(REWARD_MODEL, with_arenas_resolved(reward_model(), CONFIG))
    assert job.spec is not None, job.spec_error


def test_a_resource_without_a_spec_stays_as_it_is() -> None:
    assert with_arenas_resolved({"metadata": {}}, CONFIG) == {"metadata": {}}
