"""Models on the hub: the real client, against a hub on this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import huggingface_hub.constants
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import _registry
from huggingface_hub import ModelCard

from alidade_crds.contract import HUB_TOKEN_ENV
from alidade_crds.publishing import HubPush
from alidade_trainer.publishing.hub import push
from alidade_trainer.publishing.refusal import Refusal
from tests.trainer.publishing.fakehub import TOKEN, Hub, running

# Of the client's upload, about its own HTTP library.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

MakeJob = Callable[..., Path]
RunJob = Callable[..., Any]
TO = HubPush(repository="org/kbqa")
CARD = "---\nlibrary_name: transformers\n---\n\n# kbqa\n"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running() as one:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", one.address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        # The other way of uploading speaks to further servers.
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        yield one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "README.md").write_text(CARD)
    return model


def pushed(folder: Path, to: HubPush = TO, token: str | None = TOKEN) -> str:
    return push(folder, to, message="m", token=token).revision


def test_a_model_is_one_commit_and_the_same_model_is_none(hub: Hub, folder: Path) -> None:
    first = pushed(folder)
    repository = hub.repositories["org/kbqa"]
    assert repository.private
    assert repository.commits == ["m"]
    assert repository.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert pushed(folder) == first == repository.head
    (folder / "model.safetensors").write_bytes(b"others")
    assert pushed(folder) != first
    assert len(repository.commits) == 2


def test_weights_of_the_model_before_go_and_other_files_stay(hub: Hub, folder: Path) -> None:
    pushed(folder)
    files = hub.repositories["org/kbqa"].files
    left = {"model-00001-of-00002.safetensors": b"1", "model.safetensors.index.json": b"{}", "picture.png": b"p"}
    files |= left | {"lora/adapter_model.safetensors": b"a"}
    pushed(folder)
    assert set(files) == {
        "config.json", "model.safetensors", "README.md", "picture.png", "lora/adapter_model.safetensors",
    }  # fmt: skip


def test_the_card_names_the_licence_that_was_given(hub: Hub, folder: Path) -> None:
    pushed(folder, HubPush(repository="org/kbqa", license="apache-2.0"))
    card = ModelCard(hub.repositories["org/kbqa"].files["README.md"].decode())
    assert card.data.license == "apache-2.0"
    assert card.text.strip() == "# kbqa"
    assert (folder / "README.md").read_text() == CARD, "the output stays as its manifest says"


def test_what_the_hub_refuses_is_told(hub: Hub, folder: Path) -> None:
    with pytest.raises(
        Refusal, match=r"the hub answered 403: the token may not write to org/kbqa\. Name a Secret"
    ) as no:
        pushed(folder, token="hf_reader")
    assert not no.value.retryable
    hub.failing = 1
    with pytest.raises(Refusal, match=r"the hub answered .*503") as busy:
        pushed(folder)
    assert busy.value.retryable


def test_a_hub_out_of_reach_is_worth_another_attempt(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Refusal, match="the hub cannot be reached: ConnectError") as caught:
        pushed(folder)
    assert caught.value.retryable


class Bucket(LocalFileSystem):
    """Object storage of this machine's disk, which processes share."""

    protocol = "s3"
    folder = ""

    def __init__(self, **options: Any) -> None:
        super().__init__(auto_mkdir=True, **options)

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path if path.startswith("/") else f"{cls.folder}/{path}"

    def find(self, path: str, *args: Any, **options: Any) -> dict[str, Any]:
        found = super().find(path, *args, **options)
        return {name.removeprefix(f"{self.folder}/"): info for name, info in found.items()}


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "storage"
    folder.mkdir()
    monkeypatch.setattr(Bucket, "folder", str(folder))
    fsspec.register_implementation("s3", Bucket, clobber=True)
    yield folder
    _registry.pop("s3")


def test_a_model_in_a_bucket_is_pushed_by_a_later_pod_that_has_nothing_else(
    hub: Hub, bucket: Path, make_job: MakeJob, run_job: RunJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(HUB_TOKEN_ENV, TOKEN)
    job = make_job({"training": {"maxSteps": 2}, "publish": {"hub": {"repository": "org/kbqa"}}, "output": "s3://b/o"})
    hub.failing = 1
    assert run_job(job).result.failure.reason == "PublishFailed"
    written = (bucket / "b" / "o" / "model" / "lineage.json").read_bytes()
    shutil.rmtree(tmp_path / "scratch")

    published = run_job(job).result.published

    assert published.hub.repository == "org/kbqa"
    assert hub.repositories["org/kbqa"].files["lineage.json"] == written, "which says when it was made"


def test_a_job_trains_once_however_often_its_model_is_pushed(
    hub: Hub, make_job: MakeJob, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HUB_TOKEN_ENV, TOKEN)
    wanted = {"hub": {"repository": "org/kbqa", "license": "mit"}}
    job = make_job({"training": {"maxSteps": 2}, "publish": wanted})
    hub.failing = 1
    failed = run_job(job)
    failure = failed.result.failure
    assert failure is not None
    assert (failure.reason, failure.retryable) == ("PublishFailed", True)
    assert failure.message.startswith(f"The model is complete at file://{failed.output}/model, but publish.hub.")
    weights = failed.output / "model" / "model.safetensors"
    written = weights.stat().st_mtime_ns

    run, again = run_job(job), run_job(job)

    repository = hub.repositories["org/kbqa"]
    assert run.result.published == again.result.published
    assert run.result.published.hub.revision == repository.head
    assert repository.commits == [f"FineTuneJob team/tiny: {run.result.model.digest}"]
    assert repository.files["model.safetensors"] == weights.read_bytes()
    assert weights.stat().st_mtime_ns == written, "nothing is trained again"
    card = ModelCard(repository.files["README.md"].decode())
    assert (card.data.license, card.data.pipeline_tag) == ("mit", "text-generation")
    measured = {one.metric_name: one.metric_value for one in card.data.eval_results}
    assert measured["eval_loss"] == pytest.approx(run.result.metrics["eval_loss"], abs=1e-6)
    assert json.loads(repository.files["lineage.json"])["jobFingerprint"] in card.text
