"""Taking turns by a Lease, so that of several replicas one works and another takes over when it falls silent."""

import asyncio
import logging
import math
import os
import socket
import uuid
from datetime import UTC, datetime

from alidade_operator.api import LEASE, Api, ApiError, JsonObject
from alidade_operator.config import OperatorConfig
from alidade_operator.metrics import LEADER

LEASE_NAME = "alidade-operator"

_log = logging.getLogger(__name__)


class Leader:
    """Holds, or waits for, the Lease `alidade-operator`.

    A lease counts as silent when its record has not changed for its duration by this process's clock, whatever the
    other one's clock says (as client-go does it). A replica that loses the lease ends its process at once, and so does
    one that could not renew it for two thirds of its duration, also when the API server does not answer at all: work
    in progress must not overlap with the next leader's.
    """

    def __init__(self, api: Api, config: OperatorConfig) -> None:
        self._api = api
        self._namespace = config.leader_namespace
        self._duration_s = config.lease_duration_s
        # The pod's name, in the local cluster's pods too, which share the machine's.
        self._identity = f"{os.environ.get('HOSTNAME') or socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self._held = asyncio.Event()
        self._lost_at = math.inf
        self._seen_version = ""
        self._silent_at = math.inf
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Event:
        """Begins to ask for the lease; returns an event that is set once it is held."""
        LEADER.set(0)
        self._task = asyncio.create_task(self._run(), name="alidade leader")
        return self._held

    async def stop(self) -> None:
        """Gives the lease back, so that the next one need not wait for it to run out."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._held.is_set():
            try:
                lease = await self._api.get(LEASE, self._namespace, LEASE_NAME)
                if lease["spec"].get("holderIdentity") == self._identity:
                    lease["spec"]["holderIdentity"] = ""
                    await self._api.replace(LEASE, self._namespace, lease)
            except ApiError as error:
                _log.warning("the lease was not given back", extra={"action": "lead", "why": str(error)})

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout_at(self._lost_at):
                    await self._round(loop.time())
            except ApiError as error:
                if not error.conflict:
                    _log.warning("the lease cannot be renewed", extra={"action": "lead", "why": str(error)})
            except TimeoutError:
                _log.warning("the lease cannot be renewed", extra={"action": "lead", "why": "there is no answer"})
            if loop.time() >= self._lost_at:
                _log.error("the lease is lost", extra={"action": "lead", "why": "it could not be renewed in time"})
                os._exit(1)
            await asyncio.sleep(self._pause_s(loop.time()))

    def _pause_s(self, now: float) -> float:
        """A sixth of the lease; less when another's silence is to be told before."""
        pause_s, left_s = self._duration_s / 6, self._silent_at - now
        return left_s if 0 < left_s < pause_s else pause_s

    async def _round(self, now: float) -> None:
        try:
            lease = await self._api.get(LEASE, self._namespace, LEASE_NAME)
        except ApiError as error:
            if not error.not_found:
                raise
            await self._api.create(LEASE, self._namespace, self._body({}))
            self._take(now)
            return
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder == self._identity or not holder or self._silent(lease, now):
            await self._api.replace(LEASE, self._namespace, self._body(lease))
            self._take(now)
        elif self._held.is_set():
            _log.error("the lease is lost", extra={"action": "lead", "why": f"{holder} holds it"})
            os._exit(1)

    def _silent(self, lease: JsonObject, now: float) -> bool:
        version = str(lease["metadata"].get("resourceVersion"))
        if version != self._seen_version:
            self._seen_version = version
            self._silent_at = now + float(lease["spec"].get("leaseDurationSeconds") or self._duration_s)
        return now >= self._silent_at

    def _take(self, now: float) -> None:
        self._lost_at, self._silent_at = now + self._duration_s * 2 / 3, math.inf
        if not self._held.is_set():
            self._held.set()
            LEADER.set(1)
            _log.info("holding the lease", extra={"action": "lead", "why": "no other replica holds it"})

    def _body(self, lease: JsonObject) -> JsonObject:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        before = lease.get("spec") or {}
        own = before.get("holderIdentity") == self._identity
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": lease.get("metadata") or {"name": LEASE_NAME, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": self._duration_s,
                "acquireTime": before.get("acquireTime", now) if own else now,
                "renewTime": now,
                "leaseTransitions": int(before.get("leaseTransitions") or 0) + (0 if own or not lease else 1),
            },
        }
