"""Eviction of pods whose emptyDir volumes hold more than their sizeLimit."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path

from alidade_local.objects import Object
from alidade_local.quantities import parse_quantity

# The original looks every 10 s. Where it takes long to look, it is done less often: for a twentieth of the time.
CHECK_INTERVAL_S = 2.0
LEAST_PAUSE = 20.0


def size_limits(pod: Object) -> dict[str, str]:
    """The sizeLimit of each emptyDir volume that has one."""
    volumes: list[Object] = pod["spec"].get("volumes") or []
    limits = {volume["name"]: (volume.get("emptyDir") or {}).get("sizeLimit") for volume in volumes}
    return {name: str(limit) for name, limit in limits.items() if limit is not None}


async def until_exceeded(limits: Mapping[str, str], volumes: Path) -> str:
    """Wait until a volume holds more than its limit; returns the sentence of the eviction."""
    while True:
        begun = time.monotonic()
        for name, limit in limits.items():
            if await asyncio.to_thread(bytes_in, volumes / name) > parse_quantity(limit):
                return f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}". '
        await asyncio.sleep(max(CHECK_INTERVAL_S, LEAST_PAUSE * (time.monotonic() - begun)))


def bytes_in(folder: Path) -> int:
    """What the files below a folder take of the disk; links are not followed."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except OSError:
                continue  # gone meanwhile
    return total
