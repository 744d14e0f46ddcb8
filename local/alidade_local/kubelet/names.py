"""Service names in a container's environment, resolved to addresses.

The local cluster has no DNS. A variable whose whole value is the name of a headless Service of the pod's namespace
(`NAME`, `NAME:port`, `NAME.NAMESPACE.svc...`), or a URL whose host is a Service, gets the address instead: that of the
Service, and for a headless one that of a pod behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from alidade_local.objects import (
    Object,
    is_condition_true,
    is_deleting,
    labels_of,
    matches_labels,
    name_of,
    namespace_of,
)
from alidade_local.service_ports import cluster_address, listening_ports

_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_HOST = rf"(?P<name>{_LABEL})(?:\.(?P<namespace>{_LABEL})(?P<svc>\.svc(?:\.cluster\.local)?)?)?"
_VALUE = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*://)?{_HOST}(?P<port>:\d+)?(?P<rest>[/?].*)?")
_SCHEME_PORTS = {"http://": 80, "ws://": 80, "https://": 443, "wss://": 443}
_FINISHED = ("Succeeded", "Failed")


class NoAddressYetError(Exception):
    """The Service exists, has no address of its own, and no pod behind it has one."""


@dataclass(frozen=True)
class ServiceNames:
    """The Services and pods of the cluster, as they are now."""

    services: Iterable[Object]
    pods: Iterable[Object]

    def resolve(self, value: str, namespace: str) -> str:
        """The value with its Service name replaced by an address; other values come back unchanged.

        Raises NoAddressYetError, saying which Service has to get a pod first.
        """
        found = _VALUE.fullmatch(value)
        if found is None or (found["rest"] and not found["scheme"]):
            return value
        service = self._service(found["namespace"] or namespace, found["name"])
        if service is None:
            return value
        scheme, port, rest = found["scheme"] or "", found["port"] or "", found["rest"] or ""
        if service["spec"].get("clusterIP") == "None":
            return f"{scheme}{self._pod_behind(service)}{port}{rest}"
        if not scheme and not found["svc"]:
            return value
        if service["spec"].get("type") == "ExternalName":
            return f"{scheme}{service['spec'].get('externalName', '')}{port}{rest}"
        return f"{scheme}{cluster_address(service)}{_listening_port(service, scheme, port)}{rest}"

    def _service(self, namespace: str, name: str) -> Object | None:
        return next(
            (service for service in self.services if (namespace_of(service), name_of(service)) == (namespace, name)),
            None,
        )

    def _pod_behind(self, service: Object) -> str:
        """The address of the oldest live pod behind the Service that has one, of a ready one before others."""
        selector = service["spec"].get("selector")
        candidates = [
            pod
            for pod in self.pods
            if selector
            and namespace_of(pod) == namespace_of(service)
            and matches_labels(selector, labels_of(pod))
            and not is_deleting(pod)
            and (pod.get("status") or {}).get("phase") not in _FINISHED
            and (pod.get("status") or {}).get("podIP")
        ]
        oldest_first = sorted(candidates, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        ready = [pod for pod in oldest_first if is_condition_true(pod, "Ready")]
        pod = next(iter(ready or oldest_first), None)
        if pod is None:
            raise NoAddressYetError(f'service "{name_of(service)}" has no pod with an address yet')
        return str(pod["status"]["podIP"])


def _listening_port(service: Object, scheme: str, port: str) -> str:
    """`:port` under which the Service's port is found at its address; as it was where there is no such port."""
    wanted = int(port[1:]) if port else _SCHEME_PORTS.get(scheme)
    found = listening_ports(service).get(wanted) if wanted is not None else None
    return port if found in (None, wanted) else f":{found}"
