"""Kubernetes Events: recorded in the background, repetitions counted instead of repeated."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime

from alidade_local.client import ApiClient, ApiError, NotFoundError, UnreachableError
from alidade_local.objects import Key, Object, format_time, name_of, namespace_of, uid_of
from alidade_local.resources import EVENTS, Resource

log = logging.getLogger(__name__)

REMEMBERED_EVENTS = 2048
MAX_MESSAGE = 1024


@dataclass(frozen=True)
class Event:
    """Something worth telling the owner of an object. type: Normal or Warning; field_path: which part of the object."""

    type: str
    reason: str
    message: str
    field_path: str = ""


def normal(reason: str, message: str, *, field_path: str = "") -> Event:
    return Event("Normal", reason, message, field_path)


def warning(reason: str, message: str, *, field_path: str = "") -> Event:
    return Event("Warning", reason, message, field_path)


@dataclass
class _Recorded:
    name: str
    count: int


class EventRecorder:
    """Writes events of one component, in order, without making its caller wait.

    An event that cannot be written is dropped with a line in the log: events are hints, never state.
    """

    def __init__(self, client: ApiClient, component: str) -> None:
        self._client = client
        self._component = component
        self._queue: asyncio.Queue[tuple[Resource, Object, Event, datetime]] = asyncio.Queue(maxsize=10_000)
        self._recorded: OrderedDict[tuple[str, Event], _Recorded] = OrderedDict()

    def record(self, resource: Resource, involved: Object, event: Event) -> None:
        """Put the event in the queue; a full queue drops it."""
        try:
            self._queue.put_nowait((resource, involved, event, datetime.now(UTC)))
        except asyncio.QueueFull:
            log.warning("dropped event %s of %s", event.reason, name_of(involved))

    async def run(self) -> None:
        """Write events until cancelled."""
        while True:
            resource, involved, event, moment = await self._queue.get()
            try:
                await self._write(resource, involved, event, moment)
            except (ApiError, UnreachableError) as error:
                log.debug("event %s of %s was not recorded: %s", event.reason, name_of(involved), error)
            finally:
                self._queue.task_done()

    async def flush(self, timeout_s: float = 2.0) -> None:
        """Wait until what is queued has been written, at most `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._queue.join()
        except TimeoutError:
            log.warning("%d events were not recorded before the end", self._queue.qsize())

    async def _write(self, resource: Resource, involved: Object, event: Event, moment: datetime) -> None:
        identity = (uid_of(involved), event)
        known = self._recorded.get(identity)
        namespace = namespace_of(involved) or "default"
        if known is not None:
            known.count += 1
            repetition = {"count": known.count, "lastTimestamp": format_time(moment)}
            try:
                await self._client.patch(EVENTS, Key(namespace, known.name), repetition)
                return
            except NotFoundError:
                del self._recorded[identity]  # expired: written anew
        document = self._document(resource, involved, event, moment, namespace)
        await self._client.create(EVENTS, document)
        self._recorded[identity] = _Recorded(document["metadata"]["name"], 1)
        if len(self._recorded) > REMEMBERED_EVENTS:
            self._recorded.popitem(last=False)

    def _document(self, resource: Resource, involved: Object, event: Event, moment: datetime, namespace: str) -> Object:
        # The name as client-go makes it: the object's name and a hexadecimal number that is new each time.
        digest = hashlib.sha256(f"{uid_of(involved)}{event}{moment.timestamp()}".encode()).hexdigest()[:16]
        reference: Object = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "name": name_of(involved),
            "namespace": namespace_of(involved),
            "uid": uid_of(involved),
            "resourceVersion": involved["metadata"].get("resourceVersion", ""),
        }
        if event.field_path:
            reference["fieldPath"] = event.field_path
        return {
            "metadata": {"name": f"{name_of(involved)}.{digest}", "namespace": namespace},
            "involvedObject": reference,
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:MAX_MESSAGE],
            "source": {"component": self._component, "host": "local"},
            "reportingComponent": self._component,
            "reportingInstance": "local",
            "firstTimestamp": format_time(moment),
            "lastTimestamp": format_time(moment),
            "count": 1,
        }
