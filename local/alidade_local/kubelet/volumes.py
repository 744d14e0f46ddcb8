"""The volumes of a pod, made as folders and links below the pod's own folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from alidade_local.kubelet.atomic_files import File, write_files
from alidade_local.kubelet.environment import (
    MissingReferenceError,
    PodFacts,
    ReferencedData,
    expand,
    field_value,
    resource_value,
)
from alidade_local.objects import Object, namespace_of

TERMINATION_MESSAGE_PATH = "/dev/termination-log"
_DEFAULT_MODE = 0o644
_OF_OBJECTS = {"configMap", "secret", "downwardAPI", "projected"}


@dataclass(frozen=True)
class VolumeSources:
    """What the contents of volumes are made from.

    bound_claims: names of the namespace's PersistentVolumeClaims that are bound.
    volumes_dir: `<data_dir>/volumes`, in which each claim is the folder `<namespace>/<claim>`.
    """

    data: ReferencedData
    facts: PodFacts
    bound_claims: frozenset[str]
    volumes_dir: Path


def make_volumes(pod: Object, target: Path, sources: VolumeSources) -> None:
    """Create each volume of the pod as `target/<name>`; raises MissingReferenceError if one cannot be made yet."""
    target.mkdir(parents=True, exist_ok=True)
    for volume in pod["spec"].get("volumes") or []:
        try:
            _make_volume(pod, volume, target / volume["name"], sources)
        except MissingReferenceError as error:
            raise _named(volume, error) from error


def _make_volume(pod: Object, volume: Object, path: Path, sources: VolumeSources) -> None:
    if "persistentVolumeClaim" in volume:
        _link(path, claim_folder(pod, volume["persistentVolumeClaim"]["claimName"], sources))
    elif "hostPath" in volume:
        _link(path, Path(volume["hostPath"]["path"]))
    elif "emptyDir" in volume:
        path.mkdir(exist_ok=True)
    else:
        write_files(path, _files_of(pod, volume, sources))


def has_volumes_of_objects(pod: Object) -> bool:
    """Whether a volume of the pod shows what stands in an object, and so changes with it."""
    return any(_OF_OBJECTS & set(volume) for volume in pod["spec"].get("volumes") or [])


def update_volumes(pod: Object, target: Path, sources: VolumeSources) -> None:
    """Bring the volumes that are made of objects (ConfigMaps, Secrets, the pod itself) to what these say now.

    A volume whose source is gone stays as it is; MissingReferenceError says which, when the others are done.
    """
    missing: list[MissingReferenceError] = []
    for volume in pod["spec"].get("volumes") or []:
        if _OF_OBJECTS & set(volume):
            try:
                write_files(target / volume["name"], _files_of(pod, volume, sources))
            except MissingReferenceError as error:
                missing.append(_named(volume, error))
    if missing:
        raise missing[0]


def _named(volume: Object, error: MissingReferenceError) -> MissingReferenceError:
    return MissingReferenceError(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}')


def claim_folder(pod: Object, claim: str, sources: VolumeSources) -> Path:
    """The folder of a claim of the pod's namespace; raises MissingReferenceError until the claim is bound."""
    if claim not in sources.bound_claims:
        raise MissingReferenceError(f'persistentvolumeclaim "{claim}" not found, or not bound yet')
    return sources.volumes_dir / namespace_of(pod) / claim


def _files_of(pod: Object, volume: Object, sources: VolumeSources) -> dict[str, File]:
    """The files of a configMap, secret, downwardAPI or projected volume by their path in it."""
    if "projected" in volume:
        projected = volume["projected"]
        files: dict[str, File] = {}
        for source in projected.get("sources") or []:
            files |= _files_of_source(pod, source, projected.get("defaultMode"), sources)
        return files
    source = next((volume[kind] for kind in ("configMap", "secret", "downwardAPI") if kind in volume), None)
    if source is None:
        kinds = ", ".join(sorted(set(volume) - {"name"}))
        raise MissingReferenceError(
            f"volumes of type {kinds} do not exist on the local cluster; "
            "use configMap, secret, projected, downwardAPI, emptyDir, hostPath or persistentVolumeClaim"
        )
    return _files_of_source(pod, volume, source.get("defaultMode"), sources)


