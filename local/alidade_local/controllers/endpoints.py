"""Endpoints and EndpointSlices: which pods stand behind a Service, and at which addresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alidade_local.client import ApiClient
from alidade_local.controllers.controller import Controller
from alidade_local.controllers.pods import FINISHED_PHASES, is_ready, phase_of
from alidade_local.informer import Informers
from alidade_local.objects import (
    Key,
    Object,
    controller_reference,
    is_deleting,
    labels_of,
    matches_labels,
    name_of,
    namespace_of,
    uid_of,
)
from alidade_local.resources import ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICES
from alidade_local.service_ports import resolve_target_port

FIELD_MANAGER = "endpoint-controller"


@dataclass(frozen=True)
class Backend:
    """A pod behind a Service. ready: whether traffic should reach it."""

    pod: Object
    ready: bool

    @property
    def address(self) -> str:
        return str(self.pod["status"]["podIP"])

    @property
    def reference(self) -> Object:
        return {"kind": "Pod", "namespace": namespace_of(self.pod), "name": name_of(self.pod), "uid": uid_of(self.pod)}


def backends(service: Object, pods: Sequence[Object]) -> list[Backend]:
    """The live pods behind a Service, by address."""
    selector = service["spec"].get("selector") or {}
    all_are_ready = bool(service["spec"].get("publishNotReadyAddresses"))
    found = [
        Backend(pod, all_are_ready or is_ready(pod))
        for pod in pods
        if selector
        and namespace_of(pod) == namespace_of(service)
        and matches_labels(selector, labels_of(pod))
        and (pod.get("status") or {}).get("podIP")
        and phase_of(pod) not in FINISHED_PHASES
        and not is_deleting(pod)
    ]
    return sorted(found, key=lambda backend: backend.address)


def _ports(service: Object, backend: Backend) -> list[Object]:
    return [
        {"port": resolve_target_port(port, backend.pod), "protocol": port.get("protocol", "TCP")}
        | ({"name": port["name"]} if port.get("name") else {})
        for port in service["spec"].get("ports") or []
    ]


def endpoints_document(service: Object, found: Sequence[Backend]) -> Object:
    """The Endpoints of a Service, one subset."""
    metadata = {"name": name_of(service), "namespace": namespace_of(service), "labels": labels_of(service)}
    ready = [{"ip": backend.address, "targetRef": backend.reference} for backend in found if backend.ready]
    others = [{"ip": backend.address, "targetRef": backend.reference} for backend in found if not backend.ready]
    if not found:
        return {"metadata": metadata, "subsets": []}
    subset: Object = {"ports": _ports(service, found[0])}
    if ready:
        subset["addresses"] = ready
    if others:
        subset["notReadyAddresses"] = others
    return {"metadata": metadata, "subsets": [subset]}


def endpoint_slice_document(service: Object, found: Sequence[Backend]) -> Object:
    """The EndpointSlice of a Service; one is enough for as many pods as one machine runs."""
    return {
        "metadata": {
            "name": f"{name_of(service)}-local",
            "namespace": namespace_of(service),
            "labels": {
                "kubernetes.io/service-name": name_of(service),
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
            "ownerReferences": [controller_reference(service, SERVICES.api_version, SERVICES.kind)],
        },
        "addressType": "IPv4",
        "ports": _ports(service, found[0]) if found else [],
        "endpoints": [
            {
                "addresses": [backend.address],
                "conditions": {"ready": backend.ready, "serving": backend.ready, "terminating": False},
                "nodeName": backend.pod["spec"].get("nodeName", ""),
                "targetRef": backend.reference,
            }
            for backend in found
        ],
    }


class EndpointsController:
    """Keeps the Endpoints and the EndpointSlice of each Service that has a selector."""

    def __init__(self, client: ApiClient, informers: Informers) -> None:
        self.controller = Controller("endpoints", self._reconcile)
        self._client = client
        self._services = informers.of(SERVICES)
        self._pods = informers.of(PODS)
        self._written: dict[Key, tuple[str, Object, Object]] = {}
        self.controller.follow(informers, SERVICES)
        self._pods.listen(self._on_pod)

    def _on_pod(self, before: Object | None, after: Object | None) -> None:
        labels = [labels_of(pod) for pod in (before, after) if pod is not None]
        namespace = namespace_of(after or before or {"metadata": {}})
        for service in self._services.all(namespace):
            selector = service["spec"].get("selector")
            if selector and any(matches_labels(selector, pod_labels) for pod_labels in labels):
                self.controller.queue.add(Key(namespace, name_of(service)))

    async def _reconcile(self, key: Key) -> None:
        service = self._services.get(key)
        if service is None:
            if self._written.pop(key, None) is not None:
                # The slice is owned by the Service and goes with it; Endpoints have no owner.
                await self._client.delete(ENDPOINTS, key)
            return
        if is_deleting(service) or not service["spec"].get("selector"):
            return
        found = backends(service, self._pods.all(key.namespace))
        documents = (uid_of(service), endpoints_document(service, found), endpoint_slice_document(service, found))
        if self._written.get(key) == documents:
            return
        await self._client.apply(ENDPOINTS, documents[1], field_manager=FIELD_MANAGER)
        await self._client.apply(ENDPOINT_SLICES, documents[2], field_manager=FIELD_MANAGER)
        self._written[key] = documents
