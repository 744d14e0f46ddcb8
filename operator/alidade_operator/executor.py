"""Carries out a plan: children, then the status, then deletions, then events."""

import logging
from collections.abc import Callable
from datetime import datetime

from alidade_crds import API_VERSION
from alidade_crds.modelserve import ModelServeStatus
from alidade_crds.reasons import ConditionType, Reason
from alidade_crds.status import JobStatus, ResourceStatus
from alidade_operator.api import EVENT, PARENT_KINDS, Api, ApiError, JsonObject, Kind
from alidade_operator.cache import Cache, Key, key_of, parent_key
from alidade_operator.conditions import Conditions
from alidade_operator.events import event_body
from alidade_operator.reconcile.plan import STATUSES, Adjust, Apply, Child, Create, Delete, Notice, Plan, parse_status
from alidade_operator.resync import WATCHED_KINDS

_log = logging.getLogger(__name__)

# Bad request, forbidden (quotas, policies), invalid: answers about the object, not about the server's state.
_REFUSALS = frozenset({400, 403, 422})


class OutdatedPlanError(Exception):
    """The cluster is not as the plan supposed; the cache knows better now, and a new plan is due."""


class Executor:
    """Writes to the API, and puts what it wrote into the cache, so that the next plan sees it before the watch does.

    An answer holds what others have written before, too. Their events come later and bring nothing new then, so
    whoever waits for them is told of it here.
    """

    def __init__(
        self,
        api: Api,
        cache: Cache,
        *,
        on_resource: Callable[[Key], None] | None = None,
        on_status: Callable[[Kind, JsonObject, ResourceStatus, datetime], None] | None = None,
    ) -> None:
        """on_resource: told of resources of ours that a plan is due for, since no event will bring anything new.
        on_status: told of a resource, as it was, and the status that a plan has given it."""
        self._api = api
        self._on_resource = on_resource
        self._on_status = on_status
        self._cache = cache
        self._being_made: set[tuple[str, str]] = set()
        self._in_doubt: dict[tuple[str, str], tuple[Kind, str]] = {}

    async def carry_out(self, plan: Plan, kind: Kind, resource: JsonObject, now: datetime) -> None:
        """Does what the plan says. Killed at any point, the next plan does the rest.

        Children come before the status, which tells of them; the status comes before deletions, because it keeps what
        goes with the deleted. Raises ApiError, or OutdatedPlanError.
        """
        namespace = resource["metadata"]["namespace"]
        for child in plan.children:
            try:
                await self._make(child, namespace)
            except ApiError as error:
                if error.status in _REFUSALS and not error.namespace_terminating:
                    await self._tell_refusal(plan, kind, resource, child, error, now)
                raise
        if plan.status is not None:
            await self.write_status(kind, resource, plan.status.to_dict())
            if self._on_status is not None:
                self._on_status(kind, resource, plan.status, now)
        for deletion in plan.deletions:
            await self._delete(deletion, namespace)
        for notice in (*plan.notices, *plan.remarks):
            await self.post(kind, resource, notice, now)

    async def _make(self, child: Child, namespace: str) -> None:
        if isinstance(child, Adjust):
            await self._adjust(child, namespace)
            return
        if isinstance(child, Apply):
            applied = await self._api.apply(child.kind, namespace, child.body)
            self._take_in(child.kind, applied)
            return
        if child.alone is None:
            await self._create(child, namespace)
            return
        # Runs that want the same are worked on at the same time: the first one makes it, the others find it there.
        place = (namespace, child.alone.inputs)
        await self._resolve_doubt(place)
        there = {body["metadata"]["uid"] for body in self._cache.alike(*place)}
        if place in self._being_made or not there <= child.alone.known:
            raise OutdatedPlanError(f"{child.kind.kind} with inputs {child.alone.inputs} is there, or being made")
        self._being_made.add(place)
        try:
            await self._create(child, namespace)
        except ApiError as error:
            if not 400 <= error.status < 500:
                self._in_doubt[place] = (child.kind, child.body["metadata"]["name"])
            raise
        finally:
            self._being_made.discard(place)

    async def _resolve_doubt(self, place: tuple[str, str]) -> None:
        """Looks whether a creation there was carried out whose answer was lost: the watch may not have told of it."""
        if place not in self._in_doubt:
            return
        kind, name = self._in_doubt[place]
        try:
            self._take_in(kind, await self._api.get(kind, place[0], name))
        except ApiError as error:
            if not error.not_found:
                raise
        self._in_doubt.pop(place, None)

    async def _adjust(self, child: Adjust, namespace: str) -> None:
        try:
            self._take_in(child.kind, await self._api.merge(child.kind, namespace, child.body))
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise
            name = child.body["metadata"]["name"]
            raise OutdatedPlanError(f"{child.kind.kind} {name} is gone or was replaced") from error

    async def _create(self, child: Create, namespace: str) -> None:
        try:
            made = await self._api.create(child.kind, namespace, child.body)
        except ApiError as error:
            if not error.already_exists:
                raise
            name = child.body["metadata"]["name"]
            self._take_in(child.kind, await self._api.get(child.kind, namespace, name))
            raise OutdatedPlanError(f"{child.kind.kind} {name} is already there") from error
        self._take_in(child.kind, made)

    def _take_in(self, kind: Kind, body: JsonObject) -> None:
        """Puts a child that was written into the cache; one that is a resource of ours has a plan of its own coming."""
        if kind not in WATCHED_KINDS:
            return
        key = key_of(kind, body)
        before = self._cache.get(key)
        self._cache.put(kind, body)
        parent = parent_key(kind, body)
        if kind in PARENT_KINDS:
            self._tell(key)
        elif parent is not None and _differ(before, self._cache.get(key), "status"):
            self._tell(parent)

    def _tell(self, key: Key) -> None:
        if self._on_resource is not None:
            self._on_resource(key)

    async def _tell_refusal(
        self, plan: Plan, kind: Kind, resource: JsonObject, child: Child, error: ApiError, now: datetime
    ) -> None:
        """Says in the status that a child was refused, by a quota or a policy for instance; it is tried again."""
        before = parse_status(STATUSES.get(kind.kind, JobStatus), resource)
        name = child.body["metadata"]["name"]
        message = f"The API server refused {child.kind.kind} {name}: {error.message} It is tried again."
        after = _refused(plan.status or before, before, resource, message, now.replace(microsecond=0))
        if after != before:
            await self.write_status(kind, resource, after.to_dict())
            await self.post(kind, resource, Notice("Warning", str(Reason.LAUNCH_REFUSED), message), now)

    async def write_status(self, kind: Kind, resource: JsonObject, status: JsonObject) -> None:
        """Makes the status read so; a resource that is gone, or was replaced by another one, is left alone."""
        metadata = resource["metadata"]
        body = {
            "apiVersion": API_VERSION,
            "kind": kind.kind,
            # Without the uid an apply would write on a new resource of the same name.
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
            "status": status,
        }
        try:
            written = await self._api.apply(kind, metadata["namespace"], body, subresource="status")
        except ApiError as error:
            if error.not_found or error.conflict:
                raise OutdatedPlanError(f"{kind.kind} {metadata['name']} is gone or was replaced") from error
            raise
        key = key_of(kind, written)
        before = self._cache.get(key)
        self._cache.put(kind, written)
        if _differ(before, self._cache.get(key), "spec", "metadata"):
            self._tell(key)

    async def _delete(self, deletion: Delete, namespace: str) -> None:
        known = self._cache.get(Key(deletion.kind.kind, namespace, deletion.name))
        try:
            answer = await self._api.delete(deletion.kind, namespace, deletion.name, uid=deletion.uid)
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise
            answer = {"kind": "Status"}
        if answer.get("kind") == deletion.kind.kind and answer["metadata"].get("deletionTimestamp"):
            self._cache.put(deletion.kind, answer)
        elif known is not None and known["metadata"]["uid"] == deletion.uid:
            self._cache.remove(deletion.kind, known)
            if deletion.kind in PARENT_KINDS:
                self._tell(key_of(deletion.kind, known))
            parent = parent_key(deletion.kind, known)
            if parent is not None:
                # What comes after the deleted is due now.
                self._tell(parent)

    async def post(self, kind: Kind, resource: JsonObject, notice: Notice, now: datetime) -> None:
        """Posts an Event. One that cannot be posted is told to the log: the status says the same, and work goes on."""
        metadata = resource["metadata"]
        try:
            await self._api.create(EVENT, metadata["namespace"], event_body(kind, resource, notice, now))
        except ApiError as error:
            if not error.already_exists:
                fields = {"kind": kind.kind, "namespace": metadata["namespace"], "resource": metadata["name"]}
                _log.warning("event not posted", extra=fields | {"action": "post event", "why": str(error)})


