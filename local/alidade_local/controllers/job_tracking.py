"""How a Job counts each of its pods once, whoever deletes it: pods stay until they are counted.

As in the original: a finalizer keeps an ended pod; its uid is written into the Job's `uncountedTerminatedPods`, then
the finalizer is taken away, then the uid makes place for a number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from alidade_local.client import ApiClient, NotFoundError
from alidade_local.controllers.controller import Controller
from alidade_local.controllers.plan import Plan
from alidade_local.informer import Informers
from alidade_local.objects import Key, Object, controller_of, key_of, namespace_of, uid_of
from alidade_local.resources import JOBS, PODS

FINALIZER = "batch.kubernetes.io/job-tracking"
OUTCOMES = ("succeeded", "failed")


@dataclass
class Tally:
    """Pods by outcome.

    numbers: of those that are counted for good; uncounted: the uids of the others.
    released: pods that may go now, since their uids are written.
    """

    numbers: dict[str, int]
    uncounted: dict[str, list[str]]
    released: list[Object] = field(default_factory=list)

    def total(self, outcome: str) -> int:
        return self.numbers[outcome] + len(self.uncounted[outcome])


def is_tracked(pod: Object) -> bool:
    return FINALIZER in (pod["metadata"].get("finalizers") or [])


def tally(status: Object, pods: Sequence[Object], outcome_of: Callable[[Object], str]) -> Tally:
    """Count what ended since the status was written. outcome_of: succeeded, failed, or nothing for what goes on."""
    tracked = {uid_of(pod): pod for pod in pods if is_tracked(pod)}
    written: dict[str, list[str]] = status.get("uncountedTerminatedPods") or {}
    result = Tally({}, {})
    for outcome in OUTCOMES:
        named = written.get(outcome) or []
        kept = [uid for uid in named if uid in tracked]
        result.numbers[outcome] = status.get(outcome, 0) + len(named) - len(kept)
        result.uncounted[outcome] = kept
        result.released += [tracked[uid] for uid in kept]
    known = {uid for uids in result.uncounted.values() for uid in uids}
    for uid, pod in tracked.items():
        if uid not in known and (outcome := outcome_of(pod)):
            result.uncounted[outcome].append(uid)
    return result


def release(plan: Plan, pod: Object) -> None:
    """Let go of a pod."""
    if is_tracked(pod):
        plan.patch.append((PODS, pod, {"metadata": {"uid": uid_of(pod), "finalizers": _others(pod)}}))


def _others(pod: Object) -> list[str] | None:
    return [name for name in pod["metadata"].get("finalizers") or [] if name != FINALIZER] or None


class OrphanReleaser:
    """Lets go of tracked pods whose Job is gone."""

    def __init__(self, client: ApiClient, informers: Informers) -> None:
        self.controller = Controller("pods of jobs that are gone", self._reconcile, workers=1)
        self._client = client
        self._jobs, self._pods = informers.of(JOBS), informers.of(PODS)
        self.controller.follow(informers, PODS)
        self._jobs.listen(self._on_job)

    def _on_job(self, before: Object | None, after: Object | None) -> None:
        if before is not None and after is None:
            for pod in self._pods.controlled_by(before):
                self.controller.queue.add(key_of(pod))

    async def _reconcile(self, key: Key) -> None:
        pod = self._pods.get(key)
        if pod is None or not is_tracked(pod):
            return
        owner = controller_of(pod)
        job = self._jobs.get(Key(namespace_of(pod), owner["name"])) if owner is not None else None
        if job is not None and owner is not None and uid_of(job) == owner["uid"]:
            return
        patch = {"metadata": {"uid": uid_of(pod), "finalizers": _others(pod)}}
        try:
            self._pods.absorb(await self._client.patch(PODS, key, patch))
        except NotFoundError:
            return
