"""Random walks around the real controller, whose queue is replaced by one whose order the walk decides.

A resource is worked on only when something has put it in line, so that a change that nobody is told of shows as one
that never ends.
"""

from __future__ import annotations

import copy

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from alidade_operator.api import ApiError
from alidade_operator.cache import Key
from alidade_operator.controller import Controller
from alidade_operator.executor import OutdatedPlanError
from tests.operator.builders import CONFIG
from tests.operator.line import Line
from tests.operator.memory import KINDS, TROUBLES, MemoryCluster, drive


class Walk(RuleBasedStateMachine):
    """One operator, its watches, its API server and its clock; everybody else is the subclass's."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = MemoryCluster()
        self.line: Line[Key] = Line(self.cluster.now)
        self.told = 0
        self.start_operator()

    @rule()
    def start_operator(self) -> None:
        """It begins with what a listing tells; what an earlier one had in mind is lost."""
        self.line.due.clear()
        self.operator = Controller(CONFIG, self.cluster.api, clock=lambda: self.cluster.now)
        self.operator._queue = self.line  # type: ignore[assignment]
        for body in self.cluster.api.objects.values():
            if body["kind"] in KINDS:
                self.operator.take_event(KINDS[body["kind"]], None, copy.deepcopy(body))
        self.told = len(self.cluster.api.log)

    @rule(most=st.integers(1, 10))
    def deliver(self, most: int) -> None:
        """The watches tell some of what has happened, the garbage collector's part too."""
        self.cluster.api.collect()
        for event, body in self.cluster.api.log[self.told : self.told + most]:
            if body["kind"] in KINDS:
                self.operator.take_event(KINDS[body["kind"]], event, copy.deepcopy(body))
            self.told += 1

    @rule(which=st.integers(0, 9))
    def work(self, which: int) -> None:
        """The operator takes a key from the line."""
        ready = self.line.ready()
        if not ready:
            return
        key = ready[which % len(ready)]
        del self.line.due[key]
        try:
            drive(self.operator._reconcile(key))
        except (OutdatedPlanError, ApiError):
            self.line.failed(key)

    @rule(troubles=TROUBLES)
    def trouble(self, troubles: list[str]) -> None:
        """The API server fails some of the operator's next calls, before or after it has carried them out."""
        self.cluster.api.troubles = troubles

    @rule(seconds=st.sampled_from([1, 15, 600]))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.cluster.clock(seconds=seconds)
        self.line.now = self.cluster.now

    def skip(self) -> bool:
        """Goes to the time for which somebody is in line; whether there is one."""
        times = list(self.line.due.values())
        if not times:
            return False
        self.wait(max(1, round((min(times) - self.cluster.now).total_seconds() + 0.5)))
        return True
