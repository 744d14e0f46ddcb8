"""A namespace in memory around the local cluster's real controllers: who writes, fails, lags and dies is played.

The API server answers as Kubernetes' does where controllers notice: names, uids, versions, generations, finalizers,
owners, graceful deletion, conflicts. Watches of different kinds tell in no common order, as they do.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from alidade_local.client import AlreadyExistsError, ApiClient, ApiError, ConflictError, NotFoundError, UnreachableError
from alidade_local.controllers.controller import Controller
from alidade_local.controllers.plan import PlanActor, Planner
from alidade_local.controllers.pods import FINISHED_PHASES, phase_of
from alidade_local.informer import Informers
from alidade_local.objects import (
    Key,
    Object,
    controller_of,
    format_time,
    is_condition_true,
    is_deleting,
    name_of,
    uid_of,
)
from alidade_local.ownership import FOREGROUND
from alidade_local.resources import DEPLOYMENTS, JOBS, PODS, PYTORCH_JOBS, REPLICA_SETS, SERVICES, Resource
from tests.operator.line import Line
from tests.operator.memory import drive

NAMESPACE = "n"
TROUBLES = st.sampled_from(
    [[], ["unanswered"], ["lost"], ["unanswered", "", "lost"], ["", "unanswered"], ["", "", "lost", "unanswered"]]
)
KINDS = {kind.plural: kind for kind in (DEPLOYMENTS, JOBS, PODS, PYTORCH_JOBS, REPLICA_SETS, SERVICES)}
WALK = settings(
    # 50, or 1,000 with --hypothesis-profile long.
    max_examples=settings().max_examples // 2,
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),
)
STEPS = st.lists(st.integers(0, 49), min_size=8, max_size=25)


class MemoryServer(ApiClient):
    """The controllers' client, whose requests end in a dictionary. What was written is never changed in place."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        self.objects: dict[tuple[Resource, str], Object] = {}
        self.log: dict[Resource, list[tuple[str, Object]]] = {kind: [] for kind in KINDS.values()}
        """What a watch of a kind tells: type of the event, and the object as it was then."""
        self.troubles: list[str] = []
        """What becomes of the next requests: `lost` before they are carried out, `unanswered` after it, or nothing."""
        self.refused: set[Resource] = set()
        """Kinds that a quota lets nobody make."""
        self._numbers = itertools.count(1)

    async def request(self, method: str, path: str, *, body: Any = None, **_: Any) -> Object:
        trouble = self.troubles.pop(0) if self.troubles else ""
        if trouble == "lost":
            raise ApiError(500, "InternalError", "the request was lost")
        parts = path.split("/")
        at = next(index for index, part in enumerate(parts) if part in KINDS)
        name, subresource = [*parts[at + 1 :], "", ""][:2]
        answer = self._answer(method, KINDS[parts[at]], name, subresource, body)
        if trouble == "unanswered":
            raise UnreachableError("the answer was lost")
        return answer

    def _answer(self, method: str, kind: Resource, name: str, subresource: str, body: Any) -> Object:
        if method == "POST":
            if kind in self.refused:
                raise ApiError(403, "Forbidden", f"{kind.plural} are forbidden: exceeded quota: small.")
            return self.create_object(kind, body)
        known = self.objects.get((kind, name))
        if known is None:
            raise NotFoundError(404, "NotFound", f"{kind.plural} {name} not found")
        if method == "GET":
            return known
        uid = (body.get("preconditions") or body.get("metadata") or {}).get("uid")
        if uid not in (None, uid_of(known)):
            raise ConflictError(409, "Conflict", "the uid in the precondition is another one")
        if method == "DELETE":
            return self.delete_object(kind, known) or {"kind": "Status"}
        if method == "PATCH":
            return self.write(kind, merged(known, body))
        assert (method, subresource) == ("PUT", "status")
        if body["metadata"]["resourceVersion"] != known["metadata"]["resourceVersion"]:
            raise ConflictError(409, "Conflict", "the object has been modified")
        return self.write(kind, {**known, "status": body["status"]})

    def create_object(self, kind: Resource, body: Object) -> Object:
        """Somebody makes an object."""
        metadata = dict(body["metadata"])
        name = metadata.pop("name", None) or f"{metadata['generateName']}{next(self._numbers):05}"
        if (kind, name) in self.objects:
            raise AlreadyExistsError(409, "AlreadyExists", f"{kind.plural} {name} already exists")
        metadata |= {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-{next(self._numbers)}",
            "generation": 1,
            "creationTimestamp": format_time(self.now),
        }
        fixed = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
        return self._store(kind, {**copy.deepcopy(body), **fixed, "status": {}})

    def write(self, kind: Resource, body: Object) -> Object:
        """Somebody changes an object; one that only waited for its last finalizer goes."""
        known = self.objects[kind, name_of(body)]
        if body == known:
            return known
        if body["spec"] != known["spec"]:
            body = merged(body, {"metadata": {"generation": known["metadata"]["generation"] + 1}})
        if is_deleting(body) and is_deleting(known) and not body["metadata"].get("finalizers") and _has_ended(body):
            self._remove(kind, body)
            return body
        return self._store(kind, body)

    def delete_object(self, kind: Resource, known: Object, *, foreground: bool = False) -> Object | None:
        """Somebody deletes an object; pods that run, and what has finalizers, are left for a while."""
        finalizers = known["metadata"].get("finalizers") or []
        if foreground and FOREGROUND not in finalizers:
            finalizers = [*finalizers, FOREGROUND]
        if not finalizers and _has_ended(known):
            self._remove(kind, known)
            return None
        since = known["metadata"].get("deletionTimestamp") or format_time(self.now)
        return self.write(kind, merged(known, {"metadata": {"deletionTimestamp": since, "finalizers": finalizers}}))

    def collect(self) -> None:
        """The garbage collector: what belonged to something that is gone goes, dependents first where asked."""
        owners = {uid_of(body): body for body in self.objects.values()}
        dependents: dict[str, list[tuple[Resource, Object]]] = {}
        for (kind, _), body in list(self.objects.items()):
            reference = controller_of(body)
            owner = owners.get(reference["uid"]) if reference is not None else None
            if reference is not None and not is_deleting(body) and (owner is None or _waits_for_dependents(owner)):
                self.delete_object(kind, body, foreground=owner is not None)
            if owner is not None and (kind, name_of(body)) in self.objects:
                dependents.setdefault(uid_of(owner), []).append((kind, body))
        for (kind, name), body in list(self.objects.items()):
            if _waits_for_dependents(body) and uid_of(body) not in dependents and (kind, name) in self.objects:
                kept = [one for one in body["metadata"]["finalizers"] if one != FOREGROUND]
                self.write(kind, merged(body, {"metadata": {"finalizers": kept}}))

    def all(self, kind: Resource) -> list[Object]:
        return [body for (other, _), body in self.objects.items() if other is kind]

    def _store(self, kind: Resource, body: Object) -> Object:
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(next(self._numbers))}}
        self.objects[kind, name_of(body)] = body
        self.log[kind].append(("MODIFIED", body))
        return body

    def _remove(self, kind: Resource, body: Object) -> None:
        del self.objects[kind, name_of(body)]
        self.log[kind].append(
            ("DELETED", {**body, "metadata": {**body["metadata"], "resourceVersion": str(next(self._numbers))}})
        )


