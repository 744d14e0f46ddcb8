"""Where addresses lie on this machine, and the sentence for each that leads nowhere."""

import errno
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import huggingface_hub.constants
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure
from alidade_engine.sources import Locations

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"train.jsonl": b'{"text": "x"}\n', "deep/more.csv": b"text\ny\n", "weights.bin": b"pickle"}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's API as fetching a repository needs: org/data exists, org/gated needs permission."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        path = self.path.partition("?")[0]
        if path.startswith("/api/datasets/org/data/revision/"):
            known = path.endswith(("/main", COMMIT))
            self._answer(*(_listing() if known else (404, b"", {"X-Error-Code": "RevisionNotFound"})))
        elif path == f"/api/datasets/org/data/tree/{COMMIT}":
            files = [{"type": "file", "path": name, "size": len(body), "oid": COMMIT} for name, body in FILES.items()]
            self._answer(200, json.dumps(files).encode(), {"Content-Type": "application/json"})
        elif path.startswith("/api/datasets/org/down"):
            self._answer(503, b"", {})
        elif path.startswith("/api/datasets/org/forbidden"):
            self._answer(403, b"", {})
        elif path.startswith("/api/datasets/org/gated"):
            self._answer(403, b"", {"X-Error-Code": "GatedRepo"})
        elif path.startswith(f"/datasets/org/data/resolve/{COMMIT}/"):
            name = path.partition(COMMIT + "/")[2]
            headers = {"ETag": f'"{hash(name)}"', "X-Repo-Commit": COMMIT}
            self._answer(200, FILES[name], headers)
        else:
            self._answer(404, b"", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """The test's output stays the test's."""


def _listing() -> tuple[int, bytes, dict[str, str]]:
    listing = {"id": "org/data", "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]}
    return 200, json.dumps(listing).encode(), {"Content-Type": "application/json"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """A hub of this machine's own; yields the paths that were asked for."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneHub", (Hub,), {"asked": asked}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    files = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def storage() -> Iterator[MemoryFileSystem]:
    """Object storage in memory under s3://."""

    class Memory(MemoryFileSystem):
        protocol = "s3"
        store: dict[str, Any] = {}
        pseudo_dirs = [""]

    fsspec.register_implementation("s3", Memory, clobber=True)
    yield Memory()
    _registry.pop("s3")


def test_volumes_and_config_maps_are_found_below_the_folder_told(tmp_path: Path) -> None:
    locations = Locations.from_environment({"ALIDADE_VOLUMES": str(tmp_path), "ALIDADE_SCRATCH": "/s"})
    for name in ("claim/a/b.json", "configmaps/kbqa/train.json"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("[]")
    assert locations.resolve_data("pvc://claim/a/b.json") == tmp_path / "claim/a/b.json"
    assert locations.resolve_data("configmap://kbqa/train.json") == tmp_path / "configmaps/kbqa/train.json"
    assert locations.resolve_data(f"file://{tmp_path}/claim/a/b.json") == tmp_path / "claim/a/b.json"
    assert locations.resolve_model("pvc://claim/a") == tmp_path / "claim/a"
    assert locations.scratch == Path("/s")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("pvc://other/x.json", "dataset.uri is pvc://other/x.json; the claim other is not mounted in this pod."),
        (
            "pvc://data/kbqa/x.json",
            "dataset.uri is pvc://data/kbqa/x.json, which does not exist; folder kbqa of claim data holds train.json.",
        ),
        (
            "pvc://data/no/such/x.json",
            "dataset.uri is pvc://data/no/such/x.json, which does not exist; folder . of claim data holds kbqa.",
        ),
        ("configmap://kbqa/x.json", "dataset.uri is configmap://kbqa/x.json; the ConfigMap kbqa has no key x.json."),
        (
            "http://host/x.json",
            "dataset.uri: 'http://host/x.json' says nothing of what lies there: set sha256 beside it",
        ),
        ("pvc://data/../../etc", "dataset.uri: 'pvc://data/../../etc' climbs out of its volume with '..'"),
    ],
)
def test_an_address_of_nothing_says_what_is_there(locations: Locations, uri: str, message: str) -> None:
    (locations.volumes / "data" / "kbqa").mkdir()
    (locations.volumes / "data" / "kbqa" / "train.json").write_text("[]")
    with pytest.raises(JobFailure) as caught:
        locations.resolve_data(uri)
    assert caught.value.message.startswith(message)
    assert not caught.value.retryable


def test_a_link_stays_within_its_volume_or_is_refused(locations: Locations) -> None:
    volume = locations.volumes / "data"
    (volume / "a.json").write_text("[]")
    (volume / "latest.json").symlink_to("a.json")
    assert locations.resolve_data("pvc://data/latest.json").read_text() == "[]"
    (volume / "environment.json").symlink_to("/proc/self/environ")
    (volume / "many").mkdir()
    (volume / "many" / "keys.json").symlink_to(locations.scratch)
    (volume / "out").symlink_to(locations.scratch)
    for resolve, uri, link in (
        (locations.resolve_data, "pvc://data/environment.json", "environment.json"),
        (locations.resolve_data, "pvc://data/many", "many/keys.json"),
        (locations.resolve_model, "pvc://data/out/model", "out/model"),
        (locations.resolve_output, "pvc://data/out/new", "out/new"),
    ):
        with pytest.raises(JobFailure, match=f"where {link} is a link that leads out of its volume"):
            resolve(uri)
    assert not (locations.scratch / "new").exists()


def test_a_missing_model_and_missing_data_have_reasons_of_their_own(locations: Locations) -> None:
    with pytest.raises(JobFailure) as caught:
        locations.resolve_model("pvc://data/x")
    assert caught.value.reason is FailureReason.MODEL_NOT_FOUND
    assert caught.value.message.startswith("model.uri is pvc://data/x, which does not exist")
    with pytest.raises(JobFailure) as caught:
        locations.resolve_data("pvc://data/x")
    assert caught.value.reason is FailureReason.DATA_NOT_FOUND


@pytest.mark.parametrize("uri", ["hf://org/data", "hf://datasets/org/data", f"hf://org/data@{COMMIT}"])
def test_a_dataset_of_the_hub_is_fetched_without_pickles(locations: Locations, hub: list[str], uri: str) -> None:
    folder = locations.resolve_data(uri)
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {name: content for name, content in FILES.items() if name != "weights.bin"}
    assert not any("weights.bin" in path for path in hub)


@pytest.mark.parametrize("uri", ["hf://org/data/train.jsonl", "hf://datasets/org/data@main/train.jsonl"])
def test_one_file_of_a_repository_is_fetched_alone(locations: Locations, hub: list[str], uri: str) -> None:
    assert locations.resolve_data(uri).read_bytes() == FILES["train.jsonl"]
    assert not any("more.csv" in path for path in hub)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("hf://org/none", "there is no such repository, or it is private and HF_TOKEN is absent or of no use"),
        ("hf://org/gated", "access is gated: accept its terms, and give HF_TOKEN of an account that has access"),
        ("hf://org/data@v9", "the repository has no revision v9"),
        ("hf://org/data/other.jsonl", "the repository has no other.jsonl"),
    ],
)
def test_a_repository_that_cannot_be_had_is_said_well(locations: Locations, uri: str, message: str) -> None:
    with pytest.raises(JobFailure) as caught:
        locations.resolve_data(uri)
    assert caught.value.message == f"dataset.uri is {uri}; {message}."
    assert not caught.value.retryable


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(("name", "status", "retryable"), [("down", 503, True), ("forbidden", 403, False)])
def test_a_hub_that_fails_is_asked_again_and_one_that_refuses_is_not(
    locations: Locations, name: str, status: int, retryable: bool
) -> None:
    with pytest.raises(JobFailure, match=rf"dataset.uri is hf://org/{name}; the hub answered: .*{status}") as caught:
        locations.resolve_data(f"hf://org/{name}")
    assert caught.value.retryable is retryable


