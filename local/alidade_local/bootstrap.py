"""What a fresh cluster contains: its namespace, the resource types, the claim that takes outputs."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.resources
from collections.abc import Iterator
from pathlib import Path

import yaml

import alidade_crds
from alidade_local.client import AlreadyExistsError, ApiClient
from alidade_local.errors import ClusterError
from alidade_local.objects import Key, Object, annotations_of, is_condition_true, key_of
from alidade_local.resources import CLAIMS, CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES

WORKSPACE_CLAIM = "alidade-workspace"
# Reported, not enforced: the folder may grow as long as the disk has room.
WORKSPACE_SIZE = "100Gi"
ESTABLISHED_TIMEOUT_S = 20.0
DIGEST_ANNOTATION = "local.alidade.dev/digest"


def crd_texts() -> Iterator[str]:
    """PyTorchJob's definition and those of this project's resource types, as YAML."""
    yield (importlib.resources.files("alidade_local") / "manifests" / "pytorchjobs.yaml").read_text()
    for path in crd_files():
        yield path.read_text()


def crd_files() -> list[Path]:
    """The generated definitions of this project's resource types; raises ClusterError when they are not installed."""
    folder = Path(alidade_crds.__file__).parents[1]
    found = sorted(folder.glob(f"*.{alidade_crds.GROUP}.yaml"))
    if not found:
        raise ClusterError(f"the resource definitions are not in {folder}; install alidade-crds from its source folder")
    return found


def _parse(text: str) -> Object:
    # The parser in C, where PyYAML has it, is ten times faster, and starting a cluster is mostly parsing.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    document: Object = yaml.load(text, Loader=loader)
    return document


def workspace_claim() -> Object:
    """The claim in which outputs without an address of their own end up."""
    return {
        "metadata": {"name": WORKSPACE_CLAIM, "namespace": "default"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": WORKSPACE_SIZE}}},
    }


async def set_up_cluster(client: ApiClient) -> None:
    """Bring a new or an older cluster to what this version expects; returns when its types are served."""
    with contextlib.suppress(AlreadyExistsError):
        await client.create(NAMESPACES, {"metadata": {"name": "default"}})
    await _install_types(client)
    with contextlib.suppress(AlreadyExistsError):
        await client.create(CLAIMS, workspace_claim())


async def _install_types(client: ApiClient) -> None:
    """Install each type that is not there as this version has it; the digest of its YAML tells."""
    listing = await client.list(CUSTOM_RESOURCE_DEFINITIONS)
    installed = {annotations_of(definition).get(DIGEST_ANNOTATION) for definition in listing["items"]}
    changed: list[Key] = []
    for text in crd_texts():
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        if digest in installed:
            continue
        definition = _parse(text)
        definition["metadata"].setdefault("annotations", {})[DIGEST_ANNOTATION] = digest
        try:
            await client.create(CUSTOM_RESOURCE_DEFINITIONS, definition)
        except AlreadyExistsError:
            # Replaced, not merged: what this version left out has to go.
            present = await client.get(CUSTOM_RESOURCE_DEFINITIONS, key_of(definition))
            definition["metadata"]["resourceVersion"] = present["metadata"]["resourceVersion"]
            await client.update(CUSTOM_RESOURCE_DEFINITIONS, definition)
        changed.append(key_of(definition))
    async with asyncio.timeout(ESTABLISHED_TIMEOUT_S):
        for key in changed:
            await _until_established(client, key)


async def _until_established(client: ApiClient, key: Key) -> None:
    while True:
        if is_condition_true(await client.get(CUSTOM_RESOURCE_DEFINITIONS, key), "Established"):
            return
        await asyncio.sleep(0.02)