def merged(known: Any, patch: Any) -> Any:
    """A new document: RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(known) if isinstance(known, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def _has_ended(body: Object) -> bool:
    """Whether a deletion need not wait for a kubelet."""
    return body["kind"] != PODS.kind or phase_of(body) in FINISHED_PHASES or not body["spec"].get("nodeName")


def _waits_for_dependents(body: Object) -> bool:
    return is_deleting(body) and FOREGROUND in (body["metadata"].get("finalizers") or [])


class Kubelet:
    """What becomes of pods, a step at a time."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    def step(self, pod: Object) -> bool:
        """A pod is bound and starts, is ready, or ends since it is deleted; whether there was anything to do."""
        if phase_of(pod) in FINISHED_PHASES:
            return False
        if is_deleting(pod):
            self.end(pod, 143)
        elif not pod["spec"].get("nodeName"):
            self._write(merged(pod, {"spec": {"nodeName": "local"}}), "Running", ready=False)
        elif not is_condition_true(pod, "Ready"):
            self._write(pod, "Running", ready=True)
        else:
            return False
        return True

    def end(self, pod: Object, exit_code: int | None) -> None:
        """The pod's containers end; a deleted pod is gone with that.

        exit_code: None for a pod that was evicted, of which no container tells.
        """
        state = {"terminated": {"exitCode": exit_code, "finishedAt": format_time(self._server.now)}}
        statuses = [{"name": one["name"], "state": state} for one in pod["spec"]["containers"]]
        self._write(
            pod,
            "Failed" if exit_code is None or exit_code else "Succeeded",
            ready=False,
            containerStatuses=[] if exit_code is None else statuses,
        )

    def fail_probe(self, pod: Object) -> None:
        """It runs, and is not ready any more."""
        self._write(pod, "Running", ready=False)

    def restart(self, pod: Object) -> None:
        """Its containers have ended and were started anew in place."""
        before = (pod["status"].get("containerStatuses") or [{}])[0].get("restartCount", 0)
        statuses = [
            {"name": one["name"], "restartCount": before + 1, "state": {"running": {}}}
            for one in pod["spec"]["containers"]
        ]
        self._write(pod, "Running", ready=False, containerStatuses=statuses)

    def _write(self, pod: Object, phase: str, *, ready: bool, **status: Any) -> None:
        before = next(iter(pod["status"].get("conditions") or []), None)
        since = before["lastTransitionTime"] if before and before["status"] == str(ready) else None
        condition = {
            "type": "Ready",
            "status": str(ready),
            "lastTransitionTime": since or format_time(self._server.now),
        }
        status = {**pod["status"], "phase": phase, "conditions": [condition], **status}
        self._server.write(PODS, {**pod, "status": status})


