import json
import re
from pathlib import Path
from typing import Any

import yaml

from alidade_crds.jobs import FineTuneJobSpec


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


def manifests(kbqa: Path) -> list[dict[str, Any]]:
    [kustomization] = documents(kbqa / "kustomization.yaml")
    return [manifest for name in kustomization["resources"] for manifest in documents(kbqa / name)]


def uris(value: object) -> set[str]:
    return set(re.findall(r"configmap://[^\"]+", json.dumps(value)))


def test_the_fine_tune_job_is_valid(kbqa: Path) -> None:
    [manifest] = documents(kbqa / "finetune.yaml")
    spec = FineTuneJobSpec.model_validate(manifest["spec"])
    assert spec.to_dict()["compute"]["workers"] == 2


def test_every_data_file_is_in_the_config_map(kbqa: Path) -> None:
    [kustomization] = documents(kbqa / "kustomization.yaml")
    [generator] = kustomization["configMapGenerator"]
    assert sorted(generator["files"]) == sorted(f"data/{path.name}" for path in (kbqa / "data").iterdir())


def test_manifests_name_data_that_the_config_map_has(kbqa: Path) -> None:
    [kustomization] = documents(kbqa / "kustomization.yaml")
    [generator] = kustomization["configMapGenerator"]
    assert kustomization["generatorOptions"]["disableNameSuffixHash"] is True
    known = {f"configmap://{generator['name']}/{Path(file).name}" for file in generator["files"]}
    named = uris(manifests(kbqa))
    assert named
    assert named <= known


def test_the_readme_names_every_file(kbqa: Path) -> None:
    readme = (kbqa / "README.md").read_text(encoding="utf-8")
    files = [path for path in kbqa.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    unnamed = [path.name for path in files if path.name != "README.md" and f"`{path.relative_to(kbqa)}`" not in readme]
    assert unnamed == []
