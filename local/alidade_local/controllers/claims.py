"""The claim binder: a PersistentVolumeClaim is a folder of this machine, made with the claim and removed with it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from alidade_local.client import ApiClient, NotFoundError
from alidade_local.controllers.controller import Controller
from alidade_local.controllers.pods import FINISHED_PHASES, phase_of
from alidade_local.events import EventRecorder, normal
from alidade_local.informer import Informers
from alidade_local.objects import Key, Object, is_deleting, key_of, name_of, namespace_of, uid_of
from alidade_local.resources import CLAIMS, PODS

PROTECTION = "kubernetes.io/pvc-protection"


def claims_of(pod: Object) -> set[str]:
    """The names of the claims that a pod mounts."""
    volumes: list[Object] = pod["spec"].get("volumes") or []
    return {volume["persistentVolumeClaim"]["claimName"] for volume in volumes if volume.get("persistentVolumeClaim")}


def is_in_use(claim: Object, pods: list[Object]) -> bool:
    """Whether a pod that is not over yet mounts the claim."""
    return any(
        namespace_of(pod) == namespace_of(claim)
        and name_of(claim) in claims_of(pod)
        and phase_of(pod) not in FINISHED_PHASES
        for pod in pods
    )


def bound_status(claim: Object) -> Object:
    """The status of a bound claim. The requested capacity is reported; nothing enforces it."""
    requests = (claim["spec"].get("resources") or {}).get("requests") or {}
    return {
        "phase": "Bound",
        "accessModes": claim["spec"].get("accessModes") or ["ReadWriteOnce"],
        "capacity": {"storage": requests.get("storage", "1Gi")},
    }


class ClaimBinder:
    """Binds each claim to `<volumes_dir>/<namespace>/<name>`.

    A finalizer keeps a deleted claim until no pod uses it; then its folder goes, then the claim.
    """

    def __init__(self, client: ApiClient, informers: Informers, volumes_dir: Path) -> None:
        self.controller = Controller("claims", self._reconcile)
        self.events = EventRecorder(client, "persistentvolume-controller")
        self._client = client
        self._volumes_dir = volumes_dir
        self._claims = informers.of(CLAIMS)
        self._pods = informers.of(PODS)
        self.controller.follow(informers, CLAIMS)
        self._pods.listen(self._on_pod)

    def _on_pod(self, before: Object | None, after: Object | None) -> None:
        pod = after or before
        if pod is not None and (after is None or phase_of(after) in FINISHED_PHASES):
            for name in claims_of(pod):
                self.controller.queue.add(Key(namespace_of(pod), name))

    async def _reconcile(self, key: Key) -> None:
        claim = self._claims.get(key)
        if claim is None:
            return
        if is_deleting(claim):
            if not is_in_use(claim, self._pods.all(key.namespace)):
                await self._remove(claim)
        elif (claim.get("status") or {}).get("phase") != "Bound":
            await self._bind(claim)

    def _folder(self, key: Key) -> Path:
        return self._volumes_dir / key.namespace / key.name

    async def _bind(self, claim: Object) -> None:
        key = key_of(claim)
        finalizers: list[str] = claim["metadata"].get("finalizers") or []
        volume = claim["spec"].get("volumeName") or f"pvc-{uid_of(claim)}"
        patch: Object = {"metadata": {"uid": uid_of(claim)}, "spec": {"volumeName": volume}}
        if PROTECTION not in finalizers:
            patch["metadata"]["finalizers"] = [*finalizers, PROTECTION]
        # The finalizer comes before the folder: what was made is known to have to be removed.
        self._claims.absorb(await self._client.patch(CLAIMS, key, patch))
        self._folder(key).mkdir(parents=True, exist_ok=True)
        self._claims.absorb(await self._client.patch_status(CLAIMS, claim, bound_status(claim)))
        message = f"Successfully provisioned volume {volume}"
        self.events.record(CLAIMS, claim, normal("ProvisioningSucceeded", message))

    async def _remove(self, claim: Object) -> None:
        finalizers: list[str] = claim["metadata"].get("finalizers") or []
        if PROTECTION not in finalizers:
            return
        await asyncio.to_thread(shutil.rmtree, self._folder(key_of(claim)), ignore_errors=True)
        remaining = [finalizer for finalizer in finalizers if finalizer != PROTECTION]
        patch = {"metadata": {"uid": uid_of(claim), "finalizers": remaining or None}}
        try:
            await self._client.patch(CLAIMS, key_of(claim), patch)
        except NotFoundError:
            return
