"""A port of this machine for each job that needs one."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable

from alidade_local.objects import Object, uid_of

# Below the range from which Linux takes ports for outgoing connections (32768 and up).
FIRST_PORT, LAST_PORT = 20_000, 29_999


class PortChooser:
    """Gives each object a port that nothing listens on and no other object has; the same one when asked again.

    in_use: the ports that objects have already, whether something listens on them or not.
    """

    def __init__(self, in_use: Callable[[], set[int]]) -> None:
        self._in_use = in_use
        self._chosen: dict[str, int] = {}
        # Two clusters on one machine that both began with the first would give it out at the same time.
        self._next = random.randint(FIRST_PORT, LAST_PORT)

    def choose(self, owner: Object) -> int:
        """The owner's port; raises OSError when all ports of the range are in use."""
        uid = uid_of(owner)
        if uid not in self._chosen:
            self._chosen[uid] = self._find()
        return self._chosen[uid]

    def forget(self, owner: Object) -> None:
        """The owner is gone: its port may be given to another."""
        self._chosen.pop(uid_of(owner), None)

    def _find(self) -> int:
        taken = self._in_use() | set(self._chosen.values())
        for _ in range(FIRST_PORT, LAST_PORT + 1):
            port = self._next
            self._next = FIRST_PORT if port == LAST_PORT else port + 1
            if port not in taken and _is_free(port):
                return port
        raise OSError(f"no port between {FIRST_PORT} and {LAST_PORT} is free")


def _is_free(port: int) -> bool:
    """Whether a program could listen on the port on every interface, as TCPStore does."""
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
