"""Hosts that pods may not be sent to: this machine's, the cluster's and the cloud's own.

Judged is what is written, without asking the DNS: an address in any notation, and names by their patterns. A public
name that resolves to a private address is not caught, nor one that resolves to another address by the time it is asked
(DNS rebinding), nor `SERVICE.NAMESPACE` of a namespace that is not among those known here. What
holds against these is a NetworkPolicy for the pods' outgoing traffic.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Closeness = Literal["private", "reserved"]
"""private: reached where pods run, and allowed by allowPrivateHosts. reserved: allowed only by name, one by one."""

_METADATA_ADDRESSES = frozenset(
    ip_address(text)
    # AWS, GCP, Azure and others; AWS by IPv6; Alibaba; Oracle's older one; Azure's wire server.
    for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16")
)
_METADATA_NAMES = frozenset(
    ("metadata", "metadata.google.internal", "metadata.azure.internal", "instance-data", "instance-data.ec2.internal")
)
_LOOPBACK_NAMES = frozenset(("localhost", "localhost6", "ip6-localhost", "ip6-loopback", "broadcasthost"))
_LOOPBACK_ENDS = (".localhost", ".localdomain", ".localdomain6")
_PRIVATE_ENDS = (".local", ".internal", ".svc", ".pod", ".lan", ".home", ".home.arpa", ".intranet", ".corp", ".private")
# A pod's resolver tries NAME.svc.cluster.local first, so that a Service is also reached by SERVICE.NAMESPACE.
_CLUSTER_NAMESPACES = frozenset(("default", "kube-system", "kube-public", "kube-node-lease"))
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_IPV4_COMPATIBLE = IPv6Network("::/96")
_LAST_32_BITS = 0xFFFFFFFF
_THIS_NETWORK = IPv4Network("0.0.0.0/8")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_HOST_NAME = re.compile(r"(?!-)[^\s./:@%\\\[\]]{1,63}(\.[^\s./:@%\\\[\]]{1,63})*")


@dataclass(frozen=True)
class Objection:
    """Why a host may not be named. host: as it was understood, empty where it could not be."""

    host: str
    why: str
    closeness: Closeness


@dataclass(frozen=True)
class HostPolicy:
    """What may be named although it is private. allowed: names, `*.DOMAIN`, addresses and networks."""

    allow_private: bool = False
    allowed: Sequence[str] = ()
    namespaces: frozenset[str] = frozenset()
    """Namespaces of the cluster that are known, beside its own."""

    def objection(self, uri: str) -> Objection | None:
        """Why the host of a URI may not be named; None when it may, or when the URI has no host."""
        scheme, separator, rest = uri.partition("://")
        scheme = scheme.casefold()
        if not separator or scheme not in ("http", "https", "s3", "gs"):
            return None
        if any(ord(char) < 33 for char in rest) or "\\" in rest:
            return Objection("", "holds a blank or a backslash, which programs read differently", "reserved")
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
        if scheme in ("s3", "gs"):
            # A bucket is no host, but for clients that take `s3://HOST:PORT/BUCKET`; no bucket is named so.
            return self._judged(authority) if _is_address_like(authority) else None
        if "@" in authority:
            return Objection("", "has a user name before its host, which belongs into a Secret", "reserved")
        return self._judged(authority)

    def to_json(self) -> str:
        """The policy for programs in pods, which meet hosts of their own: those that they are redirected to."""
        return json.dumps([self.allow_private, list(self.allowed), sorted(self.namespaces)])

    @classmethod
    def from_json(cls, text: str) -> "HostPolicy":
        """The policy that `to_json` wrote."""
        allow_private, allowed, namespaces = json.loads(text)
        return cls(allow_private, tuple(allowed), frozenset(namespaces))

    def _judged(self, authority: str) -> Objection | None:
        host = _host(authority)
        if host is None:
            return Objection("", "has a host that cannot be read", "reserved")
        found = self._closeness(host)
        if found is None or self._is_allowed(host) or (found.closeness == "private" and self.allow_private):
            return None
        return found

    def _closeness(self, host: str) -> Objection | None:
        address = read_address(host)
        if address is not None:
            canonical = str(address)
            if isinstance(address, IPv4Address) and host != canonical:
                return Objection(host, f"writes {canonical} in a way that programs read differently", "reserved")
            return _of_address(address, host)
        if _ends_in_number(host):
            return Objection(host, f"{host} is neither a name nor an address", "reserved")
        return _of_name(host, self.namespaces | _CLUSTER_NAMESPACES)

    def _is_allowed(self, host: str) -> bool:
        address = read_address(host)
        if address is None:
            return any(host == entry.casefold() or _is_below(host, entry.casefold()) for entry in self.allowed)
        networks = [network for entry in self.allowed if (network := _network(entry)) is not None]
        return any(address in network for network in networks) or (
            isinstance(address, IPv6Address)
            and bool(inner := embedded(address))
            and all(any(one in network for network in networks) for one in inner)
        )


def entry_error(entry: str) -> str | None:
    """What is wrong with an entry of allowedHosts; None when it is a name, `*.DOMAIN`, an address or a network."""
    if _network(entry) is not None:
        return None
    name = entry.removeprefix("*.")
    if "/" in entry or ":" in entry or not _HOST_NAME.fullmatch(name) or _ends_in_number(name) or "*" in name:
        return f"{entry!r} is none of: a host's name, *.DOMAIN, an address, a network such as 10.1.0.0/16"
    return None


def _network(entry: str) -> Network | None:
    try:
        return ip_network(entry)
    except ValueError:
        return None


def _is_below(host: str, pattern: str) -> bool:
    return pattern.startswith("*.") and host.endswith(pattern[1:])


def _host(authority: str) -> str | None:
    """The host of `HOST[:PORT]`, as programs come to understand it; None when it is none.

    Letters that are mapped to others before the DNS is asked (full-width, circled) are, and those that are left out
    (zero-width, soft hyphens) are left out.
    """
    if "%" in authority:
        return None
    if authority.startswith("["):
        inner, bracket, port = authority[1:].partition("]")
        valid = bracket and (not port or port[0] == ":") and _ipv6(inner) is not None
        return inner.casefold() if valid else None
    text = unicodedata.normalize("NFKC", authority).replace("。", ".").casefold()
    text = unicodedata.normalize("NFKC", "".join(char for char in text if unicodedata.category(char) != "Cf"))
    name, colon, port = text.partition(":")
    name = name.rstrip(".")
    if (colon and not port.isdecimal() and port) or not _HOST_NAME.fullmatch(name):
        return None
    return name


def read_address(host: str) -> Address | None:
    """The address that a host stands for in any notation: a.b.c.d, fewer parts, hexadecimal, octal, IPv6."""
    return _ipv6(host) if ":" in host else _ipv4(host)


def _ipv6(text: str) -> IPv6Address | None:
    try:
        return IPv6Address(text)
    except ValueError:
        return None


def _ipv4(host: str) -> IPv4Address | None:
    """As inet_aton(3) reads it: one to four numbers, the last of which fills the bytes that are left."""
    parts = host.split(".")
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    try:
        *first, last = [_number(part) for part in parts]
    except ValueError:  # digits that octal does not have
        return None
    if any(part > 255 for part in first) or last >= 256 ** (4 - len(first)):
        return None
    value = last
    for place, part in enumerate(first):
        value |= part << (8 * (3 - place))
    return IPv4Address(value)


def _number(part: str) -> int:
    if part.startswith("0x"):
        return int(part[2:] or "0", 16)
    return int(part, 8) if len(part) > 1 and part.startswith("0") else int(part)


def _ends_in_number(host: str) -> bool:
    """Whether the last part is a number: no public name ends so, and some programs take it for an address."""
    return _NUMBER.fullmatch(host.rpartition(".")[2]) is not None


def _is_address_like(authority: str) -> bool:
    host = authority.partition(":")[0].rstrip(".").casefold()
    return authority.startswith("[") or (bool(host) and _ends_in_number(host) and ("." in host or ":" in authority))


def embedded(address: IPv6Address) -> list[IPv4Address]:
    """IPv4 addresses that traffic to an IPv6 address may come out at."""
    found = [one for one in (address.ipv4_mapped, address.sixtofour) if one is not None]
    if address.teredo is not None:
        found += address.teredo
    is_compatible = address in _IPV4_COMPATIBLE and int(address) > 1
    if is_compatible or any(address in network for network in _NAT64):
        found.append(IPv4Address(int(address) & _LAST_32_BITS))
    return found


def _of_address(address: Address, host: str) -> Objection | None:
    if isinstance(address, IPv6Address):
        inner = embedded(address)
        if inner:
            return next((found for one in inner if (found := _of_address(one, host)) is not None), None)
    if address in _METADATA_ADDRESSES:
        return Objection(host, f"points to {address}, the metadata service of a cloud", "reserved")
    if address.is_link_local:
        return Objection(host, f"points to {address}, a link-local address", "reserved")
    if address.is_loopback or address.is_unspecified or address in _THIS_NETWORK:
        return Objection(host, f"points to {address}, a loopback address", "private")
    if address.is_multicast:
        return Objection(host, f"points to {address}, a multicast address", "reserved")
    if not address.is_global:
        return Objection(host, f"points to {address}, a private address", "private")
    return None


def _of_name(host: str, namespaces: frozenset[str]) -> Objection | None:
    if host in _METADATA_NAMES:
        return Objection(host, f"points to {host}, the metadata service of a cloud", "reserved")
    if host in _LOOPBACK_NAMES or host.endswith(_LOOPBACK_ENDS):
        return Objection(host, f"points to {host}, this machine itself", "private")
    labels = host.split(".")
    in_cluster = len(labels) == 1 or labels[2:3] == ["svc"] or (len(labels) == 2 and labels[1] in namespaces)
    if in_cluster or host.endswith(_PRIVATE_ENDS):
        return Objection(host, f"points to {host}, a name of the cluster or of a private network", "private")
    return None
