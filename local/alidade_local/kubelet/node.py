"""What all pods of the node share: settings, the API, addresses, and a signal when the cluster changed."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from alidade_local.client import ApiClient
from alidade_local.events import EventRecorder
from alidade_local.informer import Informer, Informers
from alidade_local.kubelet.addresses import AddressPool
from alidade_local.kubelet.environment import ReferencedData, references_of
from alidade_local.kubelet.gpus import GPU_RESOURCE, Gpu, GpuPool, gpu_labels
from alidade_local.kubelet.memory import CHECK_INTERVAL_S, MemoryWatch
from alidade_local.kubelet.names import ServiceNames
from alidade_local.kubelet.settings import KubeletSettings
from alidade_local.loopback import ClusterNetwork
from alidade_local.objects import Key, Object, format_time, is_deleting, namespace_of, uid_of
from alidade_local.resources import CLAIMS, CONFIG_MAPS, PODS, SECRETS, SERVICES

NODE_NAME = "local"
HOST_IP = "127.0.0.1"
# What containers inherit from the environment of `alidade up`; everything else is theirs to set.
INHERITED_VARIABLES = (
    "HOME", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "HF_ENDPOINT", "OMP_NUM_THREADS",
)  # fmt: skip
MAX_PODS = 250
READY_MESSAGE = (
    f"the process kubelet is running; limits of memory are looked after every {CHECK_INTERVAL_S:g} s, "
    "limits of processor time are not enforced"
)


class Node:
    """The node's shared parts, handed to every pod and container."""

    def __init__(self, client: ApiClient, informers: Informers, settings: KubeletSettings) -> None:
        self.client = client
        self.settings = settings
        self.events = EventRecorder(client, "kubelet")
        self.addresses = AddressPool(ClusterNetwork.of(settings.data_dir))
        self.gpus = GpuPool(settings.gpus)
        self.memory = MemoryWatch()
        self.pods = informers.of(PODS)
        self._services = informers.of(SERVICES)
        self._claims = informers.of(CLAIMS)
        self._config_maps = informers.of(CONFIG_MAPS)
        self._secrets = informers.of(SECRETS)
        self._change = asyncio.Event()
        for resource in (PODS, SERVICES, CLAIMS, CONFIG_MAPS, SECRETS):
            informers.of(resource).listen(self._signal)

    def names(self, own: Object, address: str) -> ServiceNames:
        """The Services as the pod `own` sees them: it knows its own address before the API does."""
        status = (own.get("status") or {}) | {"podIP": address}
        others = [pod for pod in self.pods.all() if uid_of(pod) != uid_of(own)]
        return ServiceNames(services=self._services.all(), pods=[{**own, "status": status}, *others])

    def referenced_data(self, pod: Object) -> ReferencedData:
        """The ConfigMaps and Secrets that a pod names, as they are now."""
        namespace = namespace_of(pod)
        config_maps, secrets = references_of(pod)
        return ReferencedData(
            config_maps=_present(self._config_maps, namespace, config_maps),
            secrets=_present(self._secrets, namespace, secrets),
        )

    def bound_claims(self, namespace: str) -> frozenset[str]:
        return frozenset(
            claim["metadata"]["name"]
            for claim in self._claims.all(namespace)
            if (claim.get("status") or {}).get("phase") == "Bound" and not is_deleting(claim)
        )

    async def wait_for_change(self) -> None:
        """Return after the next change to a pod, Service, claim, ConfigMap or Secret."""
        await self._change.wait()

    def base_environment(self, pod: Object) -> dict[str, str]:
        """The variables every container starts from."""
        inherited = {name: os.environ[name] for name in INHERITED_VARIABLES if name in os.environ}
        path = os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin")
        return inherited | {
            "PATH": f"{self.settings.executables}:{path}",
            "HOSTNAME": pod["spec"].get("hostname") or pod["metadata"]["name"],
        }

    def _signal(self, before: Object | None, after: Object | None) -> None:
        if before is not None and after is not None and _seen_by_containers(before) == _seen_by_containers(after):
            return
        self._change.set()
        self._change = asyncio.Event()


def _present(informer: Informer, namespace: str, names: Iterable[str]) -> dict[str, Object]:
    found = {name: informer.get(Key(namespace, name)) for name in names}
    return {name: document for name, document in found.items() if document is not None}


def _seen_by_containers(document: Object) -> tuple[Any, ...]:
    """What of an object can be seen in a container, or decides whether one can be started."""
    status, metadata = document.get("status") or {}, document["metadata"]
    contents = tuple(document.get(name) for name in ("spec", "data", "binaryData"))
    return (*contents, status.get("podIP"), status.get("phase"), metadata.get("labels"), metadata.get("annotations"))


def node_capacity(gpus: Sequence[Gpu] = ()) -> dict[str, str]:
    """What this machine has: cores, memory, GPUs, and how many pods the node takes."""
    memory_kib = os.sysconf("SC_PHYS_PAGES") * (os.sysconf("SC_PAGE_SIZE") // 1024)
    return {
        "cpu": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory_kib}Ki",
        "pods": str(MAX_PODS),
        **({GPU_RESOURCE: str(len(gpus))} if gpus else {}),
    }


def node_document(gpus: Sequence[Gpu] = ()) -> Object:
    """The Node object that the kubelet registers."""
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    labels = {
        "kubernetes.io/hostname": NODE_NAME,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture,
        "node-role.kubernetes.io/control-plane": "",
        **gpu_labels(gpus),
    }
    return {"metadata": {"name": NODE_NAME, "labels": labels}, "spec": {}}


def node_status(capacity: Mapping[str, str], port: int = 0) -> Object:
    """The status of a node that is ready. port: where its kubelet listens, zero for nowhere."""
    now = format_time(datetime.now(UTC))
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": READY_MESSAGE,
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }
    return {
        "capacity": dict(capacity),
        "allocatable": dict(capacity),
        "addresses": [{"type": "InternalIP", "address": HOST_IP}, {"type": "Hostname", "address": NODE_NAME}],
        "conditions": [ready],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "nodeInfo": {
            "architecture": platform.machine(),
            "bootID": "",
            "containerRuntimeVersion": "process://1",
            "kernelVersion": platform.release(),
            "kubeProxyVersion": "",
            "kubeletVersion": "v1.34.0-alidade",
            "machineID": "",
            "operatingSystem": "linux",
            "osImage": platform.platform(terse=True),
            "systemUUID": "",
        },
    }
