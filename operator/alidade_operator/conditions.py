"""Conditions of a resource: replaced one by one, dated only when their status flips."""

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from alidade_crds.printing import printable
from alidade_crds.reasons import FINAL, ConditionType, Reason
from alidade_crds.status import Condition

Truth = Literal["True", "False", "Unknown"]


_FINAL = frozenset(str(reason) for reason in FINAL)
_AT_REST = frozenset({"Succeeded", "Suspended", "Serving", "Idle", "Stopped"})
"""Phases in which a resource is as its spec asks."""


class Conditions:
    """The conditions of a status while a plan is made; kinds of condition that are not ours are left out."""

    def __init__(self, known: Iterable[Condition], *, generation: int, now: datetime) -> None:
        ours = {str(kind) for kind in ConditionType}
        self._known = {condition.type: condition for condition in known if condition.type in ours}
        self._before = dict(self._known)
        self._generation = generation
        self._now = now

    def set(self, kind: ConditionType, status: Truth, reason: str, message: str) -> None:
        """States a fact; its date stays when its status is what it was before the plan."""
        before = self._before.get(kind)
        since = before.last_transition_time if before is not None and before.status == status else self._now
        self._known[str(kind)] = Condition(
            type=str(kind),
            status=status,
            reason=printable(str(reason)),
            message=printable(message),
            observed_generation=self._generation,
            last_transition_time=since,
        )

    def drop(self, kind: ConditionType) -> None:
        """Leaves a fact out that nobody asks about any more."""
        self._known.pop(str(kind), None)

    def set_default(self, kind: ConditionType, status: Truth, reason: str, message: str) -> None:
        """States a fact about which nothing has been said yet."""
        if kind not in self._known:
            self.set(kind, status, reason, message)

    def get(self, kind: ConditionType) -> Condition | None:
        """One condition, or None."""
        return self._known.get(kind)

    def reason(self, kind: ConditionType) -> str:
        """Why a fact has its status; empty when nothing is said of it."""
        condition = self._known.get(kind)
        return condition.reason if condition is not None else ""

    def is_true(self, kind: ConditionType) -> bool:
        """Whether a fact holds."""
        condition = self._known.get(kind)
        return condition is not None and condition.status == "True"

    def summarize(self, phase: str) -> None:
        """States what tools that know no kind of ours look for: Reconciling or Stalled, or neither at rest.

        Source: kstatus, "Conditions" (github.com/kubernetes-sigs/cli-utils, pkg/kstatus): both are there only while
        they are true.
        """
        self.drop(ConditionType.RECONCILING)
        self.drop(ConditionType.STALLED)
        if phase in _AT_REST:
            return
        against = next((one for one in map(self._known.get, _AGAINST) if one is not None and _is_against(one)), None)
        if against is not None:
            kind = ConditionType.STALLED if _is_final(against) else ConditionType.RECONCILING
            self.set(kind, "True", against.reason, against.message)
        elif not self._has_stopped():
            message = "It is on its way; the other conditions tell how far."
            self.set(ConditionType.RECONCILING, "True", Reason.NOT_FINISHED, message)

    def _has_stopped(self) -> bool:
        """Whether it says itself that it does not move: a ModelServe that keeps its canary beside the model before."""
        progressing = self._known.get(ConditionType.PROGRESSING)
        return progressing is not None and progressing.status == "False"

    def list(self) -> list[Condition]:
        """All of them, in the order of ConditionType, as of this generation."""
        observed = {"observed_generation": self._generation}
        return [self._known[kind].model_copy(update=observed) for kind in ConditionType if kind in self._known]


_AGAINST = (ConditionType.FAILED, ConditionType.ACCEPTED, ConditionType.FITS)


def _is_against(condition: Condition) -> bool:
    return condition.status == ("True" if condition.type == ConditionType.FAILED else "False")


def _is_final(condition: Condition) -> bool:
    """Whether it takes a change: what something that is still to come may mend is waited for."""
    return condition.type == ConditionType.FAILED or condition.reason in _FINAL
