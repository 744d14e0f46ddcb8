"""Service names in a container's environment, resolved to the addresses of the pods behind them.

The local cluster has no DNS. A variable whose whole value is the name of a headless Service of the pod's namespace
(`NAME`, `NAME:port`, `NAME.NAMESPACE.svc...`), or a URL whose host is a Service, gets the address instead.
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
from alidade_local.service_ports import resolve_target_port

_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_HOST = rf"(?P<name>{_LABEL})(?:\.(?P<namespace>{_LABEL})(?P<svc>\.svc(?:\.cluster\.local)?)?)?"
_VALUE = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*://)?{_HOST}(?P<port>:\d+)?(?P<rest>[/?].*)?")
_FINISHED = ("Succeeded", "Failed")


class NoAddressYetError(Exception):
    """The Service exists but no pod behind it has an address."""


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
        headless = service["spec"].get("clusterIP") == "None"
        if not headless and not (found["scheme"] or found["svc"]):
            return value
        pod = self._pod_behind(service)
        if pod is None:
            raise NoAddressYetError(f'service "{name_of(service)}" has no pod with an address yet')
        port = found["port"] or ""
        if not headless:
            port = _target_port(service, pod, port)
        return f"{found['scheme'] or ''}{pod['status']['podIP']}{port}{found['rest'] or ''}"

    def _service(self, namespace: str, name: str) -> Object | None:
        return next(
            (service for service in self.services if (namespace_of(service), name_of(service)) == (namespace, name)),
            None,
        )

    def _pod_behind(self, service: Object) -> Object | None:
        """The oldest live pod behind the Service that has an address, a ready one before others."""
        selector = service["spec"].get("selector")
        if not selector:
            return None
        candidates = [
            pod
            for pod in self.pods
            if namespace_of(pod) == namespace_of(service)
            and matches_labels(selector, labels_of(pod))
            and not is_deleting(pod)
            and (pod.get("status") or {}).get("phase") not in _FINISHED
            and (pod.get("status") or {}).get("podIP")
        ]
        oldest_first = sorted(candidates, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
        ready = [pod for pod in oldest_first if is_condition_true(pod, "Ready")]
        return next(iter(ready or oldest_first), None)


def _target_port(service: Object, pod: Object, port: str) -> str:
    """`:port` of the pod that the Service's port leads to."""
    wanted = int(port[1:]) if port else None
    ports: list[Object] = service["spec"].get("ports") or []
    entry = next((entry for entry in ports if wanted in (None, entry["port"])), None)
    if entry is None:
        return port
    return f":{resolve_target_port(entry, pod)}"