def test_a_hub_out_of_reach_is_worth_another_attempt(
    locations: Locations, hub: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(
        JobFailure, match=r"model.uri is hf://org/data; the Hugging Face hub cannot be reached"
    ) as caught:
        locations.resolve_model("hf://org/data")
    assert caught.value.reason is FailureReason.MODEL_NOT_FOUND
    assert caught.value.retryable
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(JobFailure, match="Put the files on a volume and name them as pvc://CLAIM/PATH") as caught:
        locations.resolve_data("hf://org/data")
    assert hub == []


def test_object_storage_is_fetched_and_results_are_uploaded(locations: Locations, storage: MemoryFileSystem) -> None:
    storage.pipe({"/bucket/set/a.jsonl": b"1", "/bucket/set/deep/b.jsonl": b"2"})
    folder = locations.resolve_data("s3://bucket/set")
    assert (folder / "a.jsonl").read_bytes() == b"1"
    assert (folder / "deep" / "b.jsonl").read_bytes() == b"2"
    assert locations.resolve_data("s3://bucket/set/a.jsonl").read_bytes() == b"1"
    output = locations.resolve_output("s3://bucket/out")
    (output / "model").mkdir()
    (output / "model" / "config.json").write_text("{}")
    locations.publish(output, "s3://bucket/out")
    assert storage.cat("/bucket/out/model/config.json") == b"{}"


@pytest.mark.usefixtures("storage")
def test_an_object_that_is_not_there_is_said(locations: Locations) -> None:
    with pytest.raises(JobFailure, match=r"dataset.uri is s3://bucket/none, which does not exist") as caught:
        locations.resolve_data("s3://bucket/none")
    assert caught.value.reason is FailureReason.DATA_NOT_FOUND


def test_a_disk_that_fills_up_is_told_from_an_address_that_is_wrong(
    locations: Locations, storage: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.pipe("/bucket/a.jsonl", b"1")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(type(storage), "get_file", full)
    with pytest.raises(JobFailure, match="the scratch volume filled up") as caught:
        locations.resolve_data("s3://bucket/a.jsonl")
    assert caught.value.reason is FailureReason.DISK_FULL


@pytest.mark.parametrize(("uri", "package"), [("s3://bucket/x", "s3fs"), ("gs://bucket/x", "gcsfs")])
def test_a_missing_package_is_named(locations: Locations, uri: str, package: str) -> None:
    try:
        __import__(package)
    except ImportError:
        with pytest.raises(JobFailure, match=f"needs the package {package}, which this image lacks"):
            locations.resolve_data(uri)
    else:
        pytest.skip(f"{package} is installed")


def test_an_output_folder_is_made_and_proved_writable(locations: Locations) -> None:
    folder = locations.resolve_output("pvc://data/models/kbqa")
    assert folder == locations.volumes / "data/models/kbqa"
    assert list(folder.iterdir()) == []
    locations.publish(folder, "pvc://data/models/kbqa")
    with pytest.raises(JobFailure, match="the claim other is not mounted"):
        locations.resolve_output("pvc://other/x")
    with pytest.raises(JobFailure, match="outputs go to pvc://, s3://, gs:// or file://"):
        locations.resolve_output("hf://org/model")
    (locations.volumes / "data" / "file").write_text("")
    with pytest.raises(JobFailure, match=r"output.uri is pvc://data/file/x, where nothing can be written") as caught:
        locations.resolve_output("pvc://data/file/x")
    assert caught.value.reason is FailureReason.VOLUME_READ_ONLY


def test_a_message_names_what_the_user_wrote_and_not_where_it_is_mounted(tmp_path: Path) -> None:
    locations = Locations(tmp_path / "volumes", tmp_path / "scratch")
    text = f"{tmp_path}/volumes/models/base has no config.json; {tmp_path}/volumes/configmaps/data/a.json is empty"
    assert locations.as_addresses(text) == "pvc://models/base has no config.json; configmap://data/a.json is empty"