def _files_of_source(pod: Object, holder: Object, default_mode: int | None, sources: VolumeSources) -> dict[str, File]:
    mode = _DEFAULT_MODE if default_mode is None else default_mode
    namespace = namespace_of(pod)
    if source := holder.get("downwardAPI"):
        return {
            item["path"]: File(_downward_value(pod, item, sources.facts).encode(), item.get("mode") or mode)
            for item in source.get("items") or []
        }
    if source := holder.get("configMap"):
        name = source["name"]
        contents = sources.data.config_map(namespace, name, optional=bool(source.get("optional")))
    elif source := holder.get("secret"):
        name = source.get("secretName") or source["name"]
        contents = sources.data.secret(namespace, name, optional=bool(source.get("optional")))
    else:
        raise MissingReferenceError(f"projected sources of type {', '.join(holder)} do not exist on the local cluster")
    items: list[Object] = source.get("items") or [{"key": key, "path": key} for key in contents]
    files = {}
    for item in items:
        if item["key"] in contents:
            files[item["path"]] = File(contents[item["key"]], item.get("mode") or mode)
        elif not source.get("optional"):
            raise MissingReferenceError(f"references non-existent key {item['key']} of {name}")
    return files


def _downward_value(pod: Object, item: Object, facts: PodFacts) -> str:
    if "fieldRef" in item:
        return field_value(pod, item["fieldRef"]["fieldPath"], facts)
    return resource_value(pod, {}, item["resourceFieldRef"], facts)


def _link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target, target_is_directory=True)


def termination_path(container: Object) -> str:
    return str(container.get("terminationMessagePath") or TERMINATION_MESSAGE_PATH)


def mount_paths(container: Object) -> list[str]:
    """The container paths that exist below its root: mounts, devices' place of the termination message."""
    return [mount["mountPath"] for mount in container.get("volumeMounts") or []] + [termination_path(container)]


def make_root(container: Object, root: Path, volumes: Path, environment: dict[str, str]) -> None:
    """Lay out a container's root: a link for each mount, a folder for the termination message.

    environment: what subPathExpr may refer to.
    """
    root.mkdir(parents=True, exist_ok=True)
    mounts: list[Object] = sorted(container.get("volumeMounts") or [], key=lambda mount: len(mount["mountPath"]))
    for mount in mounts:
        sub_path = mount.get("subPath") or expand(mount.get("subPathExpr") or "", environment)
        target = volumes / mount["name"]
        if not os.path.lexists(target):
            raise MissingReferenceError(f'volumeMount names volume "{mount["name"]}", which the pod does not have')
        _mount(below(root, mount["mountPath"]), below(target, sub_path) if sub_path else target)
    below(root, termination_path(container)).parent.mkdir(parents=True, exist_ok=True)


def below(root: Path, path: str) -> Path:
    """`path` below `root`; raises MissingReferenceError when it climbs out of it."""
    if ".." in Path(path).parts:
        raise MissingReferenceError(f"path {path!r} must not contain '..'")
    return root / path.lstrip("/")


def _mount(place: Path, target: Path) -> None:
    if not target.exists():
        target.mkdir(parents=True)  # a subPath that does not exist is made as a folder, as the kubelet does
    if place.is_symlink():
        place.unlink()
    elif place.is_dir():
        raise MissingReferenceError(f"two mounts share the path {place}")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


def remove_pod_folder(folder: Path) -> None:
    """Delete a pod's folder with its logs; links to claims are removed, never followed."""
    shutil.rmtree(folder, ignore_errors=True)


def prune_pod_folders(pods_dir: Path, keep: Iterable[str]) -> None:
    """Delete the folders of pods that no longer exist."""
    kept = set(keep)
    for folder in pods_dir.iterdir() if pods_dir.exists() else ():
        if folder.name not in kept:
            remove_pod_folder(folder)
