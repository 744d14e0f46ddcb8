"""Defaults and rules of Services, and the addresses they get."""

import hashlib
from collections.abc import Callable, Iterable
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Any

from alidade_local.apiserver.errors import ApiError, FieldError, invalid, not_supported, required
from alidade_local.apiserver.kinds import KindRules
from alidade_local.apiserver.names import label_value_errors

Json = dict[str, Any]

SERVICES_KEY = "services."
_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_HEADLESS = "None"


class ServiceAddresses:
    """The addresses that Services may have, and which are given out.

    services: all Services that are stored; who has which address is read from them, so that nothing can leak.
    """

    def __init__(self, network: IPv4Network, services: Callable[[], Iterable[Json]]) -> None:
        self._network = network
        self._services = services

    def allocate(self, namespace: str, name: str) -> str:
        """A free address: the one that follows from the name where it can be, so that a Service that is made again
        is found where it was. Raises ApiError when all are given out."""
        taken = self._taken()
        usable = self._network.num_addresses - 2
        start = int.from_bytes(hashlib.sha256(f"{namespace}/{name}".encode()).digest()[:8])
        for step in range(usable):
            address = str(self._network[1 + (start + step) % usable])
            if address not in taken:
                return address
        raise ApiError(500, "InternalError", f"failed to allocate a serviceIP: all {usable} addresses are in use")

    def problem(self, address: str) -> str:
        """What keeps an address from being given to a new Service, or nothing."""
        try:
            inside = IPv4Address(address) in self._network
        except AddressValueError:
            return f'must be empty, "None" or an IPv4 address of {self._network}'
        if not inside:
            return (
                f"failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of "
                f"valid IPs is {self._network}"
            )
        return f"failed to allocate IP {address}: provided IP is already allocated" if address in self._taken() else ""

    def _taken(self) -> set[str]:
        return {service["spec"].get("clusterIP", "") for service in self._services()}


def service_rules(addresses: ServiceAddresses) -> KindRules:
    """The rules of Services that get their addresses from there."""

    def give_address(service: Json) -> None:
        spec = service["spec"]
        if spec["type"] != "ExternalName" and not spec.get("clusterIP"):
            spec["clusterIP"] = addresses.allocate(service["metadata"]["namespace"], service["metadata"]["name"])
            spec["clusterIPs"] = [spec["clusterIP"]]

    def create(service: Json) -> None:
        give_address(service)
        service["status"] = {"loadBalancer": {}}

    def update(service: Json, old: Json) -> None:
        _keep_or_drop_address(service["spec"], old["spec"])
        give_address(service)

    def validate(service: Json, old: Json | None) -> list[FieldError]:
        return [*_errors(service["spec"]), *_address_errors(service["spec"], old["spec"] if old else {}, addresses)]

    return KindRules(
        default=_default, prepare_create=create, prepare_update=update, validate=validate, counts_generation=False
    )


def _default(service: Json) -> None:
    spec = service.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
    if spec.get("clusterIP") and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]
    elif spec.get("clusterIPs") and not spec.get("clusterIP"):
        spec["clusterIP"] = spec["clusterIPs"][0]


def _keep_or_drop_address(spec: Json, old: Json) -> None:
    for name in ("clusterIP", "clusterIPs"):
        if spec["type"] == "ExternalName":
            if spec.get(name) == old.get(name):
                spec.pop(name, None)
        elif old.get(name) and not spec.get(name):
            spec[name] = old[name]


def _errors(spec: Json) -> list[FieldError]:
    errors: list[FieldError] = []
    if spec["type"] not in _TYPES:
        errors.append(not_supported("spec.type", spec["type"], _TYPES))
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != _HEADLESS and spec["type"] != "ExternalName":
        errors.append(required("spec.ports"))
    for index, port in enumerate(ports):
        number = port.get("port", 0)
        if not isinstance(number, int) or not 0 < number < 65536:
            errors.append(invalid(f"spec.ports[{index}].port", number, "must be between 1 and 65535, inclusive"))
        if len(ports) > 1 and not port.get("name"):
            errors.append(required(f"spec.ports[{index}].name"))
    for key, value in (spec.get("selector") or {}).items():
        errors.extend(label_value_errors(value, f"spec.selector.{key}"))
    return errors


def _address_errors(spec: Json, old: Json, addresses: ServiceAddresses) -> list[FieldError]:
    address, before = spec.get("clusterIP", ""), old.get("clusterIP", "")
    if spec["type"] == "ExternalName":
        return [invalid("spec.clusterIPs[0]", address, "may not be set for ExternalName services")] if address else []
    if before and address != before and old.get("type") != "ExternalName":
        return [invalid("spec.clusterIPs[0]", address, "may not change once set")]
    if address in (before, _HEADLESS):
        return []
    problem = addresses.problem(address)
    return [invalid("spec.clusterIPs", spec.get("clusterIPs"), problem)] if problem else []
