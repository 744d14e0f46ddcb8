"""The loopback addresses of a cluster: a /16 of 127.0.0.0/8, its pods below, its Services in the last /20."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

# 127.16.0.0 to 127.251.255.255 are given out: below lie addresses that people use by hand and 127.0.0.53 of systemd.
_FIRST_BLOCK, _BLOCKS = 16, 236
_SERVICE_PREFIX = 20


@dataclass(frozen=True)
class ClusterNetwork:
    """The addresses of one cluster."""

    block: IPv4Network

    @classmethod
    def of(cls, data_dir: Path) -> ClusterNetwork:
        """That of the cluster in this folder; two clusters on one machine rarely share one."""
        digest = hashlib.sha256(str(data_dir.resolve()).encode()).digest()
        return cls(IPv4Network(f"127.{_FIRST_BLOCK + digest[0] % _BLOCKS}.0.0/16"))

    @property
    def services(self) -> IPv4Network:
        """4,096 addresses, of which the first and the last are not given out."""
        return list(self.block.subnets(new_prefix=_SERVICE_PREFIX))[-1]

    @property
    def last_pod(self) -> int:
        """How far above the block's first address those of pods go."""
        return self.block.num_addresses - self.services.num_addresses - 1
