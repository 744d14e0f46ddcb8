"""Volumes become folders and links, each where its mount says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alidade_local.kubelet.environment import MissingReferenceError, PodFacts, ReferencedData
from alidade_local.kubelet.eviction import bytes_in, size_limits
from alidade_local.kubelet.volumes import (
    VolumeSources,
    make_root,
    make_volumes,
    remove_pod_folder,
    update_volumes,
)

FACTS = PodFacts(pod_ip="127.20.0.1", host_ip="127.0.0.1", node_name="local", allocatable={})


@pytest.fixture
def sources(tmp_path: Path) -> VolumeSources:
    (tmp_path / "volumes" / "n" / "claim").mkdir(parents=True)
    return VolumeSources(
        data=ReferencedData(
            config_maps={"c": {"data": {"a": "1", "b": "2"}, "binaryData": {"bin": "AAE="}}},
            secrets={"s": {"data": {"key": "eA=="}}},
        ),
        facts=FACTS,
        bound_claims=frozenset({"claim"}),
        volumes_dir=tmp_path / "volumes",
    )


def make(tmp_path: Path, sources: VolumeSources, volume: dict[str, Any], **mount: Any) -> Path:
    """The real path of a volume that is mounted at /m."""
    pod = {"metadata": {"name": "p", "namespace": "n", "labels": {"l": "v"}}, "spec": {"volumes": [volume]}}
    container = {"name": "c", "volumeMounts": [{"name": volume["name"], "mountPath": "/m", **mount}]}
    make_volumes(pod, tmp_path / "pod" / "volumes", sources)
    make_root(container, tmp_path / "pod" / "root", tmp_path / "pod" / "volumes", {"NAME": "x"})
    return tmp_path / "pod" / "root" / "m"


def files(folder: Path) -> dict[str, bytes]:
    """What a program finds that goes through the names of the folder."""
    found = {}
    for path in folder.iterdir():
        if path.is_dir() and not path.name.startswith(".."):
            found |= {f"{path.name}/{name}": content for name, content in files(path).items()}
        elif path.is_file():
            found[path.name] = path.read_bytes()
    return found


def test_a_config_map_is_a_file_for_each_key(tmp_path: Path, sources: VolumeSources) -> None:
    found = make(tmp_path, sources, {"name": "v", "configMap": {"name": "c"}})
    assert files(found) == {"a": b"1", "b": b"2", "bin": b"\x00\x01"}


def test_items_choose_keys_paths_and_modes(tmp_path: Path, sources: VolumeSources) -> None:
    items = [{"key": "a", "path": "sub/name", "mode": 0o400}]
    found = make(tmp_path, sources, {"name": "v", "configMap": {"name": "c", "items": items}})
    assert files(found) == {"sub/name": b"1"}
    assert (found / "sub/name").stat().st_mode & 0o777 == 0o400


def test_files_have_the_volumes_mode_where_they_name_none(tmp_path: Path, sources: VolumeSources) -> None:
    items = [{"key": "a", "path": "a"}, {"key": "b", "path": "b", "mode": 0o440}]
    found = make(tmp_path, sources, {"name": "v", "configMap": {"name": "c", "items": items, "defaultMode": 0o400}})
    assert [(found / name).stat().st_mode & 0o777 for name in ("a", "b")] == [0o400, 0o440]


def test_one_file_of_a_config_map_can_be_mounted_and_follows_it(tmp_path: Path, sources: VolumeSources) -> None:
    volume = {"name": "v", "configMap": {"name": "c"}}
    mounted = make(tmp_path, sources, volume, subPath="a")
    assert mounted.read_text() == "1"
    pod = {"metadata": {"name": "p", "namespace": "n"}, "spec": {"volumes": [volume]}}
    changed = replace(sources, data=ReferencedData(config_maps={"c": {"data": {"a": "9"}}}))
    update_volumes(pod, tmp_path / "pod" / "volumes", changed)
    assert mounted.read_text() == "9"


def test_the_downward_api_follows_the_pod_and_tells_resources(tmp_path: Path, sources: VolumeSources) -> None:
    limit = {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}
    items = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "limit", "resourceFieldRef": limit},
    ]
    container = {"name": "c", "resources": {"limits": {"memory": "3Mi"}}}
    spec = {"volumes": [{"name": "v", "downwardAPI": {"items": items}}], "containers": [container]}
    pod = {"metadata": {"name": "p", "namespace": "n", "labels": {"l": "v"}}, "spec": spec}
    make_volumes(pod, tmp_path / "volumes", sources)
    assert files(tmp_path / "volumes" / "v") == {"labels": b'l="v"', "limit": b"3"}
    update_volumes(pod | {"metadata": {"name": "p", "labels": {"l": "w"}}}, tmp_path / "volumes", sources)
    assert files(tmp_path / "volumes" / "v") == {"labels": b'l="w"', "limit": b"3"}


def test_a_secret_is_decoded(tmp_path: Path, sources: VolumeSources) -> None:
    assert files(make(tmp_path, sources, {"name": "v", "secret": {"secretName": "s"}})) == {"key": b"x"}


def test_a_projected_volume_holds_all_its_sources(tmp_path: Path, sources: VolumeSources) -> None:
    downward = {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}
    projected = {
        "sources": [{"configMap": {"name": "c"}}, {"secret": {"name": "s"}}, {"downwardAPI": downward}],
    }
    found = files(make(tmp_path, sources, {"name": "v", "projected": projected}))
    assert found == {"a": b"1", "b": b"2", "bin": b"\x00\x01", "key": b"x", "labels": b'l="v"'}


def test_a_claim_is_its_folder_and_outlives_the_pod(tmp_path: Path, sources: VolumeSources) -> None:
    found = make(tmp_path, sources, {"name": "v", "persistentVolumeClaim": {"claimName": "claim"}})
    (found / "model").write_text("weights")
    remove_pod_folder(tmp_path / "pod")
    assert (tmp_path / "volumes" / "n" / "claim" / "model").read_text() == "weights"


def test_a_sub_path_is_made_inside_the_volume(tmp_path: Path, sources: VolumeSources) -> None:
    claim = {"name": "v", "persistentVolumeClaim": {"claimName": "claim"}}
    make(tmp_path, sources, claim, subPathExpr="runs/$(NAME)")
    assert (tmp_path / "volumes" / "n" / "claim" / "runs" / "x").is_dir()


def test_an_empty_dir_is_empty_and_writable(tmp_path: Path, sources: VolumeSources) -> None:
    found = make(tmp_path, sources, {"name": "v", "emptyDir": {"medium": "Memory"}})
    (found / "x").write_text("")
    assert files(found) == {"x": b""}


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"configMap": {"name": "none"}}, 'for volume "v" : configmap "none" not found'),
        ({"configMap": {"name": "c", "items": [{"key": "z", "path": "z"}]}}, "non-existent key z"),
        ({"configMap": {"name": "c", "items": [{"key": "a", "path": "../../out"}]}}, "leads out of the volume"),
        ({"persistentVolumeClaim": {"claimName": "unbound"}}, '"unbound" not found, or not bound yet'),
        ({"nfs": {"server": "x", "path": "/"}}, "volumes of type nfs do not exist on the local cluster"),
    ],
)
def test_what_cannot_be_mounted_is_named(
    tmp_path: Path, sources: VolumeSources, volume: dict[str, Any], message: str
) -> None:
    with pytest.raises(MissingReferenceError, match=message):
        make(tmp_path, sources, {"name": "v", **volume})


def test_an_optional_config_map_may_be_missing(tmp_path: Path, sources: VolumeSources) -> None:
    assert files(make(tmp_path, sources, {"name": "v", "configMap": {"name": "none", "optional": True}})) == {}


def test_a_sub_path_cannot_climb_out_of_its_volume(tmp_path: Path, sources: VolumeSources) -> None:
    with pytest.raises(MissingReferenceError, match="must not contain"):
        make(tmp_path, sources, {"name": "v", "emptyDir": {}}, subPath="../x")


def test_what_changed_in_its_objects_changes_in_the_volume(tmp_path: Path, sources: VolumeSources) -> None:
    projected = {"sources": [{"configMap": {"name": "c"}}, {"secret": {"name": "s"}}]}
    volume = {"name": "v", "projected": projected}
    found = make(tmp_path, sources, volume)
    changed = ReferencedData(config_maps={"c": {"data": {"a": "3", "d": "4"}}}, secrets=sources.data.secrets)
    pod = {"metadata": {"name": "p", "namespace": "n"}, "spec": {"volumes": [volume, {"name": "e", "emptyDir": {}}]}}
    update_volumes(pod, tmp_path / "pod" / "volumes", replace(sources, data=changed))
    assert files(found) == {"a": b"3", "d": b"4", "key": b"x"}


def test_a_volume_whose_object_is_gone_stays_and_the_others_are_updated(tmp_path: Path, sources: VolumeSources) -> None:
    volumes = [{"name": "v", "secret": {"secretName": "s"}}, {"name": "w", "configMap": {"name": "c"}}]
    pod = {"metadata": {"name": "p", "namespace": "n"}, "spec": {"volumes": volumes}}
    make_volumes(pod, tmp_path, sources)
    changed = ReferencedData(config_maps={"c": {"data": {"a": "3"}}}, secrets={})
    with pytest.raises(MissingReferenceError, match='for volume "v" : secret "s" not found'):
        update_volumes(pod, tmp_path, replace(sources, data=changed))
    assert files(tmp_path / "v") == {"key": b"x"}
    assert files(tmp_path / "w") == {"a": b"3"}


def test_what_files_take_counts_and_what_links_lead_to_does_not(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "large").write_bytes(b"x" * (4 << 20))
    folder = tmp_path / "volume"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_bytes(b"x" * (1 << 20))
    (folder / "link").symlink_to(elsewhere)
    (folder / "to-file").symlink_to(elsewhere / "large")
    assert 1 << 20 <= bytes_in(folder) < 2 << 20
    assert bytes_in(tmp_path / "none") == 0


def test_only_empty_dirs_with_a_limit_are_limited() -> None:
    volumes = [
        {"name": "a", "emptyDir": {"sizeLimit": "1Gi"}},
        {"name": "b", "emptyDir": {}},
        {"name": "c", "configMap": {"name": "x"}},
    ]
    assert size_limits({"spec": {"volumes": volumes}}) == {"a": "1Gi"}
    assert size_limits({"spec": {}}) == {}
