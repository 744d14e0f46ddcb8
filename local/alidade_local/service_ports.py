"""Where a port of a Service is listened on, and which port of a pod it leads to."""

from __future__ import annotations

import errno
import socket
from functools import cache
from pathlib import Path

from alidade_local.objects import Object

# A port that may not be listened on is moved up by this much, and further while another of the Service's is there.
_MOVED_BY = 10_000
_ANY_LOOPBACK = "127.0.0.1"


def resolve_target_port(entry: Object, pod: Object) -> int:
    """The number of the pod's port that an entry of a Service's ports leads to."""
    target = entry.get("targetPort") or entry["port"]
    if isinstance(target, str) and not target.isdigit():
        for container in pod["spec"]["containers"]:
            for declared in container.get("ports") or []:
                if declared.get("name") == target:
                    return int(declared["containerPort"])
        return int(entry["port"])
    return int(target)


def cluster_address(service: Object) -> str:
    """The address of a Service; empty for one that has none (headless, or a name of something outside)."""
    address = service["spec"].get("clusterIP") or ""
    return "" if address == "None" else str(address)


def listening_ports(service: Object, first_usable: int | None = None) -> dict[int, int]:
    """Where each TCP port of a Service is listened on, at its address.

    first_usable: the lowest port that may be listened on; by default what the kernel allows this process. Ports below
    it are moved up by 10,000.
    """
    lowest = first_usable_port() if first_usable is None else first_usable
    entries: list[Object] = service["spec"].get("ports") or []
    ports = [int(entry["port"]) for entry in entries if entry.get("protocol", "TCP") == "TCP"]
    found = {port: port for port in ports if port >= lowest}
    for port in ports:
        if port < lowest:
            moved = port + _MOVED_BY
            while moved in found.values():
                moved += 1
            found[port] = moved
    return found


@cache
def first_usable_port() -> int:
    """The lowest port that this process may listen on: 1, or where unprivileged ports begin."""
    with socket.socket() as probe:
        try:
            probe.bind((_ANY_LOOPBACK, 1))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    return 1
