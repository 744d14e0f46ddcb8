"""Loopback addresses for pods: each live pod has one of its own in 127.0.0.0/8."""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Address

# 127.16.0.0 to 127.251.255.255 are given out: below lie addresses that people use by hand and 127.0.0.53 of systemd.
_FIRST_BLOCK, _BLOCKS = 16, 236
_BLOCK_SIZE = 2**16


class AddressPool:
    """Gives out the addresses of one /16 of the loopback network.

    Which block it is depends on the cluster's identity, so that two clusters on one machine rarely share addresses.
    """

    def __init__(self, cluster_identity: str) -> None:
        digest = hashlib.sha256(cluster_identity.encode()).digest()
        block = _FIRST_BLOCK + digest[0] % _BLOCKS
        self._base = int(IPv4Address(f"127.{block}.0.0"))
        self._taken: dict[str, str] = {}
        self._next = 1

    def take(self, owner: str, preferred: str = "") -> str:
        """The address of `owner`: the one it has, else the preferred one if that is free, else the next free one."""
        if owner in self._taken:
            return self._taken[owner]
        used = set(self._taken.values())
        address = preferred if preferred and preferred not in used else self._next_free(used)
        self._taken[owner] = address
        return address

    def release(self, owner: str) -> None:
        self._taken.pop(owner, None)

    def _next_free(self, used: set[str]) -> str:
        # Not reused until the block has been gone through, so that a stale address rarely meets a new pod.
        for _ in range(_BLOCK_SIZE):
            offset, self._next = self._next, self._next % (_BLOCK_SIZE - 2) + 1
            address = str(IPv4Address(self._base + offset))
            if address not in used:
                return address
        raise RuntimeError(f"all {_BLOCK_SIZE} pod addresses are in use")
