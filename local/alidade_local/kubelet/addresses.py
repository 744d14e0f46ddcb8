"""Loopback addresses for pods: each live pod has one of its own."""

from __future__ import annotations

from alidade_local.loopback import ClusterNetwork


class AddressPool:
    """Gives out a cluster's addresses for pods."""

    def __init__(self, network: ClusterNetwork) -> None:
        self._network = network
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
        # Not reused until all have been gone through, so that a stale address rarely meets a new pod.
        count = self._network.last_pod
        for _ in range(count):
            offset, self._next = self._next, self._next % count + 1
            address = str(self._network.block[offset])
            if address not in used:
                return address
        raise RuntimeError(f"all {count} pod addresses are in use")