class Walk(RuleBasedStateMachine):
    """Controllers, their watches, their API server and its clock; users and pods are the subclass's."""

    planners: Mapping[Resource, tuple[Sequence[Resource], Planner]]
    """By the kind they look after: the kinds they make, and what they decide."""

    def __init__(self) -> None:
        super().__init__()
        kinds = (kind for parent, (made, _) in self.planners.items() for kind in (parent, *made))
        self.kinds = list(dict.fromkeys(kinds))
        self.server = MemoryServer()
        self.kubelet = Kubelet(self.server)
        self.start()

    @rule()
    def start(self) -> None:
        """The controllers are new ones: they begin with what listings tell."""
        self.informers = Informers(self.server)
        self.controllers = self._controllers()
        for controller in self.controllers:
            controller.queue = Line(self.server.now)  # type: ignore[assignment]
        for kind in self.kinds:
            for body in self.server.all(kind):
                self.informers.of(kind)._put(body)
        self.told = {kind: len(log) for kind, log in self.server.log.items()}

    def _controllers(self) -> list[Controller]:
        made = []
        for parent, (children, planner) in self.planners.items():
            actor = PlanActor(
                self.server, self.informers, parent, children, planner, component="played", clock=self._now
            )
            controller = Controller(parent.plural, actor.reconcile)
            controller.follow(self.informers, parent)
            for child in children:
                controller.follow_owned(self.informers, child, parent)
            made.append(controller)
        return made

    def _now(self) -> datetime:
        return self.server.now

    @rule(steps=STEPS)
    def stroll(self, steps: list[int]) -> None:
        """Each number is a step of somebody: a watch tells a little, a controller works, a pod goes on or is hit."""
        for number in steps:
            which = number // 5
            pod = chosen(self.pods(), which)
            if number % 5 == 0:
                self._tell(self.kinds[which % len(self.kinds)], 3)
            elif number % 5 in (1, 2):
                self.work(which)
            elif pod is not None and number % 5 == 3:
                self.kubelet.step(pod)
            elif pod is not None:
                self.hit(pod, which)

    def hit(self, pod: Object, how: int) -> None:
        """Something happens to a pod that is not its next step; the subclass's."""

    def _tell(self, kind: Resource, most: int) -> None:
        informer = self.informers.of(kind)
        for event, body in self.server.log[kind][self.told[kind] : self.told[kind] + most]:
            (informer._drop if event == "DELETED" else informer._put)(body)
            self.told[kind] += 1

    def work(self, which: int) -> bool:
        """A controller looks at a key that is due; whether there was one."""
        due = [(controller, key) for controller in self.controllers for key in _line(controller).ready()]
        if not due:
            return False
        controller, key = due[which % len(due)]
        line = _line(controller)
        del line.due[key]
        try:
            again_after_s = drive(controller._reconcile(key))
        except (ApiError, UnreachableError):
            line.failed(key)
        else:
            if again_after_s is not None:
                line.add_after(key, again_after_s)
        self.check()
        return True

    def check(self) -> None:
        """What holds whenever a controller has done something; the subclass's."""

    @rule()
    def control(self) -> None:
        """The controllers hear of everything and do all that is due, before any pod takes a step."""
        self._tell_all()
        for _ in range(20):
            if not self.work(0):
                break
            self._tell_all()

    @rule(rounds=st.integers(2, 5), troubles=TROUBLES)
    def lag(self, rounds: int, troubles: list[str]) -> None:
        """The watches are silent, requests fail; pods and controllers go on, with what these know."""
        self._tell_all()
        self.trouble(troubles)
        for _ in range(rounds):
            if not self.work(0):
                self.wait(1)
                self._live()

    @rule(troubles=TROUBLES)
    def trouble(self, troubles: list[str]) -> None:
        """The API server fails some of the next requests, before or after it has carried them out."""
        self.server.troubles = list(troubles)

    @rule(which=st.none() | st.integers(0, 9))
    def refuse(self, which: int | None) -> None:
        """A quota lets nobody make objects of a kind, or does so again."""
        self.server.refused = set() if which is None else {self.kinds[which % len(self.kinds)]}

    @rule(seconds=st.sampled_from([1, 15, 600]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.server.now += timedelta(seconds=seconds)
        for controller in self.controllers:
            _line(controller).now = self.server.now

    @rule(rounds=st.integers(1, 8))
    def go_on(self, rounds: int) -> None:
        """For a while everything goes as it should."""
        for _ in range(rounds):
            self._tell_all()
            if not self.work(0):
                self._live()

    @rule()
    def rest(self) -> None:
        self.come_to_rest()

    def teardown(self) -> None:
        """However a walk has gone, it comes to rest."""
        self.come_to_rest()

    def come_to_rest(self) -> None:
        """What is there in the end; the subclass's."""
        self.settle()

    def settle(self) -> None:
        """Left alone, everything comes to rest; then nobody looks again but to find that there is nothing to do."""
        self.server.troubles, self.server.refused = [], set()
        for _ in range(400):
            self._tell_all()
            if not self.work(0) and not self._live() and not self._skip():
                break
        else:
            raise AssertionError("it does not come to rest")
        before = {kind: len(log) for kind, log in self.server.log.items()}
        self.start()
        while self.work(0):
            self._tell_all()
        assert {kind: log[before[kind] :] for kind, log in self.server.log.items() if log[before[kind] :]} == {}

    def _tell_all(self) -> None:
        self.server.collect()
        for kind in self.kinds:
            self._tell(kind, 1 << 30)

    def _live(self) -> bool:
        """Every pod takes a step; whether one did."""
        return any([self.kubelet.step(pod) for pod in self.server.all(PODS)])

    def _skip(self) -> bool:
        """Goes to the time for which somebody is in line; whether there is one."""
        times = [moment for controller in self.controllers for moment in _line(controller).due.values()]
        if times:
            self.wait(max((min(times) - self.server.now).total_seconds(), 0) + 1)
        return bool(times)

    def pods(self, where: Callable[[Object], bool] = lambda pod: True) -> list[Object]:
        """The pods that there are, of any owner."""
        return [pod for pod in self.server.all(PODS) if where(pod)]

    def parent(self, kind: Resource, name: str) -> Object | None:
        return self.server.objects.get((kind, name))


def _line(controller: Controller) -> Line[Key]:
    return controller.queue  # type: ignore[return-value]


def chosen(items: Sequence[Object], which: int) -> Object | None:
    """One of them, None of none."""
    return items[which % len(items)] if items else None


def is_running(pod: Object) -> bool:
    return phase_of(pod) == "Running"
