"""The status of PodDisruptionBudgets: how many pods are healthy, and how many may be evicted."""

from __future__ import annotations

from datetime import UTC, datetime

from alidade_local import budgets
from alidade_local.client import ApiClient, NotFoundError
from alidade_local.controllers.controller import Controller
from alidade_local.informer import Informers
from alidade_local.objects import (
    Key,
    Object,
    condition_of,
    format_time,
    is_deleting,
    key_of,
    namespace_of,
)
from alidade_local.resources import DEPLOYMENTS, DISRUPTION_BUDGETS, PODS, REPLICA_SETS

CONDITION = "DisruptionAllowed"


def budget_status(budget: Object, counts: budgets.Budget, now: datetime) -> Object:
    """The status of a budget with these counts."""
    allowed = counts.allowed > 0
    reason = "SufficientPods" if allowed else "InsufficientPods"
    generation = budget["metadata"].get("generation", 1)
    before = condition_of(budget, CONDITION)
    unchanged = before is not None and before["status"] == str(allowed)
    condition = {
        "type": CONDITION,
        "status": str(allowed),
        "reason": reason,
        "message": "",
        "lastTransitionTime": before["lastTransitionTime"] if before is not None and unchanged else format_time(now),
        "observedGeneration": generation,
    }
    return {
        "conditions": [condition],
        "currentHealthy": counts.healthy,
        "desiredHealthy": counts.desired,
        "disruptionsAllowed": counts.allowed,
        "expectedPods": counts.expected,
        "observedGeneration": generation,
    }


class DisruptionController:
    """Counts again whenever a pod or what controls it changes."""

    def __init__(self, client: ApiClient, informers: Informers) -> None:
        self.controller = Controller("disruption", self._reconcile)
        self._client = client
        self._budgets = informers.of(DISRUPTION_BUDGETS)
        self._pods = informers.of(PODS)
        self._scaled = {resource.kind: informers.of(resource) for resource in (DEPLOYMENTS, REPLICA_SETS)}
        self.controller.follow(informers, DISRUPTION_BUDGETS)
        for informer in (self._pods, *self._scaled.values()):
            informer.listen(self._on_change)

    def _on_change(self, before: Object | None, after: Object | None) -> None:
        document = after or before
        if document is not None:
            for budget in self._budgets.all(namespace_of(document)):
                self.controller.queue.add(key_of(budget))

    def _find(self, kind: str, namespace: str, name: str) -> Object | None:
        return self._scaled[kind].get(Key(namespace, name)) if kind in self._scaled else None

    async def _reconcile(self, key: Key) -> None:
        budget = self._budgets.get(key)
        if budget is None or is_deleting(budget):
            return
        counts = budgets.count(budget, self._pods.all(key.namespace), self._find)
        status = budget_status(budget, counts, datetime.now(UTC))
        if status == budget.get("status"):
            return
        try:
            self._budgets.absorb(await self._client.update_status(DISRUPTION_BUDGETS, {**budget, "status": status}))
        except NotFoundError:
            return
