import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from alidade_crds.alignmentrun import AlignmentRunSpec
from alidade_crds.jobs import FineTuneJobSpec

SPECS = {"FineTuneJob": FineTuneJobSpec, "AlignmentRun": AlignmentRunSpec}
FILES = ("finetune.yaml", "pretrain.yaml", "align-raft.yaml", "align-ppo.yaml", "align-two-rewards.yaml")
RUNS = tuple(name for name in FILES if name.startswith("align-"))


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


def manifest(path: Path) -> dict[str, Any]:
    [document] = documents(path)
    return document


def uris(value: object) -> set[str]:
    return set(re.findall(r"configmap://[^\"]+", json.dumps(value)))


@pytest.mark.parametrize("name", FILES)
def test_a_manifest_is_valid_and_names_data_that_the_config_map_has(kbqa: Path, name: str) -> None:
    document = manifest(kbqa / name)
    SPECS[document["kind"]].model_validate(document["spec"])
    kustomization = manifest(kbqa / "data" / "kustomization.yaml")
    assert kustomization["generatorOptions"]["disableNameSuffixHash"] is True
    [generator] = kustomization["configMapGenerator"]
    known = {f"configmap://{generator['name']}/{file}" for file in generator["files"]}
    named = uris(document)
    assert named
    assert named <= known


def test_every_manifest_is_tested_and_has_a_name_of_its_own(kbqa: Path) -> None:
    found = sorted(path.name for path in kbqa.glob("*.yaml") if path.name != "kustomization.yaml")
    assert found == sorted(FILES)
    assert len({manifest(kbqa / name)["metadata"]["name"] for name in FILES}) == len(FILES)


def test_every_data_file_is_in_the_config_map(kbqa: Path) -> None:
    [generator] = manifest(kbqa / "data" / "kustomization.yaml")["configMapGenerator"]
    assert sorted(generator["files"]) == sorted(path.name for path in (kbqa / "data").glob("*.json"))


def test_the_whole_folder_is_data_pretraining_and_raft(kbqa: Path) -> None:
    assert manifest(kbqa / "kustomization.yaml")["resources"] == ["data", "pretrain.yaml", "align-raft.yaml"]


@pytest.mark.parametrize("name", RUNS)
def test_runs_start_alike_so_that_sft_and_reward_model_are_trained_once(kbqa: Path, name: str) -> None:
    spec, first = manifest(kbqa / name)["spec"], manifest(kbqa / "align-raft.yaml")["spec"]
    assert spec["sft"] == first["sft"]
    assert spec["rewardModels"][0]["template"] == first["rewardModels"][0]["template"]
    base = spec["sft"]["template"]["model"]["from"]
    assert base == {"kind": "FineTuneJob", "name": manifest(kbqa / "pretrain.yaml")["metadata"]["name"]}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_asks_questions_that_it_trains_on_and_is_watched_on_others(kbqa: Path, name: str) -> None:
    spec = manifest(kbqa / name)["spec"]
    assert spec["prompts"]["uri"].endswith("/demonstrations.json")
    assert spec["prompts"]["validation"]["uri"].endswith("/questions.json")
    assert spec["guardrails"]["overOptimization"]["function"] == "exact_match"
    assert all(reward.get("function") != "exact_match" for reward in spec["rewardModels"])


def test_the_readme_names_every_file(kbqa: Path) -> None:
    readme = (kbqa / "README.md").read_text(encoding="utf-8")
    files = [path for path in kbqa.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    unnamed = [path.name for path in files if path.name != "README.md" and f"`{path.relative_to(kbqa)}`" not in readme]
    assert unnamed == []


def test_the_reward_for_form_accepts_every_answer_there_is(kbqa: Path, make_data: ModuleType) -> None:
    form = next(one for one in manifest(kbqa / "align-two-rewards.yaml")["spec"]["rewardModels"] if "pattern" in one)
    answers = {fact.object for fact in make_data.read_facts(kbqa / "facts.tsv")}
    assert [answer for answer in answers if not re.search(form["pattern"], answer)] == []
    for broken in ("卢比 dollar", "昆�", " dollar", "19世纪"):
        assert not re.search(form["pattern"], broken), broken
