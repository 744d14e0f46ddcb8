"""A cluster that somebody has already: whatever is done there goes through Kubernetes' own API, as a kubeconfig says.

The suite has one namespace there, which it makes and deletes; its operator serves that one only. It needs no image of
its own: a pod writes the stand-ins to the workspace claim, where the other pods, of the trainer's image, find them by
their PATH; another one reads what is there when the run has ended.
"""

from __future__ import annotations

import itertools
import json
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from inspect import getsource
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

import yaml
from kubernetes.config import ConfigException, new_client_from_config

from alidade_operator.api import POD, Api, ApiError, Connection, Kind
from alidade_operator.config import OperatorConfig
from alidade_operator.resources.trainingpod import CONTAINER_SECURITY, VOLUMES_FOLDER
from tests.chaos import standin, volume
from tests.chaos.fitness import UnfitClusterError, inspect
from tests.chaos.rig import PLAYED, PROGRAMS, REAL, Need, Part, Rig
from tests.chaos.trial import delete_namespace, until
from tests.operator.played import send

ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")
POD_S = 600.0
"""The first pod on a node pulls the trainer's image."""
FOLDER = f"{VOLUMES_FOLDER}/{volume.WORKSPACE}"
PROGRAMS_FOLDER = "programs"


def connection_of(kubeconfig: Path) -> Connection:
    """The way to a cluster as the user of a kubeconfig; UnfitClusterError.

    What a program told once (an exec plugin's token) is not asked for again.
    """
    try:
        there = new_client_from_config(str(kubeconfig)).configuration
    except (ConfigException, OSError, yaml.YAMLError) as error:
        raise UnfitClusterError(f"--kubeconfig {kubeconfig} cannot be used: {error}") from None
    trust = ssl.create_default_context(cafile=there.ssl_ca_cert)
    if not there.verify_ssl:
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    if there.cert_file:
        trust.load_cert_chain(there.cert_file, there.key_file)
    token = there.get_api_key_with_prefix("authorization") or there.get_api_key_with_prefix("BearerToken")
    proxy = None if proxy_bypass(urlsplit(there.host).hostname or "") else there.proxy
    return Connection(there.host.rstrip("/"), {"Authorization": token} if token else {}, trust, proxy)


class GivenRig(Rig):
    """Nothing is in hand but the operator: pods are deleted, volumes are read by a pod."""

    offers: frozenset[Need] = frozenset()

    def __init__(self, folder: Path, kubeconfig: Path, *, namespace: str, image: str | None = None) -> None:
        """image: of all pods; default: the release's trainer."""
        self._image = image or OperatorConfig().trainer_image
        images = {f"{part}Image": self._image for part in ("trainer", "eval", "serving", "quantization")}
        # Python is in the trainer's image here, and on a local cluster there.
        path = f"{FOLDER}/{PROGRAMS_FOLDER}:/opt/alidade/bin:{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
        pools = [{"name": PLAYED, "env": [{"name": "PATH", "value": path}]}, {"name": REAL}]
        super().__init__(folder, nodePools=pools, namespaces=[namespace], **images)
        self._kubeconfig = kubeconfig
        self._namespace = namespace
        self._numbers = itertools.count(1)

    @asynccontextmanager
    async def reached(self) -> AsyncIterator[Connection]:
        """As its kubeconfig says, once it has been looked at."""
        there = connection_of(self._kubeconfig)
        api = Api(lambda: there, connections=1)
        try:
            await inspect(api, self._kubeconfig, self._namespace)
        finally:
            await api.close()
        yield there

    async def leave(self) -> None:
        """As the base says: the namespace."""
        await delete_namespace(self.api, self._namespace)

    def namespace(self, name: str) -> str:
        """The one that its operator serves, whatever the run's name."""
        del name
        return self._namespace

    async def furnish(self, namespace: str) -> None:
        """The stand-ins."""
        files = {f"{PROGRAMS_FOLDER}/standin.py": getsource(standin)}
        for name in PROGRAMS:
            files[f"{PROGRAMS_FOLDER}/{name}"] = f'#!/bin/sh\nexec python3 "${{0%/*}}/standin.py" {name} "$@"\n'
        await self.at_volume(namespace, "write", files)

    async def running(self, namespace: str, part: Part) -> list[Any]:
        """Its pods."""
        with suppress(ApiError):
            pods, _ = await self.api.list(POD, namespace=namespace, selector=part.selector)
            return [
                pod
                for pod in pods
                if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
            ]
        return []

    async def end(self, namespace: str, one: Any) -> None:
        """The pod is deleted with the least notice: without any, its process would go on while the next one starts."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 1}
        with suppress(ApiError):
            await send(self.api, "DELETE", POD, POD.path(namespace, one["metadata"]["name"]), options)

    async def at_volume(self, namespace: str, action: str, *arguments: Any) -> Any:
        """As the base says, by a pod."""
        name = f"volume-{next(self._numbers)}"
        await until(lambda: self._has_account(namespace), f"an account for pods in {namespace}")
        command = ["python3", "-c", getsource(volume), FOLDER, action, json.dumps(arguments)]
        await self.api.create(POD, namespace, self._pod(name, command))

        async def ended() -> Any:
            phase = (await self.api.get(POD, namespace, name))["status"].get("phase")
            return phase if phase in ("Succeeded", "Failed") else None

        phase = await until(ended, f"pod {name} to {action}", limit_s=POD_S)
        said = await self.api.get(POD, namespace, f"{name}/log")  # one object of JSON, or an ApiError that tells
        pod = await self.api.get(POD, namespace, name)
        await self.api.delete(POD, namespace, name, uid=pod["metadata"]["uid"])
        assert phase == "Succeeded", said
        return said["answer"]

    async def _has_account(self, namespace: str) -> bool:
        """Whether Kubernetes has made the account that a new namespace's pods get."""
        with suppress(ApiError):
            await self.api.get(ACCOUNT, namespace, "default")
            return True
        return False

    def _pod(self, name: str, command: list[str]) -> dict[str, Any]:
        container = {
            "name": "volume", "image": self._image, "command": command, "securityContext": CONTAINER_SECURITY,
            "volumeMounts": [{"name": "workspace", "mountPath": FOLDER}],
        }  # fmt: skip
        user = OperatorConfig().run_as_user
        return {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "restartPolicy": "Never", "automountServiceAccountToken": False,
                "securityContext": {"runAsUser": user, "runAsGroup": user, "fsGroup": user},
                "containers": [container],
                "volumes": [{"name": "workspace", "persistentVolumeClaim": {"claimName": volume.WORKSPACE}}],
            },
        }  # fmt: skip