def _differ(before: JsonObject | None, after: JsonObject | None, *parts: str) -> bool:
    """Whether these parts of an object that was known are others now, but for the number of its version."""
    if before is None or after is None:
        return False
    version = {"resourceVersion": None}
    return any((before.get(part) or {}) | version != (after.get(part) or {}) | version for part in parts)


def _refused(
    planned: ResourceStatus, before: ResourceStatus, resource: JsonObject, message: str, now: datetime
) -> ResourceStatus:
    """The status of a resource of which a child was refused: what the plan says but for what was not launched."""
    generation = int(resource["metadata"].get("generation", 1))
    if isinstance(before, ModelServeStatus):
        # What the plan says of job and replicas is not so; what was served is, as it was.
        conditions = Conditions(before.conditions, generation=generation, now=now)
        conditions.set(ConditionType.PROGRESSING, "True", Reason.LAUNCH_REFUSED, message)
        conditions.summarize("Waiting")
        return before.model_copy(update={"phase": "Waiting", "conditions": conditions.list()})
    launched = [item for item in before.conditions if item.type == ConditionType.LAUNCHED]
    conditions = Conditions([*planned.conditions, *launched], generation=generation, now=now)
    conditions.set(ConditionType.LAUNCHED, "False", Reason.LAUNCH_REFUSED, message)
    assert isinstance(before, JobStatus), "every other resource has a job"
    kept = {"attempts": before.attempts, "job_ref": before.job_ref}
    return planned.model_copy(update={"phase": "Waiting", "conditions": conditions.list(), **kept})
