"""How many pods a PodDisruptionBudget lets be evicted now."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alidade_local.objects import (
    Object,
    controller_of,
    is_condition_true,
    is_deleting,
    labels_of,
    matches_selector,
    namespace_of,
)

# (kind, namespace, name) -> the object, None when there is none
Find = Callable[[str, str, str], Object | None]


@dataclass(frozen=True)
class Budget:
    """The counts of a budget's status. expected: pods there should be; desired: healthy ones there have to be."""

    expected: int
    healthy: int
    desired: int

    @property
    def allowed(self) -> int:
        """Healthy pods that may go."""
        return max(self.healthy - self.desired, 0) if self.expected else 0


def guards(budget: Object, pod: Object) -> bool:
    """Whether evictions of the pod are the budget's matter; one without a selector guards nothing."""
    return namespace_of(budget) == namespace_of(pod) and matches_selector(
        budget["spec"].get("selector"), labels_of(pod)
    )


def count(budget: Object, pods: Sequence[Object], find: Find) -> Budget:
    """The counts for the pods of the budget's namespace.

    Shares, and all that may be unavailable, are of the replicas that the pods' controllers ask for, as in the
    disruption controller; a number that must be available is that number whatever they ask for.
    """
    guarded = [pod for pod in pods if guards(budget, pod)]
    healthy = sum(1 for pod in guarded if is_condition_true(pod, "Ready") and not is_deleting(pod))
    least, most = budget["spec"].get("minAvailable"), budget["spec"].get("maxUnavailable")
    if most is not None:
        expected = _asked_for(guarded, find)
        return Budget(expected, healthy, max(expected - _of(most, expected), 0))
    if isinstance(least, str):
        expected = _asked_for(guarded, find)
        return Budget(expected, healthy, _of(least, expected))
    # Without either, as if one pod had to be available.
    return Budget(len(guarded), healthy, 1 if least is None else int(least))


def _of(amount: int | str, whole: int) -> int:
    """An amount of pods; shares are rounded up."""
    return math.ceil(whole * int(amount[:-1]) / 100) if isinstance(amount, str) else int(amount)


def _asked_for(pods: Sequence[Object], find: Find) -> int:
    """Replicas that the controllers of the pods ask for, each once; a pod without one counts as one."""
    controllers: dict[str, int] = {}
    for pod in pods:
        uid, replicas = _scale_of(pod, find)
        controllers[uid] = replicas
    return sum(controllers.values())


def _scale_of(pod: Object, find: Find) -> tuple[str, int]:
    """(uid, replicas) of what controls the pod: its Deployment, its ReplicaSet, or itself."""
    found, above = pod, controller_of(pod)
    while above is not None and (parent := find(above["kind"], namespace_of(pod), above["name"])) is not None:
        found, above = parent, controller_of(parent)
    replicas = found["spec"].get("replicas")
    return str(found["metadata"]["uid"]), 1 if replicas is None else int(replicas)


def may_go(budget: Object, pod: Object, counts: Budget) -> bool:
    """Whether the pod may be evicted: a healthy one can be spared, or it is not healthy and its going is allowed."""
    if counts.allowed:
        return True
    healthy = is_condition_true(pod, "Ready")
    if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return not healthy
    return not healthy and counts.healthy >= counts.desired > 0
