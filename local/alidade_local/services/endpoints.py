"""Where the ports of a Service lead: the addresses of the ready pods behind each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from alidade_local.controllers.endpoints import backends
from alidade_local.objects import Object
from alidade_local.service_ports import cluster_address, listening_ports, resolve_target_port


class Place(NamedTuple):
    """An address and a port to listen on or to connect to."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


def routes(
    service: Object, pods: Sequence[Object], endpoints: Object | None, first_usable: int | None = None
) -> dict[Place, tuple[Place, ...]]:
    """From where a Service is listened on to where connections go; places with nothing ready behind them are left out.

    pods: those of the Service's namespace. endpoints: the Endpoints of its name, which count for a Service without a
    selector. first_usable: the lowest port that may be listened on, by default that of this process.
    """
    address = cluster_address(service)
    if not address:
        return {}
    moved = listening_ports(service, first_usable)
    found: dict[Place, tuple[Place, ...]] = {}
    for entry in service["spec"].get("ports") or []:
        if entry["port"] not in moved or entry.get("protocol", "TCP") != "TCP":
            continue
        behind = _of_pods(service, entry, pods) if service["spec"].get("selector") else _by_hand(entry, endpoints)
        if behind:
            found[Place(address, moved[entry["port"]])] = behind
    return found


def _of_pods(service: Object, entry: Object, pods: Sequence[Object]) -> tuple[Place, ...]:
    return tuple(
        Place(backend.address, resolve_target_port(entry, backend.pod))
        for backend in backends(service, pods)
        if backend.ready
    )


def _by_hand(entry: Object, endpoints: Mapping[str, Sequence[Object]] | None) -> tuple[Place, ...]:
    return tuple(
        Place(address["ip"], int(port["port"]))
        for subset in (endpoints or {}).get("subsets") or []
        for port in subset.get("ports") or []
        if (port.get("name") or "") == (entry.get("name") or "")
        for address in subset.get("addresses") or []
    )
