"""The example of two stages: data as the script makes it, manifests that name one another and the data."""

from pathlib import Path
from types import ModuleType

import pytest
import yaml

from alidade_crds.jobs import FineTuneJobSpec
from tests.examples.conftest import EXAMPLES, load_script
from tests.examples.test_manifests import manifest, uris

FOLDER = EXAMPLES / "vocabulary"
STAGES = ("base.yaml", "embeddings.yaml", "all.yaml")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("make_data", FOLDER)


def test_the_committed_files_are_what_the_script_makes(script: ModuleType, tmp_path: Path) -> None:
    assert script.main(["--output", str(tmp_path)]) == 0
    stale = [name for name in script.FILES if (tmp_path / name).read_bytes() != (FOLDER / "data" / name).read_bytes()]
    assert stale == [], "run: python examples/vocabulary/make_data.py"


def test_no_held_out_text_is_trained_on(script: ModuleType) -> None:
    texts = {
        name: {one["text"] for one in yaml.safe_load((FOLDER / "data" / name).read_text())["instances"]}
        for name in script.FILES
    }

    assert not texts["chinese.json"] & texts["chinese-heldout.json"]
    assert len(texts["chinese-heldout.json"]) > 50


def test_each_stage_goes_on_from_the_one_before_with_data_that_the_config_map_has() -> None:
    [generator] = manifest(FOLDER / "data" / "kustomization.yaml")["configMapGenerator"]
    known = {f"configmap://{generator['name']}/{file}" for file in generator["files"]}
    stages = [manifest(FOLDER / name) for name in STAGES]
    specs = [FineTuneJobSpec.model_validate(stage["spec"]) for stage in stages]

    assert all(uris(stage) <= known for stage in stages)
    for before, after in zip(stages, specs[1:], strict=False):
        assert after.model.from_ is not None
        assert after.model.from_.name == before["metadata"]["name"]
    assert [spec.vocabulary is not None for spec in specs] == [False, True, False]
    assert specs[1].vocabulary is not None
    assert (specs[1].vocabulary.train, specs[1].adapter.type) == ("embeddings", "none")
    assert (specs[2].adapter.type, specs[2].adapter.train_embeddings) == ("lora", True)
    assert manifest(FOLDER / "kustomization.yaml")["resources"] == ["data", *STAGES]
