"""What a controller decided to do about one object, and the thin actor that does it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from alidade_local.client import AlreadyExistsError, ApiClient, ApiError, NotFoundError
from alidade_local.controllers.statuses import write_status
from alidade_local.events import Event, EventRecorder, normal, warning
from alidade_local.informer import Informers
from alidade_local.objects import Key, Object, is_controlled_by, key_of, name_of, namespace_of, uid_of
from alidade_local.resources import Resource

log = logging.getLogger(__name__)

Children = Mapping[Resource, Sequence[Object]]
# (parent, the objects it controls, now) -> what to do
Planner = Callable[[Object, Children, datetime], "Plan"]


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Plan:
    """Writes to make, in this order: creations, patches, deletions, the status; then events.

    status: the whole new status, written only if it differs from the present one; None leaves it.
    again_after_s: when to look at the object again although nothing changes.
    delete_self: the object itself has lived long enough.
    """

    create: list[tuple[Resource, Object]] = field(default_factory=list)
    delete: list[tuple[Resource, Object]] = field(default_factory=list)
    patch: list[tuple[Resource, Object, Object]] = field(default_factory=list)
    status: Object | None = None
    events: list[Event] = field(default_factory=list)
    again_after_s: float | None = None
    delete_self: bool = False

    def look_again_after(self, delay_s: float) -> None:
        """Look again after the delay; of several the shortest counts."""
        delay_s = max(delay_s, 0.0)
        self.again_after_s = delay_s if self.again_after_s is None else min(self.again_after_s, delay_s)


class PlanActor:
    """Reads one kind of parent with its children from the informers, plans, and carries the plan out."""

    def __init__(
        self,
        client: ApiClient,
        informers: Informers,
        parent: Resource,
        children: Sequence[Resource],
        planner: Planner,
        *,
        component: str,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.parent = parent
        self.children = children
        self.events = EventRecorder(client, component)
        self._client = client
        self._informers = informers
        self._planner = planner
        self._clock = clock

    async def reconcile(self, key: Key) -> float | None:
        """Bring one object closer to what it asks for; returns the seconds after which to look again, if any."""
        parent = self._informers.of(self.parent).get(key)
        if parent is None:
            return None
        observed = {resource: self._informers.of(resource).controlled_by(parent) for resource in self.children}
        plan = self._planner(parent, observed, self._clock())
        await self._carry_out(parent, plan)
        return plan.again_after_s

    async def _carry_out(self, parent: Object, plan: Plan) -> None:
        for resource, document in plan.create:
            await self._create(parent, resource, document)
        for resource, document, patch in plan.patch:
            with contextlib.suppress(NotFoundError):  # gone meanwhile: the watch will say so
                self._informers.of(resource).absorb(await self._client.patch(resource, key_of(document), patch))
        for resource, document in plan.delete:
            await self._delete(parent, resource, document)
        if plan.status is not None and plan.status != (parent.get("status") or {}):
            # A write above may have given the parent a new version: the newest known one is written to.
            informer = self._informers.of(self.parent)
            newest = informer.get(key_of(parent)) or parent
            await write_status(self._client, informer, self.parent, newest, plan.status)
        for event in plan.events:
            self.events.record(self.parent, parent, event)
        if plan.delete_self:
            await self._client.delete(self.parent, key_of(parent), uid=uid_of(parent))

    async def _create(self, parent: Object, resource: Resource, document: Object) -> None:
        kind = resource.kind.lower()
        document["metadata"].setdefault("namespace", namespace_of(parent))
        try:
            created = await self._client.create(resource, document)
        except AlreadyExistsError as error:
            existing = await self._client.find(resource, key_of(document))
            if existing is not None and is_controlled_by(existing, parent):
                self._informers.of(resource).absorb(existing)
                return
            message = f"Error creating: {error.message}; delete it or choose another name"
            self.events.record(self.parent, parent, warning(f"FailedCreate{resource.kind}", message))
            raise
        except ApiError as error:
            self.events.record(
                self.parent, parent, warning(f"FailedCreate{resource.kind}", f"Error creating: {error.message}")
            )
            raise
        self._informers.of(resource).absorb(created)
        self._tell(parent, "SuccessfulCreate", resource, f"Created {kind}: {name_of(created)}")

    async def _delete(self, parent: Object, resource: Resource, document: Object) -> None:
        answer = await self._client.delete(resource, key_of(document), uid=uid_of(document))
        if answer is not None and answer.get("kind") == resource.kind and answer["metadata"].get("deletionTimestamp"):
            self._informers.of(resource).absorb(answer)
        else:
            self._informers.of(resource).forget(document)
        self._tell(parent, "SuccessfulDelete", resource, f"Deleted {resource.kind.lower()}: {name_of(document)}")

    def _tell(self, parent: Object, what: str, resource: Resource, message: str) -> None:
        """The training operator names the kind in its reasons; a Deployment's plan says itself how it scales."""
        reason = f"{what}{resource.kind}" if self.parent.kind == "PyTorchJob" else what
        if self.parent.kind != "Deployment":
            self.events.record(self.parent, parent, normal(reason, message))
