"""Reads the progress of running jobs over HTTP from the first pod of each."""

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import aiohttp
from pydantic import ValidationError

from alidade_crds.contract import ProgressDocument
from alidade_operator.metrics import PROGRESS_READS
from alidade_operator.reconcile.plan import ProgressTarget
from alidade_operator.resources.trainingpod import PROGRESS_PORT

K = TypeVar("K", bound=Hashable)

_READ_TIMEOUT_S = 2.0
# Pods are not trusted: a document is about 400 bytes, and no more than this is read.
_MOST_BYTES = 64 * 1024
_AT_ONCE = 32


class ProgressReader(Generic[K]):
    """Asks every target each interval, so many at a time, and tells of what is new. A target that does not answer is
    asked again in the next round; that is nothing to report, since a job loads its model before it serves."""

    def __init__(self, *, interval_s: float, on_change: Callable[[K], None]) -> None:
        self.documents: dict[str, ProgressDocument] = {}
        """The newest document of each pod, by the pod's uid."""
        self._interval_s = interval_s
        self._on_change = on_change
        self._targets: dict[K, ProgressTarget] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def watch(self, key: K, target: ProgressTarget | None) -> None:
        """Sets the pod that is asked for a resource, or ends the asking."""
        known = self._targets.get(key)
        if known is not None and known != target:
            self.documents.pop(known.pod_uid, None)
            del self._targets[key]
        if target is not None:
            self._targets[key] = target

    async def run(self) -> None:
        """Reads for ever."""
        timeout = aiohttp.ClientTimeout(total=_READ_TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=_AT_ONCE)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            while True:
                targets = list(self._targets.items())
                await asyncio.gather(*(self._read(session, key, target) for key, target in targets))
                await asyncio.sleep(self._interval_s)

    async def _read(self, session: aiohttp.ClientSession, key: K, target: ProgressTarget) -> None:
        host = f"[{target.ip}]" if ":" in target.ip else target.ip
        try:
            async with (
                self._slots,
                session.get(f"http://{host}:{PROGRESS_PORT}/progress", allow_redirects=False) as response,
            ):
                content = await response.content.read(_MOST_BYTES)
                status = response.status
        except (aiohttp.ClientError, TimeoutError):
            PROGRESS_READS.labels("unreachable").inc()
            return
        document = _parse(content) if status == 200 else None
        PROGRESS_READS.labels("read" if document is not None else "malformed").inc()
        if document is None or self._targets.get(key) != target:
            return
        before = self.documents.get(target.pod_uid)
        if before is None or before.model_copy(update={"updated_at": document.updated_at}) != document:
            self.documents[target.pod_uid] = document
            self._on_change(key)


def _parse(content: bytes) -> ProgressDocument | None:
    try:
        return ProgressDocument.model_validate_json(content)
    except ValidationError:
        return None
